"""A worker: a process that runs one training after another, with torch and the data loaded once."""

import gc
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.process import parent_process
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from bclightning.errors import MachineError, UserError
from bclightning.runs.allowed_code import code_named_in
from bclightning.runs.checkpoint import as_recorded
from bclightning.runs.config import RunConfig, load_limited
from bclightning.runs.data import SharedData
from bclightning.runs.folder import RunExistsError, RunFolder, RunInUseError
from bclightning.runs.interrupt import Interrupted, interruption_of
from bclightning.runs.notices import logger
from bclightning.runs.progress import RunProgress
from bclightning.runs.recipes import read_config
from bclightning.runs.record import RunRecord
from bclightning.runs.run import fit
from bclightning.storage import full_disk
from bclightning.sweep.inputs import check_unchanged
from bclightning.sweep.messages import (
    Busy,
    Done,
    Epoch,
    Failed,
    Ready,
    RunRequest,
    Stopped,
    WorkerSettings,
)


class EpochReports(Callback):
    """Report the monitored metric of each epoch to the coordinator, and stop if it prunes the run.

    Args:
        connection: Connection to the coordinator.
        monitor: Name of the monitored metric.
        wait: Whether to wait for the coordinator's decision.

    Attributes:
        pruned: Whether the coordinator pruned the run; the run's record then says so too.
    """

    def __init__(self, connection: Connection, monitor: str, wait: bool) -> None:
        self._connection = connection
        self._monitor = monitor
        self._wait = wait
        self.pruned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and wait if asked to."""
        if trainer.sanity_checking or self._monitor not in trainer.callback_metrics:
            return
        value = as_recorded(trainer.callback_metrics[self._monitor])
        try:
            self._connection.send(Epoch(trainer.current_epoch + 1, value))
            keep_training = self._connection.recv() if self._wait else True
        except (OSError, EOFError):
            # The coordinator has died, and this process is about to be ended.
            raise Interrupted(signal.SIGTERM) from None
        if keep_training is False:
            self.pruned = True
            trainer.should_stop = True


def gpu_of(worker: int, visible: str | None, count: int) -> str | None:
    """The GPU of a worker if there are several, as ``CUDA_VISIBLE_DEVICES`` names it.

    Args:
        worker: Number of the worker, from 0.
        visible: Value that the variable has already; ``None`` if it is not set.
        count: Number of GPUs.

    Example:
        >>> [gpu_of(worker, None, 2) for worker in range(3)], gpu_of(1, "4,6", 2)
        (['0', '1', '0'], '6')
    """
    if count < 2:
        return None
    devices = visible.split(",") if visible else [str(device) for device in range(count)]
    return devices[worker % len(devices)]


def work(connection: Connection, settings: WorkerSettings) -> None:
    """Run what the coordinator asks for, until it says that nothing is left or dies.

    Args:
        connection: Connection to the coordinator, which sends requests, and ``None`` at the end.
        settings: The worker's own settings.
    """
    # Ctrl-C on the terminal goes to the coordinator, which stops its workers in order.
    if hasattr(os, "setsid"):
        os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    _print_to(settings.log)
    os.environ.clear()
    os.environ.update(settings.environment)
    # A process that has used W&B and starts a sweep would share its service, which ends with it.
    os.environ.pop("WANDB_SERVICE", None)
    torch.set_num_threads(settings.threads)
    # So that no run chooses another number.
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)
    # A run trains on one device, which would be the first one for all workers.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu = gpu_of(settings.number, visible, torch.cuda.device_count())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.setLevel(logging.INFO)
    data = SharedData()
    connection.send(Ready())
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        if request is None:
            return
        answer = _answer(request, connection, data)
        try:
            connection.send(answer)
        except OSError:
            return
        # A run's trainer, callbacks and model refer to each other.
        del answer
        gc.collect()


def _die_with_the_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        # At once, since another coordinator may give this run to another worker.
        os._exit(1)


def _print_to(log: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _answer(
    request: RunRequest, connection: Connection, data: SharedData
) -> Done | Failed | Stopped | Busy:
    try:
        return Done(asdict(_run(request, connection, data)))
    except Interrupted:
        return Stopped()
    except (RunInUseError, RunExistsError) as error:
        # It was not there a moment ago: this machine slept, and another one has the run now.
        return Busy(str(error))
    except MachineError as error:
        return Stopped(str(error))
    except Exception as error:  # a run that fails, for whatever reason, does not stop the others
        if interruption_of(error) is not None:
            return Stopped()
        if isinstance(error, UserError):
            return Failed(str(error))
        if isinstance(error, OSError) and (full := full_disk(error, Path(request.folder))):
            return Stopped(str(full))
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")


def _run(request: RunRequest, connection: Connection, data: SharedData) -> RunRecord:
    folder = RunFolder(Path(request.folder))
    resumes = folder.config.exists()
    if resumes:
        _check_sweep_id(folder, request.sweep_id)
        if folder.record.exists():
            record = RunRecord.read(folder.record)
            if record.status in ("finished", "pruned"):
                # Its worker died after the run ended, and before it could say so.
                return record
    else:
        check_unchanged(request.files)
    reports = EpochReports(connection, request.monitor, request.wait)
    record = _train(request, resumes, reports, data)
    if record.best_score is None:
        raise UserError(f"the run has no value of {request.monitor} to be judged by")
    return record


def _train(request: RunRequest, resumes: bool, reports: Callback, data: SharedData) -> RunRecord:
    if resumes:
        # What the sweep's own recipe names is code, on every machine that works on the sweep.
        named: Sequence[str] = code_named_in([request.recipe, request.options])
        if request.allowed is not None:
            named = request.allowed.packages
        config = RunConfig.from_run(request.folder, allow_code=named)
    else:
        config = load_limited([request.recipe, request.options], request.allowed)
    # What a run says goes into the worker's log.
    return fit(config, callbacks=[reports, RunProgress()], data=data)


def _check_sweep_id(folder: RunFolder, sweep_id: str) -> None:
    purpose = read_config(folder.config).get("purpose") or {}
    if purpose.get("sweep_id") != sweep_id:
        raise MachineError(
            f"{folder.path} belongs to another sweep of that name; move {folder.path.parent} away, "
            "or give this sweep another name"
        )
