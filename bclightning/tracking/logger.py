"""W&B is where runs are compared, and never what a run depends on."""

import contextlib
import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from bclightning.tracking.metadata import command_without_secrets, secret_of_slurm
from bclightning.tracking.mode import KNOWN_MODES, Mode, WandbOptions
from bclightning.tracking.names import EPOCH, wandb_media, wandb_metrics
from bclightning.vocabulary import TRAIN_LOSS

# W&B's own mark for a setting that may change. Where it is asked for and W&B does not know it,
# nothing is logged.
_NO_METADATA = "x_disable_meta"

# W&B's server refuses longer ones, which offline nobody notices before the run is synced.
MAX_TAG_LENGTH = 64


class TrackingWarning(UserWarning):
    """W&B failed; the run continues without it."""


def start_tracking(
    settings: WandbOptions,
    mode: Mode,
    *,
    run_id: str,
    name: str,
    folder: Path,
    group: str,
    job_type: str,
    tags: Sequence[str],
    config: Mapping[str, Any],
    layers: Sequence[str] = (),
) -> "TrackingLogger | None":
    """Open a W&B run of its own, under the run's id, with its files in ``folder/wandb``.

    Where the server cannot be reached, or refuses the key, the run is logged offline.

    Args:
        settings: Project, entity, more tags, whether to record metadata, and how long to wait.
        mode: Mode from `decide_mode`.
        run_id: W&B's id for the run; an id that was used before resumes that run.
        name: Name that W&B shows.
        folder: Folder of the experiment, whose runs are looked at together.
        group: The experiment or sweep.
        job_type: The stage: ``train``, ``tune`` or ``final``.
        tags: Tags for filters, as ``regularizer:stochastic``.
        config: Plain data that W&B filters by.
        layers: Names of the network's layers with weights, in its order.

    Returns:
        A logger for Lightning, or ``None`` when W&B is disabled or cannot be used.

    Warns:
        TrackingWarning: W&B failed.
    """
    if mode == "disabled":
        return None
    what: dict[str, Any] = {
        "project": settings.project,
        "entity": settings.entity,
        "dir": str(folder),
        "name": name,
        "group": group,
        "job_type": job_type,
        "tags": [shortened_tag(tag) for tag in (*tags, *settings.tags) if tag],
        "config": dict(config),
    }
    # W&B keeps the id of a run that it could not start, so the second attempt needs another.
    attempts: dict[Mode, str] = {mode: run_id}
    if mode == "online":
        attempts["offline"] = f"{run_id}-offline"
    metadata = settings.metadata and not _slurm_has_a_secret()
    if not metadata and not _can_leave_metadata_out():
        return None
    for attempt, identity in attempts.items():
        stop_asked = threading.Event()
        try:
            run = _open(attempt, identity, what, metadata, settings.init_timeout, stop_asked)
        except Exception as error:  # whatever W&B does, the run continues
            fallback = "logging offline" if attempt == "online" else "the run continues without it"
            _warn(f"W&B could not start {attempt} ({_brief(error)}); {fallback}")
            continue
        return TrackingLogger(run, run_id, settings.finish_timeout, stop_asked, layers)
    return None


def shortened_tag(tag: str) -> str:
    """A tag that W&B's server takes: what is too long ends in a checksum that keeps it distinct.

    Example:
        >>> shortened_tag("regularizer:stochastic")
        'regularizer:stochastic'
        >>> len(shortened_tag("arm:" + 64 * "a")), shortened_tag("arm:" + 64 * "a")[-10:]
        (64, 'a-78d44363')
    """
    if len(tag) <= MAX_TAG_LENGTH:
        return tag
    checksum = hashlib.sha256(tag.encode()).hexdigest()[:8]
    return f"{tag[: MAX_TAG_LENGTH - len(checksum) - 1]}-{checksum}"


