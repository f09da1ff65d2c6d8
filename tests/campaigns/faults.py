"""A command line in a process of its own, with a fault at one of its file operations."""

import atexit
import builtins
import contextlib
import errno
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch

from bclightning.cli.main import main

Fault = Callable[[], None]
Change = Callable[[], None]
OPERATIONS = ("open", "mkdir", "replace", "rename", "unlink", "rmdir", "fsync")


def compute_on_one_thread() -> None:
    """Let this process be forked: a new one cannot use the threads of the one that it comes from.

    Processes are forked, since an import of torch takes longer than all else that they do.
    """
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


def kept_folder() -> Path:
    """A folder for what all tries are compared with, which goes with this process."""
    folder = tempfile.mkdtemp(prefix="campaign-whole-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class Try(random.Random):
    """The source of a try's randomness, which knows the number of the try."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


Attempt = Callable[[Try, Path], str | None]
"""One try, in an empty folder; returns what did not hold, or `None`."""

Controls = dict[str, tuple[str, Attempt]]
"""By the defence that is taken away: the name of the attack, and how it is made without that."""


def nothing() -> None:
    pass


def said(folder: Path) -> str:
    """What the command lines said that were started in a folder."""
    return (folder / "said.txt").read_text(errors="replace")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def asked_to_stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def disk_full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def writes(path: object, mode: object) -> bool:
    """Whether an operation changes something in the current folder."""
    if isinstance(mode, str) and not set(mode) & set("wax+"):
        return False
    if isinstance(mode, int) and not mode & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        return False
    if isinstance(path, int):
        return True
    with contextlib.suppress(TypeError, ValueError):
        return Path(os.fsdecode(path)).absolute().is_relative_to(Path.cwd())  # type: ignore[arg-type]
    return False


def inject(fault: Fault | None, number: int, *, lasting: bool) -> Callable[[], int]:
    """Let a fault happen before a file operation of this process; return what counts them.

    Args:
        fault: What happens; `None` to count alone.
        number: Number of the operation, from 1.
        lasting: Whether it happens before each later operation, too.
    """
    count = 0

    def counted(operation: Callable, mode_at: int | None) -> Callable:
        def call(path, *arguments, **keywords):
            nonlocal count
            mode = None
            if mode_at is not None:
                mode = arguments[0] if arguments else keywords.get("mode", "r")
            if writes(path, mode):
                count += 1
                if fault is not None and (count == number or (lasting and count > number)):
                    fault()
            return operation(path, *arguments, **keywords)

        return call

    for name in OPERATIONS:
        setattr(os, name, counted(getattr(os, name), 0 if name == "open" else None))
    builtins.open = counted(builtins.open, 0)
    return lambda: count


def start(
    words: list[str],
    folder: Path,
    fault: Fault | None = None,
    number: int = 0,
    *,
    lasting: bool = False,
    before: Callable[[], None] = lambda: None,
) -> int:
    """Start a command line in a folder, in a process of its own; return the process's id.

    What it says goes to ``said.txt`` in the folder, and the number of its file operations to
    ``operations.txt``.

    Args:
        words: The command line after ``bcl``.
        folder: Its working folder.
        fault: What happens before one of its file operations.
        number: Number of that operation, from 1.
        lasting: Whether it happens before each later operation, too.
        before: Called first in the new process: takes defences away.
    """
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(folder)
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        before()
        counts = inject(fault, number, lasting=lasting)
        try:
            code = main(words) or 0
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        fault = None
        Path("operations.txt").write_text(str(counts()))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(process: int) -> int:
    """The exit code of a process; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def wait_until(process: int, deadline: float) -> int | None:
    """The exit code as `wait` gives it; ``None`` if the process lives at the deadline."""
    while True:
        ended, status = os.waitpid(process, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.05)


def ended(process: int) -> bool:
    """Whether a process has ended; it can still be waited for."""
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def children(process: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, IndexError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == process:
                found.append(int(status.parent.name))
    return sorted(found)


def workers(coordinator: int) -> list[int]:
    """A sweep's workers, which are forked from a server that the coordinator has started."""
    return [worker for child in children(coordinator) for worker in children(child)]


def machine(coordinator: int) -> list[int]:
    """A coordinator and all that it has started."""
    return [coordinator, *children(coordinator), *workers(coordinator)]


def signal_all(processes: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that live."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def run(words: list[str], folder: Path, *arguments, **keywords) -> int:
    """Run a command line as `start` does, to its end; return the exit code."""
    return wait(start(words, folder, *arguments, **keywords))


@contextlib.contextmanager
def alive(*processes: int) -> Iterator[None]:
    """Kill processes, and what they started, at the end of a block."""
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process, signal.SIGKILL)
