"""The coordinator beside workers that die at the worst moment, and on other systems."""

import io
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console

from bclightning.runs.record import RunRecord
from bclightning.sweep.coordinator import Coordinator
from bclightning.sweep.definition import Definition
from bclightning.sweep.messages import Done, Epoch, Ready
from bclightning.sweep.studies import Studies
from bclightning.sweep.view import LiveView

SWEEP = Definition.parse(
    {
        "recipe": "digits.yaml",
        "methods": ["none"],
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1.0, "log": True}},
        "trials": 2,
        "final_seeds": 0,
        "pruner": "median",
    },
    "alone",
)


def first_dies(connection, log: str, threads: int, number: int) -> None:
    """A worker that trains nothing; the first of all dies when it has told of an epoch."""
    assert log.endswith(f"worker-{number}.log")
    Path(f"{log}.threads").write_text(str(threads))
    connection.send(Ready())
    while (task := connection.recv()) is not None:
        connection.send(Epoch(1, 5.0))
        dead = Path(f"{log}.dead")
        if not dead.exists():
            dead.touch()
            os._exit(1)
        connection.recv()
        record = RunRecord(Path(task.folder).name, "alone", "none", "digits", 0, status="finished")
        record.best_score = 5.0
        connection.send(Done(asdict(record)))


@pytest.fixture
def swept(tmp_path):
    """Run the sweep, and return what was said and the trials."""

    def run(**options):
        studies = Studies(SWEEP, f"sqlite:///{tmp_path / 'storage.db'}")
        said = io.StringIO()
        try:
            studies.prepare("a recipe")
            view = LiveView(Console(file=said), studies, 1)
            Coordinator(studies, tmp_path, "digits.yaml", view, first_dies).run(**options)
            return said.getvalue(), studies.trials("none", "tune")
        finally:
            studies.close()

    return run


def test_a_worker_that_dies_before_it_is_told_to_go_on_is_replaced(swept, monkeypatch):
    real = Studies.report

    def late(self, *arguments):
        time.sleep(0.5)  # the worker is gone by then
        return real(self, *arguments)

    monkeypatch.setattr(Studies, "report", late)
    said, trials = swept()
    assert said.count("its worker died; it will go on") == 1
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2


def test_where_no_process_is_bound_to_cores_the_workers_share_all_of_them(
    swept, tmp_path, monkeypatch
):
    """As on macOS."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    swept(jobs=2)
    assert (tmp_path / "worker-0.log.threads").read_text() == "3"
