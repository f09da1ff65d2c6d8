"""`bcl fit`: one run, from its configuration to its record."""

import contextlib
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch import Callback, LightningDataModule, Trainer
from rich.console import Console
from torch import nn

from bclightning.cli.tables import print_report
from bclightning.costs import model_size
from bclightning.data import ImageDataModule
from bclightning.errors import UserError
from bclightning.evaluation import default_evaluation
from bclightning.nn import binary_layers
from bclightning.runs.allocator import keep_freed_memory
from bclightning.runs.callbacks import FirstEpochs, SeedEachEpoch
from bclightning.runs.checkpoint import RunCheckpoint, WholeFileCheckpointIO, load_checkpoint
from bclightning.runs.config import RunCLI, take_option
from bclightning.runs.evaluate import evaluate_methods
from bclightning.runs.first_layer import write_portrait
from bclightning.runs.folder import RunFolder, checked_name
from bclightning.runs.hyperparameters import overrides, settings_of
from bclightning.runs.interrupt import Interrupted, interruptible
from bclightning.runs.job import SETTINGS, Job, LoadedData
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.notices import quiet_lightning
from bclightning.runs.preflight import rehearse
from bclightning.runs.progress import RunProgress
from bclightning.runs.provenance import git_state, machine, versions
from bclightning.runs.rebuild import has_loader, load_weights
from bclightning.runs.record import RunRecord
from bclightning.runs.tracking import TrackingLogger, how_to_look, start_tracking
from bclightning.runs.wandb_mode import decide_mode
from bclightning.training import Classifier, WeightStatistics

# Tells the processes that Lightning starts for further devices which folder the first one made.
FOLDER_VARIABLE = "BCL_RUN_FOLDER"

SHOWN = {"--resume": "Go on with a stopped run: its folder, or its id below results/runs."}

DESCRIPTION = (
    "Train a network. The settings come from --config (a recipe by bare name, or a YAML file) and "
    "from options as Lightning users know them: --trainer.max_epochs 3 --data.batch_size 50 "
    "--model.network.regularizer none|dropout|deterministic|stochastic."
)


def fit(
    arguments: Sequence[str],
    callbacks: Sequence[Callback] = (),
    loaded: LoadedData | None = None,
    epochs: int | None = None,
) -> RunRecord:
    """Train a network by the command line of `bcl fit`, test its best epoch, and report.

    Args:
        arguments: The command line after ``fit``.
        callbacks: More callbacks than the configuration names.
        loaded: Data that runs of one process share.
        epochs: Train so many and no more, as the run would begin that the command line describes,
            and test nothing.

    Returns:
        The finished run's record; as it is, of a run that was finished already.

    Raises:
        UserError: A mistake in the configuration, the data or the machine's state.
        Interrupted: The run was stopped; its folder says how far it came.
    """
    resumed, rest = take_option(arguments, "--resume")
    if resumed is not None:
        folder = RunFolder.find(resumed)
        _refuse_overrides(rest)
        if (finished := _finished(folder)) is not None:
            return finished
        rest = ["--config", str(folder.config), *rest]
    quiet_lightning()
    keep_freed_memory()
    cli = RunCLI(rest, "bcl fit", DESCRIPTION, settings=SETTINGS, shown=SHOWN)
    if (cli.config.trainer.max_epochs or 0) < 1:
        raise UserError("--trainer.max_epochs must be at least 1")
    with interruptible():
        model, datamodule = cli.build_modules()
        if isinstance(datamodule, ImageDataModule):
            # Before there is a folder: a run that has no data has nothing to remember.
            (loaded or LoadedData()).provide(datamodule, cli.plain_config()["data"])
        if resumed is None:
            folder = _new_folder(cli, model, datamodule)
        run = _Run(cli, model, datamodule, folder, callbacks, epochs)
        if cli.config.warm_start and not run.checkpoint.last_path.exists():
            # Later on its file is not needed, and may be gone.
            load_weights(model, cli.config.warm_start)
        if resumed is None:
            # Not before everything that can be checked is checked.
            if isinstance(datamodule, ImageDataModule):
                rehearse(model.network, datamodule, run.trainer.strategy.root_device)
            run.create()
        return run.go()


