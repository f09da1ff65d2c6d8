"""The coordinator beside workers that die at the worst moment, and on other systems."""

import io
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from bclightning.cli.sweep_view import LiveView
from bclightning.runs.record import RunRecord
from bclightning.sweep.coordinator import Coordinator
from bclightning.sweep.definition import Definition
from bclightning.sweep.messages import Done, Epoch, Ready, RunRequest, WorkerSettings
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


def done(request: RunRequest) -> Done:
    record = RunRecord(Path(request.folder).name, "alone", "none", "digits", 0, status="finished")
    record.best_score = 5.0
    return Done(asdict(record))


@pytest.fixture
def swept(tmp_path):
    """Run the sweep, and return what was said and the trials."""

    def run(main=first_dies, heartbeat=10, **options):
        studies = Studies(SWEEP, f"sqlite:///{tmp_path / 'storage.db'}", heartbeat)
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


def test_where_no_process_is_bound_to_cores_the_workers_share_all_of_them(
    swept, tmp_path, monkeypatch
):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    swept(jobs=2)
    assert (tmp_path / "worker-0.log.threads").read_text() == "3"
