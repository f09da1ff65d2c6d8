"""A run is a folder: its name, its files, and how a run is found by either."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import filelock

from bclightning.errors import MachineError, UserError
from bclightning.storage import TEMPORARY_SUFFIX, full_disk

# A process that held a run's lock and was just killed may need a moment to be gone.
LOCK_TIMEOUT_SECONDS = 5.0

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


class RunInUseError(MachineError):
    """Another process trains the run now."""


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

    def create(self) -> None:
        """Make the folder of a new run.

        Raises:
            UserError: It exists, and nothing in it was touched; or it cannot be made.
        """
        try:
            # A run that was killed before it had a configuration left no more than folders.
            if self.path.is_dir() and all(path.is_dir() for path in self.path.rglob("*")):
                self.checkpoints.mkdir(exist_ok=True)
                return
            self.path.mkdir(parents=True)
            self.checkpoints.mkdir()
        except FileExistsError as error:
            raise UserError(
                f"the run folder {self.path} exists; give another --run_id, "
                f"or resume that run: bcl fit --resume {self.path}"
            ) from error
        except OSError as error:
            raise full_disk(error, self.path) or MachineError(
                f"the run folder {self.path} cannot be made: {error.strerror}; "
                "give another --runs_dir"
            ) from error

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training the same run; the lock ends with its process.

        Raises:
            RunInUseError: Another process is training it.
        """
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=LOCK_TIMEOUT_SECONDS)
        except filelock.Timeout as error:
            raise RunInUseError(
                f"the run {self.path} is being trained by another process; wait for it, or stop it"
            ) from error
        try:
            yield
        finally:
            lock.release()

    def in_use(self) -> bool:
        """Whether a process on this machine trains the run now."""
        if not (self.path / ".lock").exists():
            return False
        lock = filelock.FileLock(self.path / ".lock")
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
        if (Path(run) / "config.yaml").is_file():
            # A dot has no name of its own, and a run is called like its folder.
            return cls(Path(run) if Path(run).name else Path(run).resolve())
        found = sorted(Path(runs_dir).glob(f"*/{run}/config.yaml")) if _NAME.fullmatch(run) else []
        if len(found) == 1:
            return cls(found[0].parent)
        if found:
            places = ", ".join(str(config.parent) for config in found)
            raise UserError(f"several runs are named {run}; give the path of one: {places}")
        raise UserError(
            f"there is no run {run!r}: give the folder of a run, or its id below {runs_dir}"
        )