def method_of(network: nn.Module) -> str:
    """The arm of the comparison that a network belongs to.

    Example:
        >>> from bclightning.models import MLP
        >>> method_of(MLP(regularizer="dropout"))
        'dropout'
        >>> method_of(MLP(regularizer="none", input_dropout=0.2))
        'none'
    """
    layers = list(binary_layers(network).values())
    if layers:
        return layers[0].binarization
    match getattr(network, "regularizer", None):
        case "none" | "dropout" as regularizer:
            # It may drop pixels besides, with any regularizer.
            return str(regularizer)
    dropped = [m for m in network.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    return "dropout" if dropped else "none"


class _Run:
    """One run: trains, judges, records, reports."""

    def __init__(
        self,
        cli: RunCLI,
        model: Classifier,
        datamodule: LightningDataModule,
        folder: RunFolder,
        callbacks: Sequence[Callback],
        epochs: int | None,
    ) -> None:
        self.cli = cli
        self.model = model
        self.datamodule = datamodule
        self.folder = folder
        self.console = Console()
        self.checkpoint = RunCheckpoint(folder.checkpoints, MetricsTable(folder.metrics))
        self.logger: TrackingLogger | None = None
        # Decided before the run has a folder, since what W&B is told may be refused.
        tracks = cli.config.trainer.logger is not False
        self.tracked = decide_mode(cli.config_init.wandb, os.environ) if tracks else None
        self.job: Job = cli.config_init.job
        self.callbacks = callbacks
        self.epochs = epochs
        self.trainer = self._trainer()
        self.record = self._record()
        if folder.record.exists():
            self.record.resume_from(RunRecord.read(folder.record))

    def create(self) -> None:
        """Make the run's folder, in the first of the processes that train together."""
        if is_first_process():
            self.folder.create()
            self.cli.write_config(self.folder.config)
            os.environ[FOLDER_VARIABLE] = str(self.folder.path)

    def go(self) -> RunRecord:
        """Train, judge, record and report."""
        with self.folder.occupied() if is_first_process() else contextlib.nullcontext():
            return self._go()

    def _go(self) -> RunRecord:
        if is_first_process():
            self.folder.sweep_up()
            self.record.write(self.folder.record)
        exit_code = 1
        try:
            self._track()
            self._train()
            if self.epochs is None:
                self._judge()
            exit_code = 0
        except Interrupted as interruption:
            self._end("interrupted", interruption.signal_name)
            if self.epochs is None:
                # Who asked for some epochs keeps no folder to go on with.
                self._say_how_to_go_on()
            raise
        except BaseException as error:
            self._end("failed", f"{type(error).__name__}: {error}")
            raise
        finally:
            if self.logger is not None:
                self.logger.finish(exit_code)
        pruned = any(getattr(callback, "pruned", False) for callback in self.callbacks)
        self._end("pruned" if pruned else "finished", "")
        if is_first_process() and self.epochs is None:
            print_report(self.console, self.record, self.folder, self._where_to_look())
        return self.record

    def _track(self) -> None:
        if self.tracked is None or not is_first_process():
            return
        settings = self.cli.config_init.wandb
        mode, reason = self.tracked
        self.console.print(reason, highlight=False, soft_wrap=True)
        identity = "-".join(filter(None, [self.record.run_id, self.job.token]))
        self.record.wandb = {"mode": mode, "id": identity}
        self.logger = start_tracking(
            settings,
            mode,
            run_id=identity,
            name=self.record.run_id,
            folder=self.folder.path,
            group=self.record.experiment,
            job_type=self.record.stage,
            tags=[
                f"method:{self.record.regularizer}",
                f"data:{self.record.data}",
                f"seed:{self.record.seed}",
                f"arm:{self.record.arm_name}",
            ],
            config={
                "method": self.record.regularizer,
                "arm": self.record.arm_name,
                "data_set": self.record.data,
                "seed": self.record.seed,
                "split_sizes": self.record.split_sizes,
                "chosen": self.record.evaluation,
                "binary_weights": self.record.binary_weights,
                "real_weights": self.record.real_weights,
                **self.cli.plain_config(),
            },
        )
        if self.logger is not None:
            self.trainer.loggers = [*self.trainer.loggers, self.logger]

    def _trainer(self) -> Trainer:
        ours: list[Callback] = [
            SeedEachEpoch(self.cli.config.seed_everything),
            WeightStatistics(),
            self.checkpoint,
            *self.callbacks,
        ]
        if self.cli.config.trainer.enable_progress_bar is not False:
            ours.append(RunProgress(self.checkpoint, epochs=self.epochs))
        if self.epochs is not None:
            ours.append(FirstEpochs(self.epochs))
        return self.cli.build_trainer(ours, [WholeFileCheckpointIO()])

    def _train(self) -> None:
        last = self.checkpoint.last_path
        if not last.exists():
            # Killed before the end of its first epoch, a run has no more to go on from than its
            # seed: what there is of metrics is of no checkpoint.
            self.folder.metrics.unlink(missing_ok=True)
            self.checkpoint.table.rows.clear()
        self.trainer.fit(
            self.model,
            datamodule=self.datamodule,
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )

    def _judge(self) -> None:
        """Test the epoch with the best validation error; only now is the test set touched.

        While a setting is searched for, it is not touched at all.
        """
        if not is_first_process() or not self.checkpoint.best_path.exists():
            return
        # With several processes the callback's memory is another process's; the file is not.
        saved = load_checkpoint(self.checkpoint.last_path)["callbacks"]["RunCheckpoint"]
        self.record.best_epoch = saved["best_epoch"]
        self.record.best_score = saved["best"]
        self.record.train_seconds = round(saved["seconds"], 1)
        load_weights(self.model, self.checkpoint.best_path)
        write_portrait(self.folder, self.model, self.datamodule)
        if self.job.stage == "tune":
            self._summarize()
            return
        if not has_loader(self.datamodule, "test_dataloader"):
            self.console.print(
                f"no test: {type(self.datamodule).__name__} has no test_dataloader",
                highlight=False,
                soft_wrap=True,
            )
            self._summarize()
            return
        self.console.print("testing the best epoch ...", highlight=False)
        errors = evaluate_methods(self.model, self.datamodule, self.trainer, "test")
        self.record.test = [error.entry() for error in errors]
        self._summarize()

    def _summarize(self) -> None:
        if self.logger is None:
            return
        summary: dict[str, Any] = {
            "best_epoch": self.record.best_epoch,
            "best/val/error": self.record.best_score,
            "test/error": self.record.test_value,
            "train_seconds": self.record.train_seconds,
            "packed_bytes": self.record.packed_bytes,
            "float_bytes": self.record.float_bytes,
        }
        for entry in self.record.test:
            statistics = entry["batch_norm"].replace(" ", "_")
            summary[f"test/error/{entry['weights']}/{statistics}"] = entry["value"]
        self.logger.log_summary(summary)

    def _record(self) -> RunRecord:
        size = model_size(self.model)
        weights, statistics = default_evaluation(self.model)
        data = self.datamodule
        return RunRecord(
            run_id=self.folder.run_id,
            experiment=self.folder.path.resolve().parent.name,
            regularizer=method_of(self.model.network),
            data=data_name(data),
            seed=self.cli.config.seed_everything,
            epochs=self.trainer.max_epochs or 0,
            arm=self.job.arm or "",
            stage=self.job.stage,
            trial=self.job.trial,
            hyperparameters=settings_of(self.cli.plain_config()),
            evaluation={"weights": weights, "batch_norm": statistics},
            split_sizes=data.split_sizes() if isinstance(data, ImageDataModule) else {},
            checksums=data.checksums() if isinstance(data, ImageDataModule) else {},
            binary_weights=size.binary_weights,
            real_weights=size.real_weights,
            float_bytes=size.float_bytes,
            packed_bytes=size.packed_bytes,
            versions=versions(),
            git=git_state(),
            machine=machine(self.trainer.strategy.root_device),
            started=now(),
        )

    def _end(self, status: Any, reason: str) -> None:
        self.record.status = status
        self.record.reason = reason
        self.record.finished = now()
        if is_first_process():
            # On a full disk the older record stays, and the error that led here is the one to tell.
            with contextlib.suppress(UserError):
                self.record.write(self.folder.record)

    def _say_how_to_go_on(self) -> None:
        done = "no epoch is finished yet"
        if self.checkpoint.table.rows:
            done = f"{len(self.checkpoint.table.rows)} epochs are kept"
        Console(stderr=True).print(
            f"stopped; {done}; go on with: bcl fit --resume {self.folder.path}",
            highlight=False,
            soft_wrap=True,
        )

    def _where_to_look(self) -> list[str]:
        mode = self.record.wandb.get("mode")
        return how_to_look(self.folder.path, mode) if mode and self.logger is not None else []


def data_name(datamodule: LightningDataModule) -> str:
    """The data set's name: the data module's own, or its class's."""
    return str(getattr(datamodule, "name", None) or type(datamodule).__name__.lower())


def is_first_process() -> bool:
    """Whether this process is the one that writes and prints, of those that train together."""
    return (_get_rank() or 0) == 0


def now() -> str:
    """The time in ISO 8601, in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _new_folder(cli: RunCLI, model: Classifier, datamodule: LightningDataModule) -> RunFolder:
    inherited = os.environ.get(FOLDER_VARIABLE)
    if not is_first_process() and inherited:
        return RunFolder(Path(inherited))
    config = cli.config
    name = data_name(datamodule)
    config.experiment = checked_name(config.experiment or name, "--experiment")
    if config.run_id is None:
        # Runs that a script starts in the same second are told apart by two random bytes.
        stamp = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        config.run_id = f"{name}-{method_of(model.network)}-s{config.seed_everything}-{stamp}"
    run_id = checked_name(config.run_id, "--run_id")
    return RunFolder(Path(config.runs_dir) / config.experiment / run_id)


def _finished(folder: RunFolder) -> RunRecord | None:
    """The record of a run that is finished, which is said; it stays as it is."""
    if not folder.record.exists():
        return None
    record = RunRecord.read(folder.record)
    if record.status != "finished":
        return None
    Console().print(
        f"the run {folder.path} is finished, and stays as it is; "
        f"its errors once more: bcl test --run {folder.path}",
        highlight=False,
        soft_wrap=True,
    )
    return record


def _refuse_overrides(arguments: Sequence[str]) -> None:
    for option in overrides(arguments):
        raise UserError(
            f"{option} cannot change when a run goes on, since it would be another run; "
            "start a new one, or leave it out"
        )
