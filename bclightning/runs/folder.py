"""A run is a folder: its name, its files, and how a run is found by either."""

import contextlib
import re
import shlex
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from bclightning.errors import MachineError, UserError
from bclightning.storage import TEMPORARY_SUFFIX, full_disk, home_expanded

# A process that held a run's lock and was just killed may need a moment to be gone.
LOCK_TIMEOUT_SECONDS = 5.0

# Held by the process that trains the run, in its folder.
LOCK = ".lock"

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")


def checked_name(name: str, what: str) -> str:
    """The name of a run or an experiment, if it can safely name a folder.

    Raises:
        UserError: It has other characters, is too long, or means a folder by dots alone.

    Example:
        >>> checked_name("mnist-stochastic-s0", "--run_id")
        'mnist-stochastic-s0'
    """
    if not _NAME.fullmatch(name) or set(name) <= {"."}:
        raise UserError(
            f"{what} {name!r} must be 1 to 64 letters, digits, dots, underscores and hyphens"
        )
    return name


def left_by_a_kill(file: Path) -> bool:
    """Whether a run leaves such a file that is killed before it has a configuration.

    Example:
        >>> left_by_a_kill(Path("runs/mnist/a/.lock")), left_by_a_kill(Path("photo.jpg"))
        (True, False)
    """
    return file.name == LOCK or file.name.endswith(TEMPORARY_SUFFIX)


class RunInUseError(MachineError):
    """Another process trains the run now."""


class RunExistsError(UserError):
    """There is a run in the folder of one that shall begin."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run.

    Attributes:
        path: ``RUNS_DIR/EXPERIMENT/RUN_ID``.
    """

    path: Path

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def shell_name(self) -> str:
        """What to call the run on a command line: its id where that finds it, else its path."""
        try:
            found = RunFolder.find(self.run_id).path.samefile(self.path)
        except (UserError, OSError):
            found = False
        return shlex.quote(self.run_id if found else str(self.path))

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """The metrics, one row per epoch."""
        return self.path / "metrics.csv"

    @property
    def record(self) -> Path:
        """The run's record."""
        return self.path / "run.json"

    @property
    def first_layer(self) -> Path:
        """A histogram of the first layer's latent weights at the best epoch."""
        return self.path / "first_layer.json"

    @property
    def features(self) -> Path:
        """The first layer's features at the best epoch, as an image."""
        return self.path / "first_layer.png"

    @property
    def checkpoints(self) -> Path:
        """The folder of ``last.ckpt`` and ``best.ckpt``."""
        return self.path / "checkpoints"

    @contextlib.contextmanager
    def claim(self) -> Iterator[None]:
        """Make the folder of a new run, and keep other processes from it until the block ends.

        The block must write the configuration: a folder without one, as a kill leaves it, is for
        whoever claims it next.

        Raises:
            RunExistsError: There is such a run.
            UserError: The folder has files that are no run's.
            MachineError: The folder cannot be made, or another process is about to begin this run.
        """
        self._refuse_if_taken()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.checkpoints.mkdir(exist_ok=True)
        except OSError as error:
            raise full_disk(error, self.path) or MachineError(
                f"the run folder {self.path} cannot be made: {error.strerror}; "
                "give another --runs_dir"
            ) from error
        with self.lock(self._refuse_if_taken):
            yield

    def _refuse_if_taken(self) -> None:
        try:
            if self.config.exists():
                raise RunExistsError(
                    f"the run folder {self.path} exists; give another --run_id, "
                    f"or resume that run: bcl fit --resume {shlex.quote(str(self.path))}"
                )
            within = self.path.rglob("*") if self.path.is_dir() else ()
            files = [path for path in within if not path.is_dir()]
        except OSError as error:
            raise MachineError(
                f"the run folder {self.path} cannot be read: {error.strerror}; "
                "give another --runs_dir"
            ) from error
        for file in files:
            if not left_by_a_kill(file):
                raise UserError(
                    f"the folder {self.path} exists; give another --run_id, or move it away: "
                    f"it holds {file.name}, which no run left there"
                )

    @contextlib.contextmanager
    def lock(self, check: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Keep other processes from training the same run; the lock ends with its process.

        Args:
            check: Called before each try for the lock, and once it is held; an error ends the wait.

        Raises:
            RunInUseError: Another process is training it.
            MachineError: The lock cannot be written, or the disk is full.
        """
        lock = filelock.FileLock(self.path / LOCK)
        self._acquire(lock, check)
        try:
            check()
            yield
        finally:
            lock.release()

    def _acquire(self, lock: filelock.BaseFileLock, check: Callable[[], None]) -> None:
        end = time.monotonic() + LOCK_TIMEOUT_SECONDS
        while True:
            check()
            try:
                lock.acquire(timeout=min(0.2, LOCK_TIMEOUT_SECONDS))
                return
            except filelock.Timeout as error:
                if time.monotonic() >= end:
                    raise RunInUseError(
                        f"the run {self.path} is being trained by another process; "
                        "wait for it, or stop it"
                    ) from error
            except (OSError, NotImplementedError) as error:
                full = full_disk(error, self.path / LOCK) if isinstance(error, OSError) else None
                raise full or MachineError(
                    f"the run {self.path} cannot be locked: {getattr(error, 'strerror', error)}; "
                    "copy it to a folder where files can be written and locked"
                ) from error

    def in_use(self) -> bool:
        """Whether a process on this machine trains the run now."""
        if not (self.path / LOCK).exists():
            return False
        lock = filelock.FileLock(self.path / LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        except OSError:
            # Where nothing can be locked, nobody can train either.
            return False
        lock.release()
        return False

    def remove_temporary_files(self) -> None:
        """Remove temporary files that a killed process left behind."""
        for pattern in (f".*{TEMPORARY_SUFFIX}", f"checkpoints/.*{TEMPORARY_SUFFIX}"):
            for leftover in self.path.glob(pattern):
                leftover.unlink(missing_ok=True)

    @classmethod
    def find(cls, run: str, runs_dir: str = "results/runs") -> "RunFolder":
        """The folder of a run that is named by its path, or by its id below `runs_dir`.

        Raises:
            UserError: There is no such run, or several with that id.
        """
        run = home_expanded(run)
        path = Path(run)
        if _is_file(path / "config.yaml"):
            # Dots have no name of their own, and a run is called like its folder.
            return cls(path if path.name.strip(".") else path.resolve())
        found = sorted(Path(runs_dir).glob(f"*/{run}/config.yaml")) if _NAME.fullmatch(run) else []
        if len(found) == 1:
            return cls(found[0].parent)
        if found:
            places = ", ".join(str(config.parent) for config in found)
            raise UserError(f"several runs are named {run}; give the path of one: {places}")
        raise UserError(
            f"there is no run {run!r}: give the folder of a run, or its id below {runs_dir}"
        )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        # A name that is too long for a file, or a folder that may not be read.
        return False
