"""One run, from its configuration to its record."""

import contextlib
import json
import os
import secrets
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import DeviceStatsMonitor, LearningRateMonitor
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import nn

from bclightning.costs import model_size
from bclightning.data import ImageDataModule
from bclightning.errors import UserError
from bclightning.evaluation import default_evaluation
from bclightning.nn import binary_layers
from bclightning.runs.allocator import keep_freed_memory
from bclightning.runs.callbacks import FirstEpochs, ResumeAfterEpoch, SeedEachEpoch
from bclightning.runs.checkpoint import RunCheckpoint
from bclightning.runs.checkpoint_io import (
    WholeFileCheckpointIO,
    load_checkpoint,
    require_resumable,
)
from bclightning.runs.config import BuiltRun, RunConfig
from bclightning.runs.data import SharedData, data_name, has_loader
from bclightning.runs.evaluate import evaluate
from bclightning.runs.first_layer import save_first_layer
from bclightning.runs.folder import RunFolder, checked_name
from bclightning.runs.hints import NO_EPOCHS
from bclightning.runs.hyperparameters import hyperparameters_of
from bclightning.runs.interrupt import interruptible, interruption_of, stop_if_asked
from bclightning.runs.late_layers import make_late_layers
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.notices import logger, opening_lines
from bclightning.runs.parser_errors import lightning_errors
from bclightning.runs.preflight import check_first_batch, check_forward_pass
from bclightning.runs.provenance import git_state, machine, versions
from bclightning.runs.rebuild import (
    TrainedNetwork,
    load_first_weights,
    load_weights,
    reported_metric,
)
from bclightning.runs.record import RunRecord
from bclightning.runs.shown import show_test
from bclightning.runs.slurm import first_if_alone
from bclightning.runs.threads import (
    check_threads,
    may_choose,
    preserving_threads,
    recorded_threads,
    suits_one_thread,
)
from bclightning.seeds import SEEDING, RunSeeds
from bclightning.tracking.folders import FOLDER as WANDB_FOLDER
from bclightning.tracking.logger import TrackingLogger, start_tracking
from bclightning.tracking.mode import decide_mode
from bclightning.tracking.names import BEST_EPOCH, wandb_name
from bclightning.tracking.settings import SETTINGS, wandb_config
from bclightning.training import Classifier, WeightStatistics
from bclightning.training.classifier import keeps_steps
from bclightning.training.weight_statistics import weight_layer_names
from bclightning.vocabulary import Status

# Tells the processes that Lightning starts for further devices which folder the first one made.
FOLDER_VARIABLE = "BCL_RUN_FOLDER"

# Options that say what a run is called and where it lies.
_NAMES = ("--run_id", "--experiment", "--runs_dir")


def fit(
    config: "RunConfig | Mapping[str, Any] | str | Path",
    *,
    callbacks: Sequence[Callback] = (),
    data: SharedData | None = None,
    epochs: int | None = None,
    threads: int | None = None,
) -> RunRecord:
    """Train a network, test its best epoch, and record both in a folder of its own.

    It prints nothing: `bclightning.runs.progress.RunProgress` among the callbacks shows progress,
    and the logger ``bclightning`` has notices at level INFO.

    Args:
        config: What to train: a `RunConfig`, or what `RunConfig.load` takes, such as a mapping or
            the name of a recipe. One that was made by `RunConfig.from_run` resumes that run.
        callbacks: Callbacks beside those of the configuration.
        data: Loaded data that runs of one process share.
        epochs: Number of epochs to train at most, as the whole run would begin; nothing is tested.
        threads: Number of torch's threads while this runs. If ``None``, that of the run which is
            resumed, else torch's own, but one where the network is too small for more and
            ``OMP_NUM_THREADS`` is not set.

    Returns:
        The record; that of the run as it is, if it was finished already.

    Raises:
        UserError: A mistake in the configuration, the data or the machine's state.
        Interrupted: The run was stopped by a signal; its folder says how far it came.

    Example:
        >>> import tempfile
        >>> record = fit({
        ...     "data": "bclightning.data.Digits",
        ...     "model": {"network": {
        ...         "class_path": "bclightning.models.MLP",
        ...         "init_args": {"in_features": 64, "hidden": [32]},
        ...     }},
        ...     "trainer": {"max_epochs": 1},
        ...     "wandb": {"mode": "disabled"},
        ...     "runs_dir": tempfile.mkdtemp(),
        ... })
        >>> record.status, record.monitor, record.best_epoch
        ('finished', 'val/error', 0)
    """
    if not isinstance(config, RunConfig):
        config = RunConfig.load(config)
    recorded = None
    if config.run is not None:
        _refuse_changes(config)
        if (before := _record_of(config.run)) is not None:
            # Before its lock, which there cannot be where nobody may write.
            if _is_finished(before, config.run):
                return before
            recorded = recorded_threads(before)
    threads = check_threads(threads, recorded)
    return _start(config, callbacks, data, epochs, SEEDING, threads)


