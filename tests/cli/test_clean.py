"""`bcl clean`: what is deleted is missed by no command, and what is needed stays."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bclightning.cli.main import main
from bclightning.runs.cleaning import removable, remove
from bclightning.runs.folder import LOCK
from bclightning.runs.record import RunRecord

RUN = Path("results/runs/digits/deterministic")


def said(capsys, *words):
    main(["clean", *words])
    return capsys.readouterr().out


def files(root="."):
    return sorted(str(path) for path in Path(root).rglob("*") if path.name != LOCK)


def apart(run=RUN):
    """Give a run a best checkpoint that is not its last."""
    best = run / "checkpoints/best.ckpt"
    content = best.read_bytes()
    best.unlink()
    best.write_bytes(content)


def change(run, **values):
    record = RunRecord.read(run / "run.json")
    for name, value in values.items():
        setattr(record, name, value)
    record.write(run / "run.json")


def test_nothing_is_deleted_until_it_is_asked_for(runs, capsys):
    apart()
    before = files()
    text = said(capsys)
    assert "last checkpoint of a finished run" in " ".join(text.split())
    assert "nothing is deleted without --delete" in text
    assert files() == before


@pytest.mark.slow
def test_what_uses_a_finished_run_works_after_cleaning(runs, capsys, tiny):
    """All of it, on one run."""
    for run in Path("results/runs/digits").iterdir():
        apart(run)
    before = files()
    text = said(capsys, "--delete")
    gone = {
        f"results/runs/digits/{run}/checkpoints/last.ckpt"
        for run in ("deterministic", "none", "stochastic")
    }
    assert {*before} - {*files()} == gone
    assert text.startswith("deleted: 3 entries, ")
    record = (RUN / "run.json").read_text()
    main(["test", str(RUN)])
    main(["validate", str(RUN)])
    main(["export", str(RUN), "--output", "m.safetensors"])
    main(["predict", str(RUN), "--output", "p.csv"])
    main(["reproduce", str(RUN), "--epochs", "1"])
    capsys.readouterr()
    main(["fit", "--resume", str(RUN)])
    assert "is finished, and stays as it is" in capsys.readouterr().out
    assert (RUN / "run.json").read_text() == record
    best = str(RUN / "checkpoints/best.ckpt")
    words = ["--warm_start", best, "--run_id", "more", "--model.network.regularizer"]
    main(["fit", "--config", tiny, *words, "deterministic"])
    assert Path("results/runs/digits/more/run.json").is_file()
    capsys.readouterr()
    assert said(capsys, str(RUN)).startswith("there is nothing to delete")


@pytest.mark.parametrize("status", ["running", "interrupted", "failed", "pruned"])
def test_an_unfinished_runs_checkpoints_stay(runs, status):
    apart()
    change(RUN, status=status)
    main(["clean", "--delete"])
    assert (RUN / "checkpoints/last.ckpt").is_file()


def test_a_run_without_a_best_epoch_keeps_its_last(runs):
    (RUN / "checkpoints/best.ckpt").unlink()
    main(["clean", "--delete"])
    assert (RUN / "checkpoints/last.ckpt").is_file()


def test_a_best_checkpoint_that_is_the_last_is_not_counted(runs, capsys):
    last, best = RUN / "checkpoints/last.ckpt", RUN / "checkpoints/best.ckpt"
    last.unlink()
    os.link(best, last)
    assert "nothing to delete" in said(capsys, str(RUN))


HOLD = """
import sys
from pathlib import Path
from bclightning.runs.folder import RunFolder
with RunFolder(Path(sys.argv[1])).lock():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_trained_is_left_alone(runs):
    apart()
    (RUN / ".run.json.abc.part").touch()
    words = [sys.executable, "-c", HOLD, str(RUN)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        before = files(RUN)
        main(["clean", "--delete"])
        assert files(RUN) == before
        holder.communicate("")
    main(["clean", "--delete"])
    assert not (RUN / ".run.json.abc.part").exists()


def test_a_run_that_changes_after_it_was_found_is_kept(runs):
    apart()
    (item,) = removable(RUN)
    change(RUN, status="running")
    assert not remove(item)
    assert item.path.exists()


def old(path, seconds=7200.0):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_killed_processes_left_behind_goes(folder):
    runs = folder / "results/runs"
    empty = runs / "digits/begun"
    (empty / "checkpoints").mkdir(parents=True)
    (empty / LOCK).touch()
    mine = runs / "digits/mine"
    mine.mkdir()
    (mine / LOCK).touch()
    (mine / "notes.txt").touch()
    young = runs / "digits/young"
    young.mkdir()
    (young / LOCK).touch()
    scratch = folder / ".export-abc"
    scratch.mkdir()
    (scratch / LOCK).touch()
    (scratch / "model.onnx").touch()
    (folder / ".export-of-mine").mkdir()
    (folder / ".export-of-mine" / "notes.txt").touch()
    for path in (empty, mine, folder / ".export-of-mine"):
        old(path)
    main(["clean", "--delete"])
    assert not empty.exists()
    assert not scratch.exists()
    assert (mine / "notes.txt").exists()
    assert young.exists()
    assert (folder / ".export-of-mine" / "notes.txt").exists()


def test_links_are_not_followed(runs, folder, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.move(RUN, elsewhere)
    apart(elsewhere)
    RUN.symlink_to(elsewhere, target_is_directory=True)
    other = Path("results/runs/digits/none")
    shutil.copytree(other / "checkpoints", tmp_path / "checkpoints")
    shutil.rmtree(other / "checkpoints")
    (other / "checkpoints").symlink_to(tmp_path / "checkpoints", target_is_directory=True)
    main(["clean", "--delete"])
    assert (elsewhere / "checkpoints/last.ckpt").exists()
    assert (tmp_path / "checkpoints/last.ckpt").exists()


def test_recorded_results_have_nothing_to_delete():
    assert removable(Path(__file__).parents[2] / "results") == []
