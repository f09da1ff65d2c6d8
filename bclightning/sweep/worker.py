"""A worker: one process that makes run after run, with torch imported and data loaded once."""

import gc
import os
import shutil
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.process import parent_process
from pathlib import Path

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer

from bclightning.errors import MachineError, UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.interrupt import Interrupted
from bclightning.runs.job import LoadedData
from bclightning.runs.metrics_csv import shortest
from bclightning.runs.record import RunRecord
from bclightning.runs.run import fit
from bclightning.storage import full_disk
from bclightning.sweep.messages import Done, Epoch, Failed, Ready, Stopped, Task


class EpochReports(Callback):
    """Tell the coordinator of each epoch's validation error, and stop where it says so.

    Args:
        connection: To the coordinator.
        wait: Whether to wait for its word.
        monitor: The validation error's name.

    Attributes:
        pruned: Whether the coordinator said so; the run's record then says so too.
    """

    def __init__(self, connection: Connection, wait: bool, monitor: str = "val/error") -> None:
        self._connection = connection
        self._wait = wait
        self._monitor = monitor
        self.pruned = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, and maybe wait."""
        if self._monitor not in trainer.callback_metrics:
            return
        error = shortest(trainer.callback_metrics[self._monitor].item())
        try:
            self._connection.send(Epoch(trainer.current_epoch + 1, error))
            go_on = self._connection.recv() if self._wait else True
        except (OSError, EOFError):
            # The coordinator is gone, and this process is about to be.
            raise Interrupted(signal.SIGTERM) from None
        if not go_on:
            self.pruned = True
            trainer.should_stop = True


def gpu_of(worker: int, visible: str | None, count: int) -> str | None:
    """The GPU of a worker where there are several, as ``CUDA_VISIBLE_DEVICES`` names it.

    Args:
        worker: Its number, from 0.
        visible: What that variable names already, if anything.
        count: How many GPUs there are.

    Example:
        >>> [gpu_of(worker, None, 2) for worker in range(3)], gpu_of(1, "4,6", 2)
        (['0', '1', '0'], '6')
    """
    if count < 2:
        return None
    devices = visible.split(",") if visible else [str(device) for device in range(count)]
    return devices[worker % len(devices)]


def work(connection: Connection, log: str, threads: int, number: int) -> None:
    """Make runs until told that there are none left, or until the coordinator is gone.

    Args:
        connection: To the coordinator, who sends tasks, and ``None`` at the end.
        log: The file for what runs print.
        threads: Of torch's.
        number: The worker's own.
    """
    # Ctrl-C on the terminal is the coordinator's, which tells its workers in its own time.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_the_parent, daemon=True).start()
    _print_to(log)
    torch.set_num_threads(threads)
    # Each run has one device, which would be the first of them for all.
    gpu = gpu_of(number, os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count())
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    loaded = LoadedData()
    connection.send(Ready())
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        if task is None:
            return
        answer = _answer(task, connection, loaded)
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
        # Another coordinator may give this run to another worker at once.
        os._exit(1)


def _print_to(log: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _answer(task: Task, connection: Connection, loaded: LoadedData) -> Done | Failed | Stopped:
    try:
        return Done(asdict(_run(task, connection, loaded)))
    except Interrupted:
        return Stopped()
    except MachineError as error:
        return Stopped(str(error))
    except UserError as error:
        return Failed(str(error))
    except Exception as error:  # whatever a run fails of, the others go on
        if isinstance(error, OSError) and (full := full_disk(error, Path(task.folder))):
            return Stopped(str(full))
        traceback.print_exc()
        return Failed(f"{type(error).__name__}: {error}")


def _run(task: Task, connection: Connection, loaded: LoadedData) -> RunRecord:
    folder = RunFolder(Path(task.folder))
    arguments = list(task.arguments)
    if folder.config.exists():
        _check_token(folder, task.token)
        if folder.record.exists():
            record = RunRecord.read(folder.record)
            if record.status in ("finished", "pruned"):
                # Its worker died between the run's end and telling of it.
                return record
        arguments = ["--resume", task.folder]
    else:
        # A worker died between making the folder and filling it.
        shutil.rmtree(folder.path, ignore_errors=True)
    reports = EpochReports(connection, task.wait)
    record = fit(arguments, [reports], loaded)
    if record.best_score is None:
        raise UserError("the run has no validation error to be judged by")
    return record


def _check_token(folder: RunFolder, token: str) -> None:
    config = yaml.safe_load(folder.config.read_text(encoding="utf-8"))
    if (config.get("job") or {}).get("token") != token:
        raise MachineError(
            f"{folder.path} belongs to another sweep of that name; move {folder.path.parent} away, "
            "or give this sweep another name"
        )
