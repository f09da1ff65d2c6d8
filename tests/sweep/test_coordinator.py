"""The coordinator beside workers that die at the worst moment, and on other systems."""

import io
import os
import signal
import time
from dataclasses import asdict
from multiprocessing import forkserver
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from bclightning.cli.sweep_view import LiveView
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.sweep.coordinator import Coordinator
from bclightning.sweep.definition import Definition
from bclightning.sweep.messages import Busy, Done, Epoch, Ready, RunRequest, WorkerSettings
from bclightning.sweep.storages import Passing
from bclightning.sweep.studies import Studies

SWEEP = Definition.parse(
    {
        "recipe": "digits.yaml",
        "arms": ["none"],
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1.0, "log": True}},
        "trials": 2,
        "final_seeds": 0,
        "pruner": "median",
    },
    "alone",
)


def first_dies(connection, settings: WorkerSettings) -> None:
    """A worker that trains nothing; the first of all dies when it has reported an epoch."""
    assert settings.log.endswith(f"worker-{settings.number}.log")
    Path(f"{settings.log}.threads").write_text(str(settings.threads))
    connection.send(Ready())
    while (request := connection.recv()) is not None:
        connection.send(Epoch(1, 5.0))
        dead = Path(f"{settings.log}.dead")
        if not dead.exists():
            dead.touch()
            os._exit(1)
        connection.recv()
        connection.send(done(request))


def first_is_long(connection, settings: WorkerSettings) -> None:
    """A worker that trains nothing; the first trial outlasts a pause of the coordinator."""
    connection.send(Ready())
    while (request := connection.recv()) is not None:
        if request.folder.endswith("t000"):
            while not Path(settings.log).with_name("pause-is-over").exists():
                time.sleep(0.1)
            time.sleep(1.0)
        connection.send(done(request))


def done_at_once(connection, settings: WorkerSettings) -> None:
    """A worker that trains nothing."""
    connection.send(Ready())
    while (request := connection.recv()) is not None:
        connection.send(done(request))


def first_is_busy(connection, settings: WorkerSettings) -> None:
    """A worker that finds the first trial's run being trained, until the second has ended."""
    connection.send(Ready())
    over = Path(settings.log).with_name("over")
    while (request := connection.recv()) is not None:
        if request.folder.endswith("t000") and not over.exists():
            connection.send(Busy("it is being trained"))
            continue
        over.touch()
        connection.send(done(request))


def done(request: RunRequest) -> Done:
    record = RunRecord(Path(request.folder).name, "alone", "none", "digits", 0, status="finished")
    record.best_score = 5.0
    return Done(asdict(record))


@pytest.fixture
def swept(tmp_path):
    """Run the sweep, and return what was said and the trials."""

    def run(main=first_dies, heartbeat=10, in_use=lambda run_id: False, **options):
        url = f"sqlite:///{tmp_path / 'storage.db'}"
        studies = Studies(SWEEP, url, heartbeat, in_use=in_use)
        said = io.StringIO()
        try:
            studies.prepare("a recipe")
            view = LiveView(Console(file=said))
            Coordinator(studies, tmp_path, {}, view, main).run(**options)
            return said.getvalue(), studies.trials("none", "tune")
        finally:
            studies.close()

    return run


def test_a_worker_that_dies_while_it_waits_for_the_decision_is_replaced(swept, monkeypatch):
    real = Studies.report

    def late(self, *arguments):
        time.sleep(0.5)  # the worker is gone by then
        return real(self, *arguments)

    monkeypatch.setattr(Studies, "report", late)
    said, trials = swept()
    assert said.count("its worker died; it will be resumed") == 1
    # Each line says what the search gave the trial.
    rate = f"{trials[0].params['model.learning_rate']:.4g}"
    assert said.count(f"t000: starts, learning_rate={rate}") == 2
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2


@pytest.mark.slow
def test_after_a_pause_a_coordinator_does_not_take_its_own_workers_for_dead(
    swept, tmp_path, monkeypatch
):
    """As when a machine was suspended: a trial that runs here would be given out once more."""
    real = Studies.finish

    def suspended(self, *arguments):
        if not (tmp_path / "pause-is-over").exists():
            time.sleep(6)
            (tmp_path / "pause-is-over").touch()
        return real(self, *arguments)

    monkeypatch.setattr(Studies, "finish", suspended)
    said, trials = swept(first_is_long, heartbeat=1, jobs=2)
    assert said.count("t000: starts") == 1
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2


@pytest.mark.parametrize("times", [1, 3])
def test_the_server_of_workers_dies_while_it_starts_one(swept, monkeypatch, times):
    """Once is repaired, always is said: with an error, and not with code 1 for failed trials."""
    server = forkserver._forkserver
    real = server.ensure_running
    deaths = []

    def dying():
        real()
        if len(deaths) < times:
            deaths.append(server._forkserver_pid)
            os.kill(deaths[-1], signal.SIGKILL)
            os.waitid(os.P_PID, deaths[-1], os.WEXITED | os.WNOWAIT)

    monkeypatch.setattr(server, "ensure_running", dying)
    if times == 1:
        _, trials = swept(done_at_once)
        assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    else:
        with pytest.raises(UserError, match="no worker can be started"):
            swept(done_at_once)
    assert len(deaths) == times


def test_a_run_that_another_process_trains_is_left_to_it(swept, tmp_path):
    """It is neither failed nor requeued at once; what the other process made of it counts."""
    said, trials = swept(first_is_busy, in_use=lambda run_id: not (tmp_path / "over").exists())
    assert said.count("alone-none-t000: left to its process: it is being trained") == 1
    assert said.index("t001: finished") < said.index("t000: finished")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2


def test_whoever_stops_does_not_wait_for_a_storage(swept, monkeypatch):
    """Ctrl-C while a database is away: its trials are requeued by whoever sees no signs of life."""

    def gone(self, claimed):
        self.storage.patiently(lambda: (_ for _ in ()).throw(Passing("it is away")))

    monkeypatch.setattr(Studies, "requeue", gone)
    monkeypatch.setattr(Studies, "report", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        swept()
    assert time.monotonic() - began < 10


def test_where_no_process_is_bound_to_cores_the_workers_share_all_of_them(
    swept, tmp_path, monkeypatch
):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    swept(jobs=2)
    assert (tmp_path / "worker-0.log.threads").read_text() == "3"
