"""Offline runs lie together, and one command uploads them all."""

from pathlib import Path

import pytest
from stopped_runs import stop_in_the_second_epoch
from wandb_server import Server

from bclightning.cli.main import main
from bclightning.tracking.folders import how_to_look, offline_runs

RUNS = Path("results/runs")


@pytest.fixture
def server(online):
    server = Server()
    online(server.url)
    yield server
    server.stop()


def fit(tiny, run_id, *words) -> None:
    main(["fit", "--config", tiny, "--run_id", run_id, "--wandb.mode=offline", *words])


def test_runs_of_an_experiment_lie_in_one_folder_and_one_command_uploads_them(
    folder, tiny, server, capsys
):
    short = "--trainer.max_epochs=2"
    fit(tiny, "a", short)
    options = ["--config", tiny, "--run_id", "b", "--wandb.mode=offline"]
    stop_in_the_second_epoch("fit", *options)
    main(["fit", "--resume", "b"])
    said = capsys.readouterr().out
    # Where leet lays them over one another.
    parts = [path.parent for path in offline_runs(RUNS)]
    assert {path.parent for path in parts} == {RUNS / "digits" / "wandb"}
    assert [next(path.glob("*.wandb")).name for path in parts] == [
        "run-a.wandb",
        "run-b.wandb",
        "run-b.wandb",
    ]
    assert "\nwandb leet results/runs/digits/wandb\n" in said
    assert "\nbcl sync results/runs/digits\n" in said
    # As older runs have them.
    old = RUNS / "digits" / "a" / "wandb"
    old.mkdir()
    parts[0].rename(old / parts[0].name)
    assert server.runs == {}
    main(["sync"])
    assert set(server.runs) == {"a", "b"}
    for run_id, epochs in (("a", 2), ("b", 3)):
        rows = [row for row in server.runs[run_id]["history"] if "val/error_pct" in row]
        assert [row["_epoch"] for row in rows] == list(range(1, epochs + 1))
        steps = [row["_step"] for row in rows]
        assert len(set(steps)) == epochs
        assert steps == sorted(steps)
        # What the best epoch takes for what, with images.
        summary = server.runs[run_id]["summary"]
        assert summary["wrong/most_confident"]["nrows"] == 16
        assert summary["wrong/confusion_matrix_table"]["nrows"] == 100
        # What stands for the run is the terminal's.
        assert f"best epoch  {summary['best/epoch']} of {epochs}" in said
    capsys.readouterr()
    main(["sync", "results/runs/digits"])
    assert "nothing to upload in results/runs/digits: all 3 are uploaded" in capsys.readouterr().out


def test_what_cannot_be_uploaded_is_one_sentence(folder, refused, monkeypatch, server, capsys):
    assert refused("sync").startswith("there is no folder results/runs; give the folder of runs")
    RUNS.mkdir(parents=True)
    main(["sync"])
    assert "none was logged offline" in capsys.readouterr().out
    file = RUNS / "digits/wandb/offline-run-1-a/run-a.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"not a log")
    assert refused("sync").startswith("1 of 1 runs were not uploaded; what W&B said is above")
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("HOME", str(folder))
    assert "W&B needs an API key" in refused("sync", "results/runs/digits")


def test_the_name_of_w_and_bs_folder_is_no_runs(folder, tiny, refused):
    said = refused("fit", "--config", tiny, "--run_id", "wandb")
    assert said == ("--run_id wandb is where an experiment keeps W&B's files; give another name")


def test_what_to_type_next(tmp_path):
    run = tmp_path / "digits" / "a"
    (run / "wandb").mkdir(parents=True)
    assert how_to_look(run, "online") == [f"wandb leet {run}/wandb"]
    (run.parent / "wandb").mkdir()
    assert how_to_look(run, "online") == [f"wandb leet {run.parent}/wandb"]
