"""`bcl list`: runs as their files describe them, in tables of 80 columns, as CSV and as JSON."""

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from bclightning.cli.main import main
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord


def make(folder, run_id, experiment="digits", metrics="", **values):
    place = folder / "results/runs" / experiment / run_id
    (place / "checkpoints").mkdir(parents=True)
    (place / "config.yaml").write_text("seed_everything: 0\n")
    (place / "metrics.csv").write_text(metrics)
    ended = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
    record = RunRecord(run_id, experiment, "none", "digits", 1, finished=ended, epochs=3, **values)
    record.write(place / "run.json")
    return place


THREE = "epoch,val/error\n0,5.0\n1,2.5\n2,3.0\n"


@pytest.fixture
def listed(folder, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = {"weights": "binary", "batch_norm": "as trained", "value": 2.25}
    done = make(
        folder,
        "digits-none-s1-20261125-140042-d011",
        metrics=THREE,
        status="finished",
        best_score=2.5,
        test=[result],
        evaluation={"weights": "binary", "batch_norm": "as trained"},
    )
    (done / "checkpoints/last.ckpt").write_bytes(bytes(3_000_000))
    (done / "checkpoints/best.ckpt").hardlink_to(done / "checkpoints/last.ckpt")
    make(folder, "digits-none-s2", metrics="epoch,val/error\n0,4.0\n", status="running")
    make(folder, "digits-none-s3", metrics="epoch,val/error\n0,6.0\n", status="interrupted")
    broken = make(folder, "digits-none-s4")
    (broken / "run.json").write_text("{")
    make(folder, "mnist-none-s1", "mnist", status="failed")
    return folder


def said(capsys, *words):
    main(["list", *words])
    return capsys.readouterr().out


def test_runs_are_listed_on_80_columns_without_a_cut(listed, capsys):
    text = said(capsys)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in text
    (row,) = [line.split() for line in lines if "2.50 %" in line]
    assert row[1:] == ["2.50", "%", "2.25", "%", "finished", "3", "3.00", "MB", "2", "h"]
    assert "results/runs/digits" in text
    assert "results/runs/mnist" in text
    assert lines[-1] == "5 runs, 3.00 MB; bcl clean shows what can be deleted"


def test_states_are_what_is_true_now(listed, capsys):
    """A run that says that it is running, and has no process, was killed."""
    runs = {one["run"]: one for one in json.loads(said(capsys, "--format", "json"))}
    assert [one["state"] for one in runs.values()] == [
        "finished",
        "killed",
        "interrupted",
        "unreadable",
        "failed",
    ]
    assert runs["digits-none-s2"]["validation"] == 4.0
    assert (runs["digits-none-s2"]["epochs_done"], runs["digits-none-s2"]["epochs"]) == (1, 3)
    with RunFolder(listed / "results/runs/digits/digits-none-s2").lock():
        runs = {one["run"]: one for one in json.loads(said(capsys, "--format", "json"))}
    assert runs["digits-none-s2"]["state"] == "running"


@pytest.mark.parametrize(
    ("words", "first"),
    [
        (["--sort", "run"], "digits-none-s1-20261125-140042-d011"),
        (["--sort", "run", "--reverse"], "mnist-none-s1"),
        (["--sort", "validation"], "digits-none-s1-20261125-140042-d011"),
        (["--sort", "test"], "digits-none-s1-20261125-140042-d011"),
        (["--sort", "size"], "digits-none-s1-20261125-140042-d011"),
        (["--sort", "state"], "mnist-none-s1"),
        (["--sort", "epochs", "--reverse"], "digits-none-s1-20261125-140042-d011"),
    ],
)
def test_runs_are_sorted(listed, capsys, words, first):
    rows = list(csv.DictReader(io.StringIO(said(capsys, "--format", "csv", *words))))
    assert len(rows) == 5
    assert rows[0]["run"] == first


def test_a_folder_and_a_single_run_may_be_named(listed, capsys):
    assert "1 run, " in said(capsys, "results/runs/mnist")
    assert "1 run, " in said(capsys, "results/runs/digits/digits-none-s3")
    assert "4 runs, " in said(capsys, "results/runs/digits/")
    (listed / "nothing").mkdir()
    assert said(capsys, "nothing").strip() == "there are no runs in nothing"


def test_what_a_record_holds_is_shown_as_text(folder, capsys):
    make(folder, "r", arm="[bold]\x1b[2Jx", status="finished")
    text = said(capsys)
    assert "\x1b[2J" not in text
    assert "[bold]" in "".join(text.split())
    assert "\x1b" not in said(capsys, "--format", "csv")


def test_listing_does_not_wait_for_torch(listed):
    code = (
        "import sys\nfrom bclightning.cli.main import main\nmain(['list'])\nmain(['clean'])\n"
        "assert not {'torch', 'lightning'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
