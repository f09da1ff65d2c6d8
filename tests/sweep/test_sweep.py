"""`bcl sweep` from end to end: fair, resumable, told in sentences."""

import contextlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from bclightning.cli.main import main
from bclightning.sweep.coordinator import GRACE_SECONDS

WHOLE = {
    "recipe": "",
    "arms": ["none", "stochastic"],
    "overrides": {"trainer.max_epochs": 2},
    "space": {"model.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
    "trials": 2,
    "final_seeds": 2,
}
RUNS = Path("results/runs/mine")


def define(tiny, **change) -> None:
    Path("mine.yaml").write_text(yaml.safe_dump({**WHOLE, "recipe": tiny, **change}))


def sweep(*words) -> subprocess.CompletedProcess:
    """In this process, whose workers are forked from one server for all tests."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["sweep", "mine.yaml", *words])
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def sweep_in_a_process_of_its_own(*words) -> subprocess.CompletedProcess:
    """As users run it."""
    command = [sys.executable, "-m", "bclightning", "sweep", "mine.yaml", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def trials(name: str) -> list:
    study = optuna.load_study(study_name=name, storage="sqlite:///results/runs/mine/storage.db")
    return study.get_trials()


def record(run_id: str) -> dict:
    return json.loads((RUNS / run_id / "run.json").read_text())


@pytest.fixture(scope="module")
def swept(made_once):
    """A finished sweep: its folder, and what it said."""

    def make(folder: Path) -> None:
        tiny = str(Path(__file__).parents[1] / "configs" / "tiny.yaml")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            define(tiny, overrides={"trainer.max_epochs": 2, "wandb.mode": "offline"})
            # As after W&B was used in this process, whose service has ended meanwhile.
            patch.setenv("WANDB_SERVICE", "3-1-unix-/nowhere/socket")
            done = sweep_in_a_process_of_its_own("--jobs", "2")
            assert done.returncode == 0, done.stderr
            Path("said").write_text(done.stdout)

    folder = made_once("swept", make)
    return folder, (folder / "said").read_text()


@pytest.fixture
def there(swept, monkeypatch):
    """The folder of the finished sweep, to look at and not to change."""
    monkeypatch.chdir(swept[0])
    return swept[0]


def test_a_sweep_is_fair_by_construction(there):
    settings = {}
    for arm in WHOLE["arms"]:
        tune, final = trials(f"mine-{arm}-tune"), trials(f"mine-{arm}-final")
        assert [t.state for t in tune + final] == [TrialState.COMPLETE] * 4
        settings[arm] = [t.params for t in tune]
        best = min(tune, key=lambda t: t.value)
        for trial in tune:
            tuned = record(f"mine-{arm}-t{trial.number:03}")
            assert (tuned["stage"], tuned["seed"], tuned["test"]) == ("tune", 0, [])
            assert tuned["best_score"] == trial.value
            rate = trial.params["model.learning_rate"]
            assert tuned["hyperparameters"]["model.learning_rate"] == rate
        for seed in (1, 2):
            judged = record(f"mine-{arm}-s{seed}")
            assert (judged["stage"], judged["seed"], judged["regularizer"]) == ("final", seed, arm)
            assert len(judged["test"]) > 0
            rate = best.params["model.learning_rate"]
            assert judged["hyperparameters"]["model.learning_rate"] == rate
    # The same sampler seed draws the same first settings for each method.
    assert settings["none"][0] == settings["stochastic"][0]


def test_every_trial_is_an_ordinary_run_and_an_ordinary_wandb_run(there, folder, capsys):
    shutil.copytree(there / "results", folder / "results", ignore_dangling_symlinks=True)
    os.chdir(folder)
    main(["test", "--run", "mine-none-t000"])
    assert "test error" in capsys.readouterr().out
    (path,) = (RUNS / "wandb").glob("offline-run-*-mine-none-s1-*")
    wandb = Path(sys.executable).with_name("wandb")
    command = [wandb, "leet", "inspect", "--summary", "--json", path]
    shown = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert shown["name"] == "mine-none-s1"
    assert {"regularizer:none", "data:digits", "seed:1", "arm:none"} <= set(shown["tags"])
    assert shown["config"]["arm"] == "none"
    assert shown["config"]["details"]["settings"]["purpose"]["stage"] == "final"
    raw = subprocess.run([wandb, "leet", "inspect", "--json", path], capture_output=True).stdout
    assert b"final" in raw


def test_no_sweep_id_can_be_read_as_a_number(there):
    ids = [record(f"mine-{arm}-t000")["wandb"]["id"][-5:] for arm in WHOLE["arms"]]
    assert [sweep_id[0] for sweep_id in ids] == ["k", "k"]


def test_lines_and_table_say_how_it_went(swept):
    said = swept[1]
    assert said.count(": starts") == 8
    assert said.count(": finished, validation error") == 8
    assert said.count("test error") == 4
    assert "time left" in said
    assert "│ stochastic │    2/2 │" in said
    assert "bcl compare results/runs/mine" in said


def test_again_is_nothing_more_to_do_and_status_says_so(there, capsys):
    before = {path: path.stat().st_mtime_ns for path in RUNS.rglob("run.json")}
    done = sweep()
    assert done.returncode == 0
    assert ": starts" not in done.stdout
    assert {path: path.stat().st_mtime_ns for path in RUNS.rglob("run.json")} == before
    main(["sweep", "mine.yaml", "--status"])
    assert "│ none       │    2/2 │" in capsys.readouterr().out


def test_status_imports_no_torch(there):
    code = (
        "import sys; from bclightning.cli.main import main; "
        "main(['sweep', 'mine.yaml', '--status']); "
        "assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.slow
def test_the_same_seed_and_one_worker_give_the_same_sequence(there, folder, tiny):
    os.chdir(folder)
    define(tiny, trials=3, final_seeds=0, arms=["none"])
    found = []
    for _ in range(2):
        shutil.rmtree("results", ignore_errors=True)
        assert sweep().returncode == 0
        found.append([(t.number, t.params, t.value) for t in trials("mine-none-tune")])
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_sweep_may_grow_and_may_not_change(there, folder, tiny, refused):
    shutil.copytree(there / "results", folder / "results", ignore_dangling_symlinks=True)
    os.chdir(folder)
    same = {"trainer.max_epochs": 2, "wandb.mode": "offline"}
    for change, said in (
        ({"overrides": {**same, "trainer.max_epochs": 3}}, "a different overrides"),
        ({"space": {"data.batch_size": {"choices": [20, 50]}}}, "a different space"),
        ({"seed": 1}, "a different seed"),
        ({"trials": 1}, "a different trials"),
        ({"trials": 3}, "final runs have begun"),
    ):
        define(tiny, **{"overrides": same, **change})
        assert said in refused("sweep", "mine.yaml")
    define(tiny, overrides=same, final_seeds=3)
    assert sweep().returncode == 0
    assert record("mine-none-s3")["status"] == "finished"
    assert len(trials("mine-none-final")) == 3


def test_a_trial_that_fails_is_reported_and_does_not_stop_the_rest(folder, tiny):
    rates = {"choices": [1e-3, 1e30]}
    define(tiny, space={"model.learning_rate": rates}, trials=6, final_seeds=1, arms=["none"])
    done = sweep("--jobs", "2")
    states = [t.state for t in trials("mine-none-tune")]
    assert set(states) == {TrialState.COMPLETE, TrialState.FAIL}
    assert done.returncode == 1
    failed = states.count(TrialState.FAIL)
    assert done.stdout.count(" failed: ") == 2 * failed  # when it happens, and at the end
    assert "loss" in done.stdout
    assert trials("mine-none-final")[0].state == TrialState.COMPLETE
    # Tried again it would fail again.
    again = sweep()
    assert again.returncode == 1
    assert ": starts" not in again.stdout


@pytest.mark.slow
def test_pruning_stops_what_does_worse(folder, tiny):
    define(
        tiny,
        arms=["none"],
        space={"model.learning_rate": {"low": 1e-7, "high": 1e-1, "log": True}},
        overrides={"trainer.max_epochs": 6},
        trials=12,
        final_seeds=1,
        pruner={"name": "median", "warmup_epochs": 1},
    )
    assert sweep().returncode == 0
    found = trials("mine-none-tune")
    pruned = [t for t in found if t.state == TrialState.PRUNED]
    assert pruned
    for trial in pruned:
        kept = record(f"mine-none-t{trial.number:03}")
        assert kept["status"] == "pruned"
        rows = (RUNS / kept["run_id"] / "metrics.csv").read_text().count("\n") - 1
        assert rows == len(trial.intermediate_values) < 6


@pytest.mark.slow
def test_a_stopped_sweep_is_resumed(folder, tiny):
    define(tiny, trials=3, overrides={"trainer.max_epochs": 40})
    command = [sys.executable, "-m", "bclightning", "sweep", "mine.yaml", "--jobs", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "finished" not in (line := process.stdout.readline()):
        assert line, process.stderr.read()
    process.terminate()
    stopped = time.monotonic()
    _, err = process.communicate(timeout=60)
    # Workers end by themselves, and are not waited for until they are killed.
    assert time.monotonic() - stopped < GRACE_SECONDS
    assert process.returncode == 143
    assert "stopped; the same command" in err
    found = trials("mine-none-tune") + trials("mine-stochastic-tune")
    assert not [t for t in found if t.state == TrialState.RUNNING]
    done = sweep("--jobs", "2")
    assert done.returncode == 0, done.stderr
    assert ": resumes" in done.stdout
    assert all(t.state == TrialState.COMPLETE for t in trials("mine-none-tune"))


def test_bad_input_is_one_sentence_before_anything_starts(folder, tiny, refused):
    assert "there is no sweep definition mine.yaml" in refused("sweep", "mine.yaml")
    Path("mine.yaml").write_text("recipe: [")
    assert "not a readable YAML file" in refused("sweep", "mine.yaml")
    define("minst.yaml")
    assert "did you mean mnist.yaml?" in refused("sweep", "mine.yaml")
    define(tiny, overrides={"trainer.max_epocs": 3})
    said = refused("sweep", "mine.yaml")
    assert "arm none" in said
    assert "did you mean --trainer.max_epochs?" in said
    define(tiny, space={"model.learning_rate": {"low": -1.0, "high": 1.0}})
    assert "learning_rate=-1.0" in refused("sweep", "mine.yaml")
    define(tiny, space={"data.batch_size": {"choices": [50, 0]}})
    assert "batch_size" in refused("sweep", "mine.yaml")
    define(tiny)
    for jobs in ("0", "-1", "abc", "1.5"):
        said = refused("sweep", "mine.yaml", "--jobs", jobs)
        assert f"argument --jobs: {jobs!r} is not an integer of at least 1" in said
    define(tiny, overrides={"trainer.devices": 2})
    assert "trainer.devices must be 1; --jobs says how many" in refused("sweep", "mine.yaml")
    assert "has not started" in refused("sweep", "mine.yaml", "--status")
    assert not Path("results").exists()


def test_storages_that_cannot_be_used(folder, tiny, refused):
    define(tiny)
    for storage in ("mysql://me@host/db", "nonsense", "postgresql+psycopg://host"):
        assert "--storage must be" in refused("sweep", "mine.yaml", "--storage", storage)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"postgresql+psycopg://me:open-sesame@127.0.0.1:{closed.getsockname()[1]}/db"
        said = refused("sweep", "mine.yaml", "--storage", url)
    assert "cannot be used" in said
    assert "open-sesame" not in said
    Path("torn.db").write_bytes(b"this is no database at all, but a text")
    said = refused("sweep", "mine.yaml", "--storage", "sqlite:///torn.db")
    # No promise that the same command resumes it.
    assert "the storage sqlite:///torn.db is damaged (file is not a database): restore" in said


def test_two_coordinators_do_not_share_a_file(there, refused):
    from bclightning.sweep.definition import Definition
    from bclightning.sweep.studies import Studies

    storage = f"sqlite:///{RUNS / 'storage.db'}"
    studies = Studies(Definition.read(Path("mine.yaml")), storage)
    try:
        assert "is running already" in refused("sweep", "mine.yaml")
        # It can still be looked at, by whichever name.
        for name in ([], ["--storage", storage]):
            main(["sweep", "mine.yaml", "--status", *name])
    finally:
        studies.close()


def test_a_look_makes_nothing(folder, tiny, refused):
    define(tiny)
    before = sorted(folder.iterdir())
    look = ["sweep", "mine.yaml", "--status", "--storage"]
    assert "there is no new.db" in refused(*look, "sqlite:///new.db")
    assert sorted(folder.iterdir()) == before
    Path("torn.db").write_bytes(b"this is no database at all, but a text")
    assert "the storage torn.db is damaged" in refused(*look, "sqlite:///torn.db")


def test_a_folder_of_runs_that_is_a_file(folder, tiny, refused):
    define(tiny)
    said = refused("sweep", "mine.yaml", "--runs_dir", "mine.yaml")
    assert "the folder mine.yaml/mine cannot be created: Not a directory" in said


@pytest.mark.slow
def test_runs_of_another_sweep_of_that_name_are_not_taken_for_ours(there, folder, tiny):
    shutil.copytree(there / "results", folder / "results", ignore_dangling_symlinks=True)
    os.chdir(folder)
    (RUNS / "storage.db").unlink()
    define(tiny, overrides={"trainer.max_epochs": 2, "wandb.mode": "offline"})
    done = sweep()
    assert done.returncode == 2
    assert "belongs to another sweep of that name" in done.stderr
    assert record("mine-none-t000")["status"] == "finished"


@pytest.mark.slow
def test_optuna_dashboard_opens_the_storage(there, tmp_path):
    """In a real browser, which runs the page's own code."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Debian's package chromium")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    dashboard = Path(sys.executable).with_name("optuna-dashboard")
    storage = f"sqlite:///{RUNS / 'storage.db'}"
    server = subprocess.Popen(
        [dashboard, storage, "--port", port], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        url = f"http://127.0.0.1:{port}/dashboard"
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(url).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        browser = [chromium, "--headless", "--no-sandbox", "--disable-gpu"]
        page = subprocess.run(
            [
                *browser,
                f"--user-data-dir={tmp_path}",
                "--virtual-time-budget=15000",
                "--dump-dom",
                url,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
    finally:
        server.terminate()
        server.wait()
    for arm in WHOLE["arms"]:
        assert f"mine-{arm}-tune" in page
        assert f"mine-{arm}-final" in page
