"""The coordinator: assigns trials to worker processes, and replaces workers that die.

Why not `optuna.Study.optimize` in several processes, with Optuna's heartbeat? It fails the trial of
a process that was killed and repeats it as a new trial (`optuna.storages.fail_stale_trials` and
`RetryHeartbeatStaleTrialCallback`). Here a trial keeps its number and with it its parameters, the
name of its run and the folder with the checkpoint that it is resumed from, and the number of trials
is exact. A process that survives its workers is also what notices their death at once, gives up a
trial that kills every worker, and keeps an SQLite file to one process.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from bclightning.data.threads import cores
from bclightning.errors import MachineError, UserError
from bclightning.formatting import duration
from bclightning.runs.allowed_code import AllowedCode
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord
from bclightning.sweep.chosen import settings_in_words
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
from bclightning.sweep.monitor import score_text
from bclightning.sweep.studies import ClaimedTrial, Studies
from bclightning.sweep.view import View

# How often the view is refreshed and idle workers are assigned what is waiting.
TICK_SECONDS = 0.5

# After so many workers in a row that die before they are ready, no further one is started.
MAX_FALSE_STARTS = 3

# Time for workers to end their runs in order when the sweep is stopped.
GRACE_SECONDS = 20.0

WorkerMain = Callable[[Connection, WorkerSettings], None]


def start_worker_server(module: str) -> None:
    """Start a process that imports what workers need, and that workers are forked from.

    It has imported torch and started none of torch's threads, so a worker starts at once, and one
    that died is soon replaced.

    Args:
        module: Name of the module of the workers' main function.
    """
    if _start_method() == "forkserver":
        from multiprocessing import forkserver

        multiprocessing.get_context("forkserver").set_forkserver_preload([module])
        forkserver.ensure_running()


def _start_method() -> str:
    """How workers are started: on Windows each one imports everything for itself."""
    methods = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in methods else "spawn"


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep a process that is started from importing the main module again.

    `multiprocessing` imports it for functions that are defined there, and workers need none. A
    script that calls a sweep outside of ``if __name__ == "__main__":`` would start it once more.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker:
    """A worker process and the trial that it runs."""

    def __init__(self, number: int, log: Path, threads: int, main: WorkerMain) -> None:
        context: Any = multiprocessing.get_context(_start_method())
        self.connection, other_end = context.Pipe()
        self.log = log
        settings = WorkerSettings(number, threads, str(self.log), dict(os.environ))
        self.process: BaseProcess = context.Process(
            target=main, args=(other_end, settings), name=f"worker-{number}"
        )
        try:
            with _without_main_module():
                self.process.start()
        except BaseException:
            self.connection.close()
            raise
        finally:
            # Only the worker has that end now, so that the connection ends when it dies.
            other_end.close()
        self.number = number
        self.ready = False
        self.claimed: ClaimedTrial | None = None
        self.epoch = 0

    # `multiprocessing` takes a process whose server was killed for dead, and signals it no more.
    # The connection knows better: it ends when the process does.

    def terminate(self) -> None:
        """Ask the process to end its run in order."""
        self._signal(signal.SIGTERM)

    def join(self, deadline: float) -> None:
        """Wait until the process has ended, and kill it at the deadline."""
        ended = False
        try:
            while self.connection.poll(max(0.0, deadline - time.monotonic())):
                self.connection.recv()
        except (EOFError, OSError):
            ended = True
            self.process.join(max(0.0, deadline - time.monotonic()))
        if not ended or self.process.is_alive():
            self._signal(signal.SIGKILL)
            self.process.join()
        self.connection.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process.pid, number)


class Coordinator:
    """Runs a sweep on this machine, alone or beside coordinators on others.

    Args:
        studies: The sweep's studies, prepared.
        folder: Folder of the sweep's runs.
        recipe: Content of the recipe of all runs.
        view: What is told of events.
        worker: Main function of a worker process.
        options: Options of all runs that say where things are and where runs are logged, by dotted
            name.
        allowed: What recipe and definition may name; all if ``None``.
        files: Checksums of the files that the recipe and the definition name, by their paths.
    """

    def __init__(
        self,
        studies: Studies,
        folder: Path,
        recipe: Mapping[str, Any],
        view: View,
        worker: WorkerMain,
        options: Mapping[str, Any] | None = None,
        allowed: AllowedCode | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        self._files = dict(files or {})
        self._studies = studies
        self._folder = folder
        self._recipe = dict(recipe)
        self._view = view
        self._main = worker
        self._options = dict(options or {})
        self._allowed = allowed
        self._jobs = self._threads = 1
        self._workers: list[_Worker] = []
        self._false_starts = 0
        self._last_beat = self._last_look = 0.0
        self._prunes = studies.definition.pruner.name != "none"

    def run(self, jobs: int = 1, threads: int | None = None) -> None:
        """Work until all trials and final runs have ended, here and elsewhere.

        Args:
            jobs: Number of worker processes.
            threads: Number of threads of each; the cores divided by the workers if ``None``.

        Raises:
            UserError: Something is wrong with the machine that the user can repair; runs that were
                started are resumed when the sweep is started again.
        """
        self._jobs = jobs
        self._threads = threads or max(1, cores() // jobs)
        try:
            while not self._over():
                self._start_workers()
                self._listen()
                self._keep_alive()
        finally:
            self._stop_workers()

    def _over(self) -> bool:
        busy = any(worker.claimed for worker in self._workers)
        return not busy and self._studies.finished()

    def _start_workers(self) -> None:
        numbers = set(range(self._jobs)) - {worker.number for worker in self._workers}
        for number in sorted(numbers):
            log = _log(self._folder, number)
            try:
                worker = _Worker(number, log, self._threads, self._main)
            except (EOFError, OSError) as error:
                # The server that workers are forked from was killed; the next start begins another.
                self._on_false_start(f"no worker can be started: {error or 'its server died'}")
                return
            self._workers.append(worker)

    def _listen(self) -> None:
        ends: dict[object, _Worker] = {}
        for worker in self._workers:
            ends[worker.connection] = worker
        for end in wait(list(ends), timeout=TICK_SECONDS):  # type: ignore[arg-type]
            worker = ends[end]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._on_worker_exit(worker)
                continue
            self._on_message(worker, message)
        if time.monotonic() - self._last_look > TICK_SECONDS:
            self._last_look = time.monotonic()
            for worker in self._workers:
                self._assign(worker)
            self._view.refresh()

    def _keep_alive(self) -> None:
        if time.monotonic() - self._last_beat > self._studies.heartbeat:
            self._advance()

    def _advance(self) -> None:
        self._last_beat = time.monotonic()
        self._studies.beat()
        self._studies.advance()

    def _assign(self, worker: _Worker) -> None:
        """Claim a trial for an idle worker."""
        if not worker.ready or worker.claimed is not None:
            return
        claimed = self._studies.claim()
        if claimed is None:
            return
        worker.claimed, worker.epoch = claimed, 0
        folder = self._run_folder(claimed)
        resumes = folder.config.exists()
        request = RunRequest(
            recipe=self._recipe,
            options={**claimed.options, **self._options},
            folder=str(folder.path),
            sweep_id=claimed.sweep_id,
            monitor=self._studies.monitor.metric,
            wait=self._prunes,
            allowed=self._allowed,
            files=self._files,
        )
        if self._send(worker, request):
            settings = {key: claimed.options[key] for key in self._studies.definition.space}
            begins = "resumes" if resumes else "starts"
            self._view.event(
                claimed.run_id, ", ".join(filter(None, (begins, settings_in_words(settings))))
            )
            self._view.running(claimed.run_id, settings)

    def _send(self, worker: _Worker, message: object) -> bool:
        """Send a message to a worker; false if the worker is dead."""
        try:
            worker.connection.send(message)
        except OSError:
            # The end of the connection is read next.
            return False
        return True

    def _on_message(self, worker: _Worker, message: object) -> None:
        claimed = worker.claimed
        match message:
            case Ready():
                worker.ready = True
                self._false_starts = 0
            case Epoch(number, value) if claimed is not None:
                worker.epoch = number
                self._view.epoch(claimed.run_id, number, value)
                if self._prunes:
                    self._send(worker, not self._studies.report(claimed, number, value))
                return
            case Done(content) if claimed is not None:
                record = RunRecord.parse(content)
                self._studies.finish(claimed, record)
                self._assign_next(worker)
                self._view.event(claimed.run_id, _summary(record))
            case Failed(reason) if claimed is not None:
                self._studies.fail(claimed, reason, self._record(claimed))
                self._assign_next(worker)
                self._view.event(claimed.run_id, f"failed: {reason}")
            case Busy(reason) if claimed is not None:
                # Its coordinator was taken for dead, or somebody resumes the run by hand.
                self._studies.let_go(claimed)
                worker.claimed = None
                self._view.event(claimed.run_id, f"left to its process: {reason}")
            case Stopped(reason) if claimed is not None:
                self._studies.requeue(claimed)
                worker.claimed = None
                self._view.event(claimed.run_id, "stopped; it can be resumed")
                if reason:
                    raise UserError(
                        f"{reason} (in {claimed.run_id}; the same command resumes the sweep)"
                    )
        self._assign(worker)

    def _assign_next(self, worker: _Worker) -> None:
        worker.claimed = None
        # First of all, so that no worker waits for what only the view and other arms need.
        self._assign(worker)
        self._advance()

    def _on_worker_exit(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.join(time.monotonic() + 1.0)
        claimed = worker.claimed
        if claimed is not None:
            record = self._record(claimed)
            reason = self._studies.requeue_or_fail(claimed, worker.epoch, record)
            what = f"failed: {reason}" if reason else "its worker died; it will be resumed"
            self._view.event(claimed.run_id, what)
        if not worker.ready:
            self._on_false_start(f"workers die before they are ready; see {worker.log}")

    def _on_false_start(self, reason: str) -> None:
        self._false_starts += 1
        if self._false_starts >= MAX_FALSE_STARTS:
            raise MachineError(reason)

    def _stop_workers(self) -> None:
        deadline = time.monotonic() + GRACE_SECONDS
        for worker in self._workers:
            if worker.claimed is not None or not worker.ready:
                worker.terminate()
            # A worker whose run was terminated asks for the next one.
            self._send(worker, None)
        for worker in self._workers:
            worker.join(deadline)
        # Who stops does not wait for a database: without signs of life the trials are requeued.
        with self._studies.storage.impatient(), contextlib.suppress(MachineError):
            for worker in self._workers:
                if worker.claimed is not None:
                    self._studies.requeue(worker.claimed)
        self._workers.clear()

    def _run_folder(self, claimed: ClaimedTrial) -> RunFolder:
        return RunFolder(self._folder / claimed.run_id)

    def _record(self, claimed: ClaimedTrial) -> RunRecord | None:
        """The record of a run that did not end well, if it came so far as to have one."""
        path = self._run_folder(claimed).record
        with contextlib.suppress(UserError):
            return RunRecord.read(path) if path.exists() else None
        return None


def _log(folder: Path, number: int) -> Path:
    """The file for what a worker's runs print; tasks that Slurm starts have one each."""
    task = os.environ.get("SLURM_PROCID")
    name = f"worker-{number}.log" if task is None else f"worker-{task}-{number}.log"
    return folder / name


def _summary(record: RunRecord) -> str:
    parts: list[str] = [record.status]
    if record.best_score is not None:
        parts.append(score_text(record.monitor, record.best_score))
    if record.test_value is not None:
        parts.append(score_text(record.test_metric, record.test_value))
    return ", ".join([*parts, duration(record.train_seconds)])
