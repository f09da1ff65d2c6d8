"""Whoever of a sweep is killed, and whenever: nothing is lost and nothing is done twice."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml
from campaigns import faults
from optuna.trial import TrialState

TRIALS, FINALS = 18, 2


def definition(tiny) -> dict:
    return {
        "recipe": tiny,
        "arms": ["none", "stochastic"],
        "overrides": {"trainer.max_epochs": 40},
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "trials": TRIALS,
        "final_seeds": FINALS,
    }


def start(log, *words) -> subprocess.Popen:
    command = [sys.executable, "-m", "bclightning", "sweep", "kills.yaml", "--jobs", "4", *words]
    with log.open("ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file)


def workers(coordinator: subprocess.Popen) -> list[int]:
    return faults.workers(coordinator.pid)


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def states(url: str) -> dict[str, list]:
    storage = optuna.storages.RDBStorage(url)
    found = {}
    for summary in optuna.get_all_study_summaries(storage):
        study = optuna.load_study(study_name=summary.study_name, storage=storage)
        found[summary.study_name] = study.get_trials()
    storage.remove_session()
    storage.engine.dispose()
    return found


def check(storage: str, log: Path) -> None:
    """Exactly 40 finished, none twice, none left running, each with a whole record of its own."""
    said = log.read_text()
    found = states(storage)
    counts = {name: len(trials) for name, trials in found.items()}
    assert counts == {
        f"kills-{arm}-{stage}": count
        for arm in ("none", "stochastic")
        for stage, count in (("tune", TRIALS), ("final", FINALS))
    }, said
    trials = [trial for some in found.values() for trial in some]
    assert [t.state for t in trials if t.state != TrialState.COMPLETE] == [], said
    records = [trial.user_attrs["record"] for trial in trials]
    assert len({record["run_id"] for record in records}) == 40
    assert all(record["status"] == "finished" for record in records)
    assert all(len(record["test"]) > 0 for record in records if record["stage"] == "final")
    assert all(record["test"] == [] for record in records if record["stage"] == "tune")


DEADLY = """
import os
import signal
from pathlib import Path

from lightning.pytorch import Callback


class Deadly(Callback):
    def __init__(self, always: bool) -> None:
        self.always = always

    def on_train_epoch_start(self, trainer, module):
        mark = Path(f"{trainer.default_root_dir}-{trainer.current_epoch}")
        if not mark.exists() or (self.always and trainer.current_epoch == 2):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.parametrize("always", [False, True])
def test_a_trial_that_workers_die_of_fails_only_when_it_comes_no_further(folder, tiny, always):
    """Ten deaths, one an epoch, are survived; eight in one epoch are one too many."""
    (folder / "own.py").write_text(DEADLY)
    recipe = yaml.safe_load(Path(tiny).read_text())
    deadly = {"class_path": "own.Deadly", "init_args": {"always": always}}
    recipe["trainer"] |= {"max_epochs": 10, "callbacks": [deadly]}
    (folder / "deadly.yaml").write_text(yaml.safe_dump(recipe))
    alone = {"arms": ["none"], "overrides": {}, "space": {}, "trials": 0, "final_seeds": 1}
    sweep = {**definition(tiny), **alone, "recipe": "deadly.yaml"}
    (folder / "kills.yaml").write_text(yaml.safe_dump(sweep))
    log = folder / "log"
    assert start(log, "--jobs", "1").wait(200) == always, log.read_text()
    said = log.read_text()
    (trial,) = states("sqlite:///results/runs/kills/storage.db")["kills-none-final"]
    if always:
        assert trial.state == TrialState.FAIL
        # Once in each of the first two epochs, then in the third until given up.
        assert said.count("its worker died; it will be resumed") == 2 + 7
        assert "failed: its worker died 8 times in one epoch" in said
    else:
        assert trial.state == TrialState.COMPLETE
        assert said.count("its worker died; it will be resumed") == 10


@pytest.mark.slow
def test_forty_trials_with_twenty_workers_and_five_coordinators_killed(folder, tiny):
    (folder / "kills.yaml").write_text(yaml.safe_dump(definition(tiny)))
    log = folder / "log"
    rng = random.Random(0)
    began = time.monotonic()
    coordinator = start(log)
    while not list(folder.rglob("metrics.csv")):
        assert coordinator.poll() is None, log.read_text()
        time.sleep(0.02)
    # A machine's pace decides how often to kill: before, in and after a run's first epochs.
    pace = time.monotonic() - began
    killed_workers = killed_coordinators = 0
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline and (killed_workers, killed_coordinators) != (20, 5):
        time.sleep(rng.uniform(0.01, 0.2) * pace)
        assert coordinator.poll() is None, log.read_text()
        at_work = workers(coordinator)
        if not at_work:
            continue
        if killed_workers >= 4 * (killed_coordinators + 1):
            kill(coordinator.pid)
            coordinator.wait()
            killed_coordinators += 1
            coordinator = start(log)
        else:
            kill(rng.choice(at_work))
            killed_workers += 1
    assert (killed_workers, killed_coordinators) == (20, 5), log.read_text()
    assert coordinator.wait(300) == 0, log.read_text()
    check("sqlite:///results/runs/kills/storage.db", log)