def _open(
    mode: Mode,
    identity: str,
    what: Mapping[str, Any],
    metadata: bool,
    init_timeout: float,
    stop_asked: threading.Event,
) -> Any:
    import wandb

    _without_analytics()
    # W&B makes its settings of the whole process here, if nobody has before, from the environment:
    # all of it must be there, also for runs of others. But a mode that W&B does not know ends it.
    unknown = None
    if os.environ.get("WANDB_MODE", "") not in KNOWN_MODES:
        unknown = os.environ.pop("WANDB_MODE", None)
    left_out: dict[str, Any] = {} if metadata else {_NO_METADATA: True}
    try:
        with command_without_secrets():
            return wandb.init(
                **what,
                id=identity,
                mode=mode,
                resume="allow" if mode == "online" else None,
                # A run of its own, also where another one is open in this process.
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True,
                    console="off",
                    init_timeout=init_timeout,
                    # When the server asks for it; W&B would interrupt the process.
                    stop_fn=stop_asked.set,
                    # Code and its changes may hold what nobody else should see.
                    disable_code=True,
                    disable_job_creation=True,
                    save_code=False,
                    disable_git=not metadata,
                    **left_out,
                ),
            )
    finally:
        if unknown is not None:
            os.environ["WANDB_MODE"] = unknown


def _without_analytics() -> None:
    """Let W&B send nothing of its own use, for whose delivery the end of a process would wait."""
    with contextlib.suppress(ImportError):
        from wandb.analytics.opentelemetry import opentelemetry_proxy

        opentelemetry_proxy.disable()


