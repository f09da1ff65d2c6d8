"""The coordinator: hands trials to worker processes, and survives whatever becomes of them."""

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from bclightning.errors import UserError
from bclightning.formatting import duration
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord
from bclightning.sweep.messages import Done, Epoch, Failed, Ready, Stopped, Task
from bclightning.sweep.studies import Studies, Ticket
from bclightning.sweep.view import LiveView

# How often the view is drawn and idle workers look for what has become free, in seconds.
TICK = 0.5

# Workers that die one after the other before they are ready will never be.
MOST_FALSE_STARTS = 3

# Given to a worker to end its run in order when the sweep is stopped, in seconds.
GRACE = 20.0

WorkerMain = Callable[[Connection, str, int, int], None]


def start_worker_server(module: str) -> None:
    """Begin to import what workers need, in a process that workers are forked from.

    That process has imported torch and started none of its threads, so a worker costs little, and
    one that died is soon replaced.

    Args:
        module: The module of the workers' main function.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload([module])
    forkserver.ensure_running()


class _Worker:
    """A worker process and what it is doing."""

    def __init__(self, number: int, folder: Path, threads: int, main: WorkerMain) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.log = folder / f"worker-{number}.log"
        self.process: ForkServerProcess = context.Process(
            target=main, args=(theirs, str(self.log), threads, number), name=f"worker-{number}"
        )
        self.process.start()
        # Only the worker has that end now, so that its death is the end of the line.
        theirs.close()
        self.number = number
        self.ready = False
        self.ticket: Ticket | None = None
        self.epoch = 0

    def reap(self, deadline: float) -> None:
        """Wait for its end, and enforce it."""
        self.process.join(max(0.0, deadline - time.monotonic()))
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


class Coordinator:
    """Runs a sweep on this machine, alone or beside coordinators on others.

    Args:
        studies: The sweep's storage, prepared.
        folder: Of the sweep's runs.
        recipe: The configuration file of all runs.
        view: Shows what happens.
        worker: What a worker process runs.
        more: More options for all runs, of places and loggers.
    """

    def __init__(
        self,
        studies: Studies,
        folder: Path,
        recipe: str,
        view: LiveView,
        worker: WorkerMain,
        more: tuple[str, ...] = (),
    ) -> None:
        self._studies = studies
        self._folder = folder
        self._recipe = recipe
        self._view = view
        self._main = worker
        self._more = more
        self._jobs = self._threads = 1
        self._workers: list[_Worker] = []
        self._false_starts = 0
        self._last_beat = self._last_look = 0.0
        self._prunes = studies.definition.pruner.name != "none"

    def run(self, jobs: int = 1, threads: int | None = None) -> None:
        """Work until nothing of the sweep is left to do, here or elsewhere.

        Args:
            jobs: Number of worker processes.
            threads: Threads of each; the cores divided by the workers when left out.

        Raises:
            UserError: Something is wrong with the machine that the user can mend; what was begun
                goes on when the sweep is started again.
        """
        self._jobs = jobs
        self._threads = threads or max(1, _cores() // jobs)
        try:
            while not self._over():
                self._start_workers()
                self._listen()
                self._keep_alive()
        finally:
            self._stop_workers()

    def _over(self) -> bool:
        busy = any(worker.ticket for worker in self._workers)
        return not busy and self._studies.finished()

    def _start_workers(self) -> None:
        numbers = set(range(self._jobs)) - {worker.number for worker in self._workers}
        for number in sorted(numbers):
            self._workers.append(_Worker(number, self._folder, self._threads, self._main))

    def _listen(self) -> None:
        ends: dict[object, _Worker] = {}
        for worker in self._workers:
            ends[worker.connection] = worker
        for end in wait(list(ends), timeout=TICK):  # type: ignore[arg-type]
            worker = ends[end]
            try:
                message = worker.connection.recv()
            except (EOFError, OSError):
                self._bury(worker)
                continue
            self._hear(worker, message)
        if time.monotonic() - self._last_look > TICK:
            self._last_look = time.monotonic()
            for worker in self._workers:
                self._employ(worker)
            self._view.refresh()

    def _keep_alive(self) -> None:
        if time.monotonic() - self._last_beat < self._studies.heartbeat:
            return
        self._last_beat = time.monotonic()
        self._studies.beat([worker.ticket for worker in self._workers if worker.ticket])
        self._studies.advance()

    def _employ(self, worker: _Worker) -> None:
        if not worker.ready or worker.ticket is not None:
            return
        ticket = self._studies.claim()
        if ticket is None:
            return
        worker.ticket, worker.epoch = ticket, 0
        folder = RunFolder(self._folder / ticket.run_id)
        arguments = ("--config", self._recipe, *ticket.arguments, *self._more)
        goes_on = folder.config.exists()
        task = Task(arguments, str(folder.path), ticket.token, wait=self._prunes)
        if self._tell(worker, task):
            self._view.event(ticket.run_id, "goes on" if goes_on else "begins")

    def _tell(self, worker: _Worker, message: object) -> bool:
        """Say something to a worker, and whether it was there to hear it."""
        try:
            worker.connection.send(message)
        except OSError:
            # Dead; the line's end is read next.
            return False
        return True

    def _hear(self, worker: _Worker, message: object) -> None:
        ticket = worker.ticket
        match message:
            case Ready():
                worker.ready = True
                self._false_starts = 0
            case Epoch(number, error) if ticket is not None:
                worker.epoch = number
                self._view.epoch(ticket.run_id, number, error)
                if self._prunes:
                    self._tell(worker, not self._studies.report(ticket, number, error))
                return
            case Done(content) if ticket is not None:
                record = RunRecord.parse(content)
                self._studies.finish(ticket, record)
                self._employ_again(worker)
                self._view.event(ticket.run_id, _told(record))
            case Failed(reason) if ticket is not None:
                self._studies.fail(ticket, reason)
                self._employ_again(worker)
                self._view.event(ticket.run_id, f"failed: {reason}")
            case Stopped(reason) if ticket is not None:
                self._studies.put_back(ticket)
                worker.ticket = None
                self._view.event(ticket.run_id, "stopped, and can go on")
                if reason:
                    raise UserError(f"{reason} (met by {ticket.run_id}; the same command goes on)")
        self._employ(worker)

    def _employ_again(self, worker: _Worker) -> None:
        worker.ticket = None
        # First of all, so that no worker waits for what only the view and other arms need.
        self._employ(worker)
        self._studies.advance()

    def _bury(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        worker.reap(time.monotonic() + 1.0)
        if worker.ticket is not None:
            reason = self._studies.bury(worker.ticket, worker.epoch)
            what = f"failed: {reason}" if reason else "its worker died; it will go on"
            self._view.event(worker.ticket.run_id, what)
        if not worker.ready:
            self._false_starts += 1
            if self._false_starts >= MOST_FALSE_STARTS:
                raise UserError(f"workers die before they are ready; {worker.log} says more")

    def _stop_workers(self) -> None:
        deadline = time.monotonic() + GRACE
        for worker in self._workers:
            if worker.ticket is None and worker.ready:
                self._tell(worker, None)
            else:
                worker.process.terminate()
        for worker in self._workers:
            worker.reap(deadline)
        for worker in self._workers:
            if worker.ticket is not None:
                self._studies.put_back(worker.ticket)
        self._workers.clear()


def _cores() -> int:
    """The cores that this process may use, as far as the system says."""
    # macOS and Windows ask no process which cores it may use.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _told(record: RunRecord) -> str:
    what = f"{record.status}, validation error {record.best_score or 0.0:.2f} %"
    if record.test_value is not None:
        what += f", test error {record.test_value:.2f} %"
    return f"{what}, {duration(record.train_seconds)}"