def fit_as_recorded(
    config: RunConfig, record: RunRecord, *, callbacks: Sequence[Callback] = (), epochs: int
) -> RunRecord:
    """Train the first epochs of a new run as a recorded one was trained.

    Args:
        config: Configuration of the new run.
        record: The record, which says how random numbers were derived from the seed, and on how
            many threads a CPU made its sums.
        callbacks: Callbacks beside those of the configuration.
        epochs: Number of epochs; nothing is tested.
    """
    return _start(config, callbacks, None, epochs, record.seeding, recorded_threads(record))


def _start(
    config: RunConfig,
    callbacks: Sequence[Callback],
    data: SharedData | None,
    epochs: int | None,
    seeding: int,
    threads: int | None,
) -> RunRecord:
    if config["trainer.max_epochs"] is None:
        raise UserError(NO_EPOCHS)
    if config["trainer.max_epochs"] < 1:
        raise UserError("give the number of epochs: --trainer.max_epochs must be at least 1")
    for option, without in (("enable_checkpointing", False), ("barebones", True)):
        if config[f"trainer.{option}"] is without:
            raise UserError(
                f"--trainer.{option} {str(without).lower()} cannot be: a run keeps checkpoints, "
                "which it is resumed from and judged by; leave the option out"
            )
    keep_freed_memory()
    # Locks are taken before there is a trainer.
    first_if_alone(config["trainer.devices"], config["trainer.num_nodes"], os.environ)
    with interruptible(), preserving_threads(), contextlib.ExitStack() as held:
        before = None
        if config.run is not None:
            # What is read of the run is read while nobody else can change it.
            held.enter_context(_only_in_first_process(config.run.lock))
            if (before := _record_of(config.run)) is not None:
                if _is_finished(before, config.run):
                    return before
                seeding = before.seeding
        config.check_readable()
        if threads is not None:
            torch.set_num_threads(threads)
        built = config.build()
        chosen = False
        if threads is None and may_choose(config["trainer.accelerator"]):
            chosen = _choose_threads(built)
        if isinstance(built.data, ImageDataModule):
            built.data.use_seeds(config["seed_everything"], seeding)
            # Before there is a folder: a run that has no data has nothing to remember.
            (data or SharedData()).provide(built.data, config.plain()["data"])
        _set_names(config, built, before)
        run = _Run(config, built, callbacks, epochs, seeding, before)
        if config["warm_start"] and not run.resumes:
            # Later on its file is not needed, and may be gone.
            run.record.warm_start = load_first_weights(built.model, config["warm_start"])
        if config.run is None:
            # Not before everything that can be checked is checked.
            if isinstance(built.model, Classifier):
                device = run.trainer.strategy.root_device
                if isinstance(built.data, ImageDataModule):
                    check_forward_pass(built.model.network, built.data, device)
                elif keeps_steps(built.model, "training_step"):
                    check_first_batch(built.model.network, built.data, device)
            held.enter_context(_only_in_first_process(run.folder.claim))
        if is_first_process():
            run.say_what_it_is(chosen)
        return run.go()