class TrackingLogger(Logger):
    """Logs to a W&B run, and costs a run nothing but a warning when that fails.

    W&B's steps are the trainer's, so that a resumed run's curves continue. Metrics are renamed for
    it as `bclightning.tracking.names` says.

    Args:
        run: The W&B run.
        run_id: Its id.
        finish_timeout: Seconds to wait for the last upload.
        stop_asked: Set when W&B's server asks for the run to be stopped, which it is not.
        layers: Names of the network's layers with weights, in its order.
    """

    def __init__(
        self,
        run: Any,
        run_id: str,
        finish_timeout: float = 60.0,
        stop_asked: threading.Event | None = None,
        layers: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._stop_asked = stop_asked or threading.Event()
        self._run = run
        self._run_id = run_id
        self._finish_timeout = finish_timeout
        self._layers = list(layers)
        # Metrics of an epoch that wait for the rest of them, media that wait for their step.
        self._row: dict[str, Any] = {}
        self._media: dict[str, Any] = {}
        self._step = 0
        # W&B takes no step twice: a run that was killed after its last checkpoint, and resumed
        # from there, comes to the same values again.
        self._known = self._next = int(run.starting_step)

    @property
    def name(self) -> str:
        """What Lightning calls the logger."""
        return "wandb"

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run_id

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the configuration was given when the run started, where filters see it."""

    @property
    def online(self) -> bool:
        """Whether the run reaches W&B's server now."""
        return self._run is not None and not self._run.offline

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of a step of the trainer, with the media that wait for it."""
        if self._stop_asked.is_set():
            self._stop_asked.clear()
            _warn("W&B asks for the run to be stopped; it continues, and Ctrl-C stops it")
        shown = wandb_metrics(metrics, self._layers)
        if step != self._step:
            self._send()
        if EPOCH not in shown:
            # Of a step within an epoch, at the end of which more may come.
            self._log(shown, self._next if step is None else step, None)
            return
        self._step = self._next if step is None else step
        self._row |= {**shown, **self._media}
        self._media = {}
        if TRAIN_LOSS in metrics:
            # The last of an epoch.
            self._send()

    @rank_zero_only
    def log_histogram(
        self, key: str, counts: npt.NDArray[np.int64], edges: npt.NDArray[np.float64], step: int
    ) -> None:
        """Log a histogram of an epoch, with the epoch's metrics."""

        def keep() -> None:
            import wandb

            histogram = wandb.Histogram(np_histogram=(counts, edges))
            self._media[wandb_media(key, self._layers)] = histogram

        self._attempt(keep)

    @rank_zero_only
    def log_image(
        self, key: str, image: npt.NDArray[np.uint8], step: int, caption: str = ""
    ) -> None:
        """Log an image of an epoch, of shape (height, width, 3), with the epoch's metrics."""

        def keep() -> None:
            import wandb

            self._media[wandb_media(key, self._layers)] = wandb.Image(image, caption=caption)

        self._attempt(keep)

    @rank_zero_only
    def log_objects(self, make: Callable[[], Mapping[str, Any]]) -> None:
        """Log W&B's own objects, as those of `bclightning.tracking.objects`, when training is over.

        Args:
            make: Makes them, by name; an error in it costs a warning.
        """
        self._attempt(lambda: self._run.log(dict(make()), step=self._next, commit=True))

    @rank_zero_only
    def log_model(self, name: str, files: Sequence[Path], metadata: Mapping[str, Any]) -> None:
        """Log a model's files as an artifact.

        Args:
            name: Name of the artifact.
            files: The files.
            metadata: Plain data that W&B shows with it.
        """

        def log() -> None:
            import wandb

            artifact = wandb.Artifact(name, type="model", metadata=dict(metadata))
            for file in files:
                # Copied, since the files may go before they are uploaded.
                artifact.add_file(str(file), policy="mutable")
            self._run.log_artifact(artifact)

        self._attempt(log)

    @rank_zero_only
    def log_summary(self, values: Mapping[str, Any]) -> None:
        """Set what stands for the run in tables, as its test errors."""
        self._attempt(lambda: self._run.summary.update(dict(values)))

    @rank_zero_only
    def finish(self, exit_code: int, last: Mapping[str, float] | None = None) -> None:
        """Close the run, and wait for the last upload, but not for ever.

        Args:
            exit_code: 0 after a run that came to its end; another one waits to be resumed, so that
                nothing is logged of the epoch that it begins again with.
            last: Metrics of the last epoch that is kept, which a stop may come before.
        """
        if last is not None and self._row.get(EPOCH) == last["epoch"] + 1:
            self._row |= wandb_metrics(last, self._layers)
        elif exit_code:
            self._row = {}
        self._send()
        run = self._run
        if run is None:
            return
        finishing = threading.Thread(
            target=self._attempt, args=(lambda: run.finish(exit_code=exit_code),), daemon=True
        )
        finishing.start()
        finishing.join(self._finish_timeout)
        if finishing.is_alive():
            _warn(
                "W&B did not finish its upload in time; "
                "wandb sync --include-online uploads the rest"
            )
        self._run = None

    def _send(self) -> None:
        row, self._row = self._row, {}
        if row:
            self._log(row, self._step, True)

    def _log(self, row: Mapping[str, Any], step: int, commit: bool | None) -> None:
        if step < self._known:
            return
        # What comes after the end of its epoch has the step after it.
        step = max(step, self._next)
        self._next = step + 1 if commit else step
        self._attempt(lambda: self._run.log(dict(row), step=step, commit=commit))

    def _attempt(self, action: Callable[[], object]) -> None:
        if self._run is None:
            return
        try:
            action()
        except Exception as error:  # whatever W&B does, the run continues
            self._run = None
            _warn(f"W&B failed ({_brief(error)}); metrics.csv still has every metric")


def _can_leave_metadata_out() -> bool:
    """Whether W&B still knows the setting; if not, a warning says what to do."""
    try:
        import wandb
    except ImportError:
        # Starting it says so.
        return True
    if _NO_METADATA in wandb.Settings.model_fields:
        return True
    _warn(
        f"this version of W&B ({wandb.__version__}) has no setting {_NO_METADATA}, without which "
        "it would record metadata; the run is not logged: install an older wandb"
    )
    return False


def _slurm_has_a_secret() -> bool:
    """Whether W&B would record a secret among Slurm's variables; a warning says so."""
    name = secret_of_slurm()
    if name is not None:
        _warn(f"W&B gets no command, host and commit, since it would record {name} with them")
    return name is not None


def _brief(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _warn(message: str) -> None:
    warnings.warn(message, TrackingWarning, stacklevel=3)
