"""W&B: what it is told, and that nothing it does can stop a run."""

import json
import os
import random
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from wandb_server import KEY, Server

from bclightning.tracking.logger import (
    TrackingWarning,
    shortened_tag,
    start_tracking,
)
from bclightning.tracking.mode import WandbOptions, decide_mode

WANDB = Path(sys.executable).with_name("wandb")


@pytest.mark.parametrize(
    ("setting", "environment", "mode"),
    [
        (None, {}, "offline"),
        (None, {"WANDB_API_KEY": KEY}, "online"),
        (None, {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        (None, {"WANDB_MODE": "dryrun"}, "offline"),
        (None, {"WANDB_MODE": "disabled"}, "disabled"),
        (None, {"WANDB_MODE": "nonsense"}, "offline"),
        ("online", {"WANDB_MODE": "disabled"}, "online"),
        ("disabled", {"WANDB_API_KEY": KEY}, "disabled"),
    ],
)
def test_the_mode_is_the_setting_else_the_environments_else_by_the_key(setting, environment, mode):
    decided, reason = decide_mode(WandbOptions(mode=setting), environment)
    assert decided == mode
    assert reason.startswith(f"W&B: {mode}, ")


def test_a_key_in_netrc_counts_for_its_own_server_alone(tmp_path):
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    home = {"HOME": str(tmp_path)}
    assert decide_mode(WandbOptions(), home)[0] == "online"
    other = {**home, "WANDB_BASE_URL": "http://other.example"}
    assert decide_mode(WandbOptions(), other)[0] == "offline"


def test_a_password_in_the_servers_url_is_refused_before_it_is_written_anywhere(
    folder, tiny, refused, monkeypatch
):
    monkeypatch.setenv("WANDB_BASE_URL", "http://user:s3cret@localhost:9")
    said = refused("fit", "--config", tiny, "--wandb.mode", "online")
    assert "WANDB_BASE_URL holds a password" in said
    assert "s3cret" not in said
    assert not (folder / "results").exists()
    # Nothing is sent there offline.
    assert decide_mode(WandbOptions(mode="offline"), os.environ)[0] == "offline"


def start(folder, run_id="mnist-stochastic-s0", mode="offline", **settings):
    return start_tracking(
        WandbOptions(init_timeout=2.0, finish_timeout=3.0, **settings),
        mode,
        run_id=run_id,
        name=run_id,
        folder=folder,
        group="mnist",
        job_type="train",
        tags=["method:stochastic", "seed:0"],
        config={"method": "stochastic", "model": {"learning_rate": 0.001}},
        layers=["a", "b"],
    )


def folder_of(folder, run_id="mnist-stochastic-s0") -> Path:
    (path,) = (folder / "wandb").glob(f"offline-run-*-{run_id}")
    return path


def summary(path: Path) -> dict:
    command = [str(WANDB), "leet", "inspect", "--summary", "--json", str(path)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def rows_of(path: Path) -> list[dict]:
    command = [str(WANDB), "leet", "inspect", "--json", str(path)]
    lines = subprocess.run(command, capture_output=True, check=True, text=True).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    return [record["history"]["item"] for record in records if "history" in record]


def history(path: Path, key: str) -> list[tuple[float, float]]:
    """Epochs, counted from 1, and values."""
    return [(row.get("_epoch"), row[key]) for row in rows_of(path) if key in row]


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_offline_run_holds_what_comparing_needs(tmp_path):
    logger = start(tmp_path, tags=["mine"])
    for epoch in range(3):
        logger.log_metrics({"epoch": epoch, "val/error": 3.0 - epoch}, step=100 * epoch)
        # As callbacks do, before the metrics of the training epoch.
        logger.log_histogram("weights/a", np.array([1, 2]), np.array([0.0, 0.5, 1.0]), epoch)
        logger.log_image("features/first_layer", np.zeros((4, 4, 3), np.uint8), epoch, "epoch 3")
        logger.log_metrics({"epoch": epoch, "train/loss": 0.5}, step=100 * epoch)
    logger.log_summary({"test/error_pct": 1.25})
    logger.finish(0)
    shown = summary(folder_of(tmp_path))
    assert shown["state"] == "finished"
    assert shown["name"] == "mnist-stochastic-s0"
    assert set(shown["tags"]) == {"method:stochastic", "seed:0", "mine"}
    assert shown["config"]["model"] == {"learning_rate": 0.001}
    assert shown["summary"]["test/error_pct"] == 1.25
    assert shown["summary"]["weights/1_histogram/a"]["values"] == [1, 2]
    assert shown["summary"]["weights/1_features"]["caption"] == "epoch 3"
    rows = rows_of(folder_of(tmp_path))
    assert [(row["_step"], row["_epoch"]) for row in rows] == [(0, 1), (100, 2), (200, 3)]
    assert [row["val/error_pct"] for row in rows] == [3, 2, 1]
    assert [row["val/accuracy_pct"] for row in rows] == [97, 98, 99]
    # Each epoch's media lie at the epoch's own step.
    assert all("weights/1_features.path" in row for row in rows)
    # No staircase among the charts.
    assert not any(key == "epoch" for row in rows for key in row)


def test_steps_that_come_again_after_a_kill_are_logged_once(tmp_path, capfd):
    logger = start(tmp_path)
    logger._known = logger._next = 200  # as the server tells where a run is resumed
    for step in (100, 200):
        logger.log_metrics({"epoch": step // 100, "train/loss": 0.5}, step=step)
    logger.finish(0)
    assert history(folder_of(tmp_path), "train/loss") == [(3, 0.5)]
    assert "WARNING" not in capfd.readouterr().err


@pytest.mark.parametrize("kept", [True, False])
def test_of_a_stopped_run_each_epoch_that_it_keeps_is_logged_once_and_whole(tmp_path, kept):
    logger = start(tmp_path)
    logger.log_metrics({"epoch": 0, "val/loss": 0.1}, step=99)
    logger.log_metrics({"epoch": 0, "train/loss": 0.2}, step=99)
    logger.log_metrics({"train/loss_step": 0.3}, step=149)
    logger.log_metrics({"epoch": 1, "val/loss": 0.4}, step=199)
    # The stop comes after the checkpoint, and before the metrics of the training epoch; or before.
    logger.finish(1, {"epoch": 1.0 if kept else 0.0, "val/loss": 0.4, "train/loss": 0.5})
    rows = rows_of(folder_of(tmp_path))
    assert [row["_step"] for row in rows] == [99, 149, 199][: 2 + kept]
    epochs = [row for row in rows if "_epoch" in row]
    found = [(row["_epoch"], row["val/loss"], row["train/loss"]) for row in epochs]
    assert found == [(1, 0.1, 0.2), (2, 0.4, 0.5)][: 1 + kept]


def test_what_comes_after_the_end_of_an_epoch_is_not_lost(tmp_path):
    logger = start(tmp_path)
    logger.log_metrics({"epoch": 0, "train/loss": 0.2}, step=9)
    logger.log_metrics({"epoch": 0, "late": 0.3}, step=9)
    logger.log_metrics({"epoch": 0, "later": 0.3})
    logger.log_metrics({"epoch": 1, "train/loss": 0.2}, step=19)
    logger.finish(0)
    assert [row["_step"] for row in rows_of(folder_of(tmp_path))] == [9, 10, 11, 19]


def test_two_runs_in_one_process_stay_two(tmp_path):
    first, second = (start(tmp_path / name, name) for name in ("first", "second"))
    second.log_metrics({"epoch": 0, "x": 2.0})
    first.log_metrics({"epoch": 0, "x": 1.0})
    first.finish(0)
    second.finish(0)
    for name, value in (("first", 1), ("second", 2)):
        assert history(folder_of(tmp_path / name, name), "x") == [(1, value)]


def test_random_numbers_are_not_drawn_from(tmp_path):
    def states():
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    before = states()
    logger = start(tmp_path)
    logger.log_image("x", np.zeros((4, 4, 3), np.uint8), 0)
    logger.finish(0)
    assert states() == before


@pytest.mark.parametrize("ours", ["online", "offline"])
def test_a_later_run_of_others_is_as_offline_as_the_environment_says(tmp_path, online, ours):
    """W&B reads the environment once in a process, which may be when our run starts."""
    online(closed_port())
    os.environ["WANDB_MODE"] = "offline"
    import wandb

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TrackingWarning)
            start(tmp_path / "ours", mode=ours).finish(0)
        theirs = wandb.init(dir=tmp_path, settings=wandb.Settings(silent=True, console="off"))
        theirs.finish()
    finally:
        del os.environ["WANDB_MODE"]
    assert theirs.offline


def test_the_mode_that_we_decide_holds_against_the_environments(tmp_path, online, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    server = Server()
    online(server.url)
    logger = start(tmp_path, mode="online")
    logger.finish(0)
    server.stop()
    assert list(server.runs) == ["mnist-stochastic-s0"]


def test_a_mode_that_w_and_b_does_not_know_is_no_mode(tmp_path, online, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "nonsense")
    online(closed_port())
    start(tmp_path).finish(0)
    assert folder_of(tmp_path).is_dir()
    assert os.environ["WANDB_MODE"] == "nonsense"


@given(st.lists(st.text(min_size=1, max_size=200), max_size=5))
def test_no_tag_is_too_long_for_the_server_and_all_stay_distinct(tags):
    short = [shortened_tag(tag) for tag in tags]
    assert all(len(tag) <= 64 for tag in short)
    assert len(set(short)) == len(set(tags))
    assert [tag for tag in short if len(tag) < 64] == [tag for tag in tags if len(tag) < 64]


def test_long_tags_are_logged_short(tmp_path):
    same = 70 * "x"
    start(tmp_path, tags=[f"{same}1", f"{same}2", ""]).finish(0)
    shown = summary(folder_of(tmp_path))["tags"]
    assert len({tag for tag in shown if tag.startswith("xxx")}) == 2
    assert all(0 < len(tag) <= 64 for tag in shown)


def test_a_server_that_asks_for_a_stop_is_told_of_and_not_obeyed(tmp_path, online, monkeypatch):
    from wandb.sdk.lib.run_stopping import RunStopChecker

    monkeypatch.setitem(RunStopChecker.__init__.__kwdefaults__, "poll_interval", 0.05)
    server = Server()
    server.stops = True
    online(server.url)
    logger = start(tmp_path, mode="online")
    assert logger._stop_asked.wait(20)
    with pytest.warns(TrackingWarning, match="asks for the run to be stopped; it continues"):
        logger.log_metrics({"epoch": 1, "x": 1.0})
    logger.finish(0)
    server.stop()


def test_disabled_is_nothing_at_all(tmp_path):
    assert start(tmp_path, mode="disabled") is None
    assert list(tmp_path.iterdir()) == []


def test_without_the_package_a_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.warns(TrackingWarning, match="W&B could not start offline"):
        assert start(tmp_path) is None


def test_online_the_server_gets_configuration_and_history(tmp_path, online):
    server = Server()
    online(server.url)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrackingWarning)
        logger = start(tmp_path, mode="online")
        logger.log_metrics({"epoch": 0, "val/error": 2.5})
        logger.finish(0)
    server.stop()
    everything = "\n".join(body for _, body in server.received)
    assert "method:stochastic" in everything
    assert "learning_rate" in everything
    stream = "\n".join(body for path, body in server.received if path.endswith("file_stream"))
    assert "val/error" in stream
    assert "2.5" in stream


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


@pytest.mark.parametrize("trouble", ["wrong key", "down", "hanging"])
def test_a_server_in_trouble_costs_a_warning_and_the_run_is_offline(tmp_path, online, trouble):
    server = Server(401) if trouble == "wrong key" else None
    silent = socket.socket()
    silent.bind(("127.0.0.1", 0))
    silent.listen()
    url = {
        "wrong key": server.url if server else "",
        "down": closed_port(),
        "hanging": f"http://127.0.0.1:{silent.getsockname()[1]}",
    }[trouble]
    online(url)
    began = time.monotonic()
    with pytest.warns(TrackingWarning, match=r"could not start online .*; logging offline"):
        logger = start(tmp_path, mode="online")
    logger.log_metrics({"epoch": 0, "x": 1.0})
    logger.finish(0)
    assert time.monotonic() - began < 20
    (path,) = (tmp_path / "wandb").glob("offline-run-*")
    assert history(path, "x") == [(1, 1)]
    silent.close()
    if server:
        server.stop()


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_does_not_hold_the_process(tmp_path):
    """The process is another one, since what would hang is its end."""
    server = Server()
    code = (
        "import sys, pathlib, warnings\n"
        "from bclightning.tracking.logger import *\n"
        "logger = start_tracking(WandbOptions(init_timeout=5, finish_timeout=3), 'online',\n"
        "    run_id='r', name='r', folder=pathlib.Path('.'), group='g', job_type='t',\n"
        "    tags=[], config={})\n"
        "logger.log_metrics({'epoch': 0, 'x': 1.0}); print('dead', flush=True); input()\n"
        "logger.log_metrics({'epoch': 1, 'x': 1.0}); logger.finish(0); print('over', flush=True)\n"
    )
    import os

    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    said = process.stdout.readline()
    assert said == "dead\n", process.stderr.read()
    server.stop()
    out, err = process.communicate("\n", timeout=40)
    assert process.returncode == 0, err
    assert out == "over\n"


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [True, False], ids=["from the start", "from the middle"])
def test_a_server_that_drips_does_not_hold_the_process(tmp_path, at_once):
    server = Server()
    server.drip = 0.5 if at_once else 0.0
    code = (
        "import pathlib\n"
        "from bclightning.tracking.logger import *\n"
        "logger = start_tracking(WandbOptions(init_timeout=3, finish_timeout=3), 'online',\n"
        "    run_id='r', name='r', folder=pathlib.Path('.'), group='g', job_type='t',\n"
        "    tags=[], config={})\n"
        "open('begun', 'w').close(); input()\n"
        "logger.log_metrics({'epoch': 0, 'x': 1.0}); logger.finish(0)\n"
    )
    environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
    began = time.monotonic()
    # Into a file, since W&B's service may hold a pipe for longer than the process lives.
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=said,
        )
    while not (tmp_path / "begun").exists() and process.poll() is None:
        time.sleep(0.1)
    server.drip = 0.5
    process.communicate(b"\n")
    assert process.returncode == 0, (tmp_path / "said").read_text()
    assert time.monotonic() - began < 30
    server.stop()


def test_a_failure_in_the_middle_of_a_run_is_one_warning(tmp_path):
    logger = start(tmp_path)
    run = logger._run
    run.finish()  # as if W&B had closed it behind our back
    with pytest.warns(TrackingWarning, match=r"W&B failed .*metrics.csv still has every metric"):
        logger.log_metrics({"epoch": 0, "train/loss": 1.0})
    # And no second warning, which would be an error here.
    logger.log_metrics({"epoch": 1, "train/loss": 1.0})
    logger.log_summary({"y": 1})
    logger.finish(0)


@pytest.mark.parametrize("metadata", [True, False])
def test_secrets_are_in_no_file(tmp_path, monkeypatch, metadata):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    remote = "https://user:open-sesame@example.com/repository.git"
    subprocess.run(["git", "remote", "add", "origin", remote], check=True)
    secret = ["--storage", "postgresql://me:open-sesame@host/db", "--token", "open-sesame"]
    monkeypatch.setattr(sys, "argv", ["bcl", "sweep", *secret])
    run = tmp_path / "run"
    run.mkdir()
    logger = start(run, metadata=metadata)
    assert sys.argv[2:] == secret
    logger.log_metrics({"epoch": 0, "x": 1.0})
    logger.finish(0)
    # W&B's service writes its file a moment later.
    (log,) = run.glob("wandb/offline-run-*/*.wandb")
    until(lambda: b"mnist-stochastic-s0" in log.read_bytes())
    files = [path for path in run.rglob("*") if path.is_file()]
    for path in files:
        content = path.read_bytes()
        assert KEY.encode() not in content, path
        assert b"open-sesame" not in content, path
    # What is not secret is there, or is not, as asked.
    for known in (b"postgresql://***@host/db", b"example.com/repository.git"):
        assert (known in log.read_bytes()) is metadata, known


def test_a_secret_among_slurms_variables_leaves_all_metadata_out(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JWT", "open-sesame")
    monkeypatch.setattr(sys, "argv", ["bcl", "this-word"])
    with pytest.warns(TrackingWarning, match="it would record SLURM_JWT with them"):
        logger = start(tmp_path)
    logger.finish(0)
    (log,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    until(lambda: b"mnist-stochastic-s0" in log.read_bytes())
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert b"open-sesame" not in path.read_bytes()
            assert b"this-word" not in path.read_bytes()


def test_w_and_b_still_has_the_setting_that_keeps_metadata_out():
    """Its name begins with W&B's mark for what may change."""
    import wandb

    assert "x_disable_meta" in wandb.Settings.model_fields


def test_w_and_b_still_has_a_switch_for_its_analytics():
    """It is not among the settings."""
    from wandb.analytics.opentelemetry import opentelemetry_proxy

    opentelemetry_proxy.disable()
    assert opentelemetry_proxy.get_open_telemetry_proxy() is None


def test_a_w_and_b_that_cannot_leave_metadata_out_is_not_logged_to(tmp_path, monkeypatch):
    monkeypatch.setattr("bclightning.tracking.logger._NO_METADATA", "x_renamed")
    with pytest.warns(TrackingWarning, match=r"has no setting x_renamed.*install an older wandb"):
        assert start(tmp_path, metadata=False) is None
    assert not list(tmp_path.rglob("*.wandb"))