@pytest.mark.slow
def test_two_coordinators_on_one_database_and_one_of_them_killed(folder, tiny, postgresql):
    (folder / "kills.yaml").write_text(yaml.safe_dump(definition(tiny)))
    words = ("--storage", postgresql, "--heartbeat", "1")
    logs = [folder / "one", folder / "two"]
    # Both at once, on a database without tables.
    one, two = (start(log, *words) for log in logs)
    deadline = time.monotonic() + 120
    while (said := logs[0].read_text()).count(": finished") < 5:
        assert time.monotonic() < deadline, said
        assert one.poll() is None, said
        time.sleep(0.1)
    kill(one.pid)
    one.wait()
    assert two.wait(300) == 0, logs[1].read_text()
    check(postgresql, logs[1])
    # Each had its share, and the password is in no file.
    assert [log.read_text().count(": finished") >= 5 for log in logs] == [True, True]
    password = postgresql.partition("@")[0].rpartition(":")[2].encode()
    for path in folder.rglob("*"):
        assert not path.is_file() or password not in path.read_bytes(), path


def servers(coordinator: subprocess.Popen) -> list[int]:
    """The process that workers are forked from."""
    return [child for child in faults.children(coordinator.pid) if faults.children(child)]


@pytest.mark.slow
def test_the_process_that_workers_are_forked_from_is_killed(folder, tiny):
    few = {"arms": ["none"], "overrides": {"trainer.max_epochs": 20}, "space": {}, "trials": 0}
    sweep = {**definition(tiny), **few, "final_seeds": 5}
    (folder / "kills.yaml").write_text(yaml.safe_dump(sweep))
    log = folder / "log"
    coordinator = start(log, "--jobs", "2")
    for killed in range(2):
        deadline = time.monotonic() + 60
        while not servers(coordinator) or len(list(folder.rglob("metrics.csv"))) <= killed:
            assert coordinator.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        (server,) = servers(coordinator)
        # In the middle of starting another worker; one that is at work trains on, as an orphan.
        os.kill(server, signal.SIGSTOP)
        kill(faults.children(server)[0])
        time.sleep(1.0)
        kill(server)
        while faults.children(server):
            time.sleep(0.01)
    assert coordinator.wait(200) == 0, log.read_text()
    assert "Traceback" not in log.read_text()
    trials = states("sqlite:///results/runs/kills/storage.db")["kills-none-final"]
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 5
    runs = sorted(trial.user_attrs["record"]["run_id"] for trial in trials)
    assert runs == [f"kills-none-s{seed}" for seed in range(1, 6)]


WAITS = """
import time
from pathlib import Path

from lightning.pytorch import Callback


class Waits(Callback):
    def on_train_epoch_end(self, trainer, module):
        Path("trains").touch()
        while not Path("go").exists():
            time.sleep(0.05)
"""


@pytest.mark.slow
def test_a_frozen_coordinator_does_not_end_the_other(folder, tiny, postgresql):
    """Its worker lives and trains on; the other one leaves that run to it, and then takes it."""
    (folder / "own.py").write_text(WAITS)
    recipe = yaml.safe_load(Path(tiny).read_text())
    recipe["trainer"] |= {"max_epochs": 2, "callbacks": [{"class_path": "own.Waits"}]}
    (folder / "waits.yaml").write_text(yaml.safe_dump(recipe))
    alone = {"arms": ["none"], "overrides": {}, "space": {}, "trials": 0, "final_seeds": 1}
    sweep = {**definition(tiny), **alone, "recipe": "waits.yaml", "name": "frozen"}
    (folder / "kills.yaml").write_text(yaml.safe_dump(sweep))
    words = ("--jobs", "1", "--storage", postgresql, "--heartbeat", "1")
    logs = [folder / "one", folder / "two"]
    one = start(logs[0], *words)
    deadline = time.monotonic() + 60
    while not (folder / "trains").exists():
        assert one.poll() is None, logs[0].read_text()
        assert time.monotonic() < deadline, logs[0].read_text()
        time.sleep(0.1)
    os.kill(one.pid, signal.SIGSTOP)
    two = start(logs[1], *words)
    while not workers(two):
        assert two.poll() is None, logs[1].read_text()
        time.sleep(0.1)
    # More than three signs of life, and more than a run's lock is waited for.
    time.sleep(15)
    assert two.poll() is None, logs[1].read_text()
    assert "frozen-none-s1" not in logs[1].read_text()
    (folder / "go").touch()
    assert two.wait(60) == 0, logs[1].read_text()
    os.kill(one.pid, signal.SIGCONT)
    assert one.wait(60) == 0, logs[0].read_text()
    (trial,) = states(postgresql)["frozen-none-final"]
    assert trial.state == TrialState.COMPLETE
    assert trial.user_attrs["record"]["status"] == "finished"


@pytest.mark.slow
def test_a_worker_that_is_asked_to_stop_gives_its_trial_back(folder, tiny):
    """As an out-of-memory daemon does: the trial is resumed, here by the same worker."""
    few = {"arms": ["none"], "overrides": {"trainer.max_epochs": 30}, "space": {}, "trials": 0}
    (folder / "kills.yaml").write_text(
        yaml.safe_dump({**definition(tiny), **few, "final_seeds": 1})
    )
    log = folder / "log"
    coordinator = start(log, "--jobs", "1")
    stopped = 0
    deadline = time.monotonic() + 100
    while coordinator.poll() is None and time.monotonic() < deadline:
        if list(folder.rglob("last.ckpt")) and (at_work := workers(coordinator)) and stopped < 4:
            with contextlib.suppress(ProcessLookupError):
                os.kill(at_work[0], signal.SIGTERM)
            stopped += 1
        time.sleep(0.3)
    assert coordinator.wait(100) == 0, log.read_text()
    (trial,) = states("sqlite:///results/runs/kills/storage.db")["kills-none-final"]
    assert trial.state == TrialState.COMPLETE, log.read_text()
    assert "stopped; it can be resumed" in log.read_text()
    assert ": failed" not in log.read_text()