def _only_in_first_process(
    lock: Callable[[], AbstractContextManager[None]],
) -> AbstractContextManager[None]:
    """A lock that the first of the processes that train together holds for all of them."""
    return lock() if is_first_process() else contextlib.nullcontext()


def _record_of(folder: RunFolder) -> RunRecord | None:
    return RunRecord.read(folder.record) if folder.record.exists() else None


def _is_finished(record: RunRecord, folder: RunFolder) -> bool:
    """Whether a run is finished, which is said."""
    if record.status != "finished":
        return False
    logger.info("the run %s is finished, and stays as it is", folder.path)
    logger.info("to train its weights further, for as many epochs as you say, in a new run:")
    logger.info("bcl fit --warm_start %s --trainer.max_epochs N", folder.shell_name)
    return True


def _choose_threads(built: BuiltRun) -> bool:
    """Compute on one thread where more make steps this small no faster; whether that is so."""
    if not suits_one_thread(built.model, built.data):
        return False
    torch.set_num_threads(1)
    return True


def regularizer_of(model: nn.Module) -> str:
    """What regularizes a network: its binarization, else dropout where it has any.

    Example:
        >>> from bclightning.models import MLP
        >>> regularizer_of(MLP(regularizer="dropout"))
        'dropout'
        >>> regularizer_of(MLP(regularizer="none", input_dropout=0.2))
        'none'
    """
    layers = list(binary_layers(model).values())
    if layers:
        return layers[0].binarization
    network = model.network if isinstance(model, Classifier) else model
    match getattr(network, "regularizer", None):
        case "none" | "dropout" as regularizer:
            # With any regularizer a network may drop pixels too.
            return str(regularizer)
    dropped = [m for m in network.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    return "dropout" if dropped else "none"


class _Run:
    """One run: trains, tests, records, and reports to W&B."""

    def __init__(
        self,
        config: RunConfig,
        built: BuiltRun,
        callbacks: Sequence[Callback],
        epochs: int | None,
        seeding: int,
        before: RunRecord | None,
    ) -> None:
        self.config = config
        self.built = built
        self.callbacks = callbacks
        self.epochs = epochs
        self.folder = _folder_of(config)
        self.checkpoint = RunCheckpoint(
            self.folder.checkpoints,
            MetricsTable(self.folder.metrics),
            config["monitor"],
            config["monitor_mode"],
        )
        self.tracker: TrackingLogger | None = None
        # Decided before the run has a folder, since what W&B is told may be refused.
        tracks = config["trainer.logger"] is not False
        self.tracked = decide_mode(built.wandb, os.environ) if tracks else None
        ours = [
            ResumeAfterEpoch(),
            SeedEachEpoch(RunSeeds(config["seed_everything"], seeding)),
            WeightStatistics(),
            self.checkpoint,
            *callbacks,
            *([] if epochs is None else [FirstEpochs(epochs)]),
        ]
        self.trainer = config.build_trainer(ours, [WholeFileCheckpointIO()])
        make_late_layers(built.model, built.data, self.trainer)
        self.record = _describe(config, built, self.trainer, seeding)
        if before is not None:
            self.record.resume_from(before)

    @property
    def resumes(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.config.run is not None and self.checkpoint.last_path.exists()

    def say_what_it_is(self, threads_chosen: bool) -> None:
        """Say on what it computes, on what data, and what network."""
        model = self.built.model
        network = type(model.network if isinstance(model, Classifier) else model).__name__
        logger.info(opening_lines(self.record, network, self.trainer.world_size, threads_chosen))

    def go(self) -> RunRecord:
        """Train, test, record and report, in a folder that no other process trains in."""
        try:
            self._begin()
            exit_code = 1
            try:
                self._track()
                self._provide_logger()
                self._train()
                # A stop that did not come through must not become a test, or a result.
                stop_if_asked()
                if self.epochs is None:
                    self._test()
                stop_if_asked()
                exit_code = 0
            finally:
                if self.tracker is not None:
                    self.tracker.finish(exit_code, next(reversed(self.checkpoint.table.rows), None))
            pruned = any(getattr(callback, "pruned", False) for callback in self.callbacks)
            self._end("pruned" if pruned else "finished", "")
        except BaseException as error:
            interruption = interruption_of(error)
            # On a full disk the older record stays, and the error that led here is the one to tell.
            with contextlib.suppress(UserError):
                if interruption is None:
                    self._end("failed", f"{type(error).__name__}: {error}")
                else:
                    self._end("interrupted", interruption.signal_name)
            if interruption is None:
                raise
            if self.epochs is None and self.folder.config.exists():
                # A run of its first epochs alone leaves no folder to resume.
                interruption.folder = self.folder.path
                interruption.epochs = len(self.checkpoint.table.rows)
            raise interruption from None
        finally:
            # No process that is started later belongs to this run.
            os.environ.pop(FOLDER_VARIABLE, None)
        return self.record

    def _begin(self) -> None:
        """Write, in the first of the processes that train together, what the run is read from."""
        if not is_first_process():
            return
        self.folder.remove_temporary_files()
        if self.config.run is None:
            self.config.write(self.folder.config)
            os.environ[FOLDER_VARIABLE] = str(self.folder.path)
        # Before any epoch: one record that cannot be read again stops every later comparison.
        RunRecord.parse(asdict(self.record), str(self.folder.record))
        self.record.write(self.folder.record)

    def _track(self) -> None:
        if self.tracked is None or not is_first_process():
            return
        mode, reason = self.tracked
        logger.info(reason)
        record = self.record
        identity = "-".join(filter(None, [record.run_id, self.built.purpose.sweep_id]))
        record.wandb = {"mode": mode, "id": identity}
        self.tracker = start_tracking(
            self.built.wandb,
            mode,
            run_id=identity,
            name=record.run_id,
            folder=self.folder.path.parent,
            group=record.experiment,
            job_type=record.stage,
            tags=[
                f"regularizer:{record.regularizer}",
                f"data:{record.data}",
                f"seed:{record.seed}",
                f"arm:{record.arm_name}",
            ],
            config=_told(record, self.config.plain()),
            layers=weight_layer_names(self.built.model),
        )
        if self.tracker is not None:
            self.trainer.loggers = [*self.trainer.loggers, self.tracker]

    def _provide_logger(self) -> None:
        """Give callbacks that do not work without a logger one that logs nothing."""
        needing = (LearningRateMonitor, DeviceStatsMonitor)
        if not self.trainer.loggers and any(isinstance(c, needing) for c in self.trainer.callbacks):  # type: ignore[attr-defined]
            # What they find is among the metrics all the same.
            self.trainer.loggers = [DummyLogger()]

    def _train(self) -> None:
        last = self.checkpoint.last_path
        if not last.exists():
            # A run that was killed before the end of its first epoch begins again from its seed:
            # metrics that it left belong to no checkpoint.
            self.folder.metrics.unlink(missing_ok=True)
            self.checkpoint.table.rows.clear()
            self._fit(None)
            return
        require_resumable(last, self.checkpoint.best_path)
        try:
            self._fit(last)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            if self.checkpoint.started or interruption_of(error):
                raise
            what = " ".join(f"{type(error).__name__}: {error}".split())
            raise UserError(
                f"the run cannot be resumed from {last}, which does not fit it: {what:.300}"
            ) from error

    def _fit(self, checkpoint: Path | None) -> None:
        with lightning_errors():
            self.trainer.fit(
                self.built.model,
                datamodule=self.built.data,
                ckpt_path=checkpoint,
                weights_only=True,
            )

    def _test(self) -> None:
        """Test the best epoch; only now, and never while a setting is searched for."""
        if not is_first_process() or not self.checkpoint.last_path.exists():
            return
        if not self.checkpoint.best_path.exists():
            logger.info(
                "no validation, so no epoch is the best and none is tested; "
                "the weights of the last one are in %s",
                self.checkpoint.last_path,
            )
            return
        model, data = self.built.model, self.built.data
        # With several processes the callback's memory is another process's; the file is not.
        saved = load_checkpoint(self.checkpoint.last_path)["callbacks"][self.checkpoint.state_key]
        if saved["best_epoch"] is None:
            # No epoch was validated.
            return
        self.record.best_epoch = saved["best_epoch"]
        self.record.best_score = saved["best"]
        self.record.train_seconds = round(saved["seconds"], 1)
        load_weights(model, self.checkpoint.best_path)
        save_first_layer(self.folder, model, data)
        if self.built.purpose.stage != "tune":
            if has_loader(data, "test_dataloader"):
                logger.info("testing the best epoch ...")
                results = evaluate(
                    model,
                    data,
                    self.trainer,
                    "test",
                    self.record.test_metric,
                    self.config.build_evaluation_trainer,
                )
                self.record.test = [result.entry() for result in results]
            else:
                logger.info("no test: %s has no test_dataloader", type(data).__name__)
        if self.tracker is not None:
            self.tracker.log_summary(_summary(self.record))
            if self.record.test:
                show_test(self.tracker, self._network(), log_model=self.built.wandb.log_model)

    def _network(self) -> TrainedNetwork:
        """The network as it was tested."""
        return TrainedNetwork(
            self.built.model,
            self.built.data,
            self.trainer,
            str(self.folder.path),
            self.folder,
            self.record,
            self.record.monitor,
            self.record.test_metric,
            self.config.build_evaluation_trainer,
        )

    def _end(self, status: Status, reason: str) -> None:
        self.record.status = status
        self.record.reason = reason
        self.record.finished = now()
        if is_first_process():
            self.record.write(self.folder.record)


def _describe(config: RunConfig, built: BuiltRun, trainer: Trainer, seeding: int) -> RunRecord:
    """The record of a run that is about to begin."""
    model, data, purpose = built.model, built.data, built.purpose
    size = model_size(model)
    weights, statistics = default_evaluation(model)
    images = data if isinstance(data, ImageDataModule) else None
    return RunRecord(
        run_id=config["run_id"],
        experiment=config["experiment"],
        regularizer=regularizer_of(model),
        data=data_name(data),
        seed=config["seed_everything"],
        epochs=trainer.max_epochs or 0,
        arm=purpose.arm or "",
        stage=purpose.stage,
        trial=purpose.trial,
        hyperparameters=hyperparameters_of(config.plain()),
        monitor=config["monitor"],
        monitor_mode=config["monitor_mode"],
        test_metric=reported_metric(config, model),
        evaluation={"weights": weights, "batch_norm": statistics},
        split_sizes={} if images is None else images.split_sizes(),
        checksums={} if images is None else images.checksums(),
        binary_weights=size.binary_weights,
        real_weights=size.real_weights,
        float_bytes=size.float_bytes,
        packed_bytes=size.packed_bytes,
        versions=versions(),
        git=git_state(),
        machine=machine(trainer.strategy.root_device),
        started=now(),
        seeding=seeding,
    )


def _told(record: RunRecord, config: dict[str, Any]) -> dict[str, Any]:
    """What W&B is told when a run begins."""
    facts = {
        "regularizer": record.regularizer,
        "arm": record.arm_name,
        "data_set": record.data,
        "seed": record.seed,
    }
    details = {
        "evaluation": record.evaluation,
        "split_sizes": record.split_sizes,
        "test_metric": record.test_metric,
        "binary_weights": record.binary_weights,
        "real_weights": record.real_weights,
        SETTINGS: config,
    }
    return wandb_config(facts, record.hyperparameters, details)


def _summary(record: RunRecord) -> dict[str, Any]:
    """What stands for a run in W&B's tables."""
    test_metric = wandb_name(record.test_metric)
    summary: dict[str, Any] = {
        BEST_EPOCH: None if record.best_epoch is None else record.best_epoch + 1,
        "best_score": record.best_score,
        f"best/{wandb_name(record.monitor)}": record.best_score,
        "test_value": record.test_value,
        test_metric: record.test_value,
        "train_seconds": record.train_seconds,
        "packed_bytes": record.packed_bytes,
        "float_bytes": record.float_bytes,
    }
    for entry in record.test:
        statistics = entry["batch_norm"].replace(" ", "_")
        summary[f"{test_metric}/{entry['weights']}/{statistics}"] = entry["value"]
    return summary


def is_first_process() -> bool:
    """Whether this process is the one that writes, of those that train together."""
    return int(getattr(rank_zero_only, "rank", 0) or 0) == 0


def now() -> str:
    """The time in ISO 8601, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _set_names(config: RunConfig, built: BuiltRun, before: RunRecord | None) -> None:
    """Decide what a run is called, which is not where its folder lies: folders are moved.

    Raises:
        UserError: A name could not be that of a folder, so that the record could not be read again.
    """
    # Not the bare name of the data set, which its sweep may have.
    default = f"{data_name(built.data)}-fit"
    experiment = config["experiment"] or (before and before.experiment) or default
    run_id = config["run_id"] or (before and before.run_id)
    if not run_id and config.run is not None:
        run_id = config.run.path.resolve().name
    if run_id == WANDB_FOLDER:
        raise UserError(
            f"--run_id {WANDB_FOLDER} is where an experiment keeps W&B's files; give another name"
        )
    config.set_name(
        checked_name(experiment, "--experiment"),
        checked_name(run_id or _new_name(config, built), "--run_id"),
    )


def _new_name(config: RunConfig, built: BuiltRun) -> str:
    # Runs that a script starts in the same second are told apart by two random bytes.
    stamp = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    # Layers that are made later are not there yet.
    regularizer = built.binarization or regularizer_of(built.model)
    return f"{data_name(built.data)}-{regularizer}-s{config['seed_everything']}-{stamp}"


def _folder_of(config: RunConfig) -> RunFolder:
    inherited = os.environ.get(FOLDER_VARIABLE)
    if config.run is None and not is_first_process() and inherited:
        return RunFolder(Path(inherited))
    return config.folder


def _refuse_changes(config: RunConfig) -> None:
    if config.run is None or not config.changed:
        return
    first, *_ = [option for option in config.changed if option not in _NAMES] or config.changed
    if first in _NAMES:
        raise UserError(
            f"{first} cannot change when a run is resumed, since it keeps its name and its folder; "
            "leave it out"
        )
    reason = "since it would be another run"
    if first == "--trainer.max_epochs":
        reason = "since schedules, such as the learning rate's, depend on it"
    settings = config.plain()
    options = " ".join(f"{option} {_value_of(settings, option)}" for option in config.changed)
    raise UserError(
        f"{first} cannot change when a run is resumed, {reason}; to train its weights further in a "
        f"new run: bcl fit --warm_start {config.run.shell_name} {options}"
    )


def _value_of(settings: Mapping[str, Any], option: str) -> str:
    """An option's value as a shell reads it."""
    value: Any = settings
    for name in option.removeprefix("--").split("."):
        if name not in value and "init_args" in value:
            value = value["init_args"]
        value = value[name]
    return shlex.quote(value if isinstance(value, str) else json.dumps(value))
