"""One process at a time on a run: who comes later waits or is refused, and nothing is mixed."""

import errno
import json
import os
import shutil
from pathlib import Path

import filelock
import pytest
import yaml
from processes import CONTEXT, code_of, start

from bclightning.cli.main import main
from bclightning.runs.callbacks import SeedEachEpoch
from bclightning.runs.config import RunConfig
from bclightning.runs.folder import RunFolder
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.record import RunRecord
from bclightning.storage import DiskFullError

RUNS = Path("results/runs/digits")


def metrics_of_seed(tiny, seed: int) -> bytes:
    """The metrics of a run that nothing disturbed."""
    name = f"alone-{seed}"
    main(["fit", "--config", tiny, "--run_id", name, "--seed_everything", str(seed)])
    return (RUNS / name / "metrics.csv").read_bytes()


def assert_is_one_run(run: Path, tiny: str) -> None:
    record = RunRecord.read(run / "run.json")
    assert record.status == "finished"
    assert yaml.safe_load((run / "config.yaml").read_text())["seed_everything"] == record.seed
    assert (run / "metrics.csv").read_bytes() == metrics_of_seed(tiny, record.seed)


def test_a_run_id_that_another_process_is_about_to_claim_is_refused(
    folder, tiny, monkeypatch, refused
):
    """The second comes when the first one's folder is there, and its configuration is not."""
    monkeypatch.setattr("bclightning.runs.folder.LOCK_TIMEOUT_SECONDS", 0.1)
    words = ["fit", "--config", tiny, "--run_id", "x", "--seed_everything"]
    real, said = RunConfig.write, []

    def write(self, path):
        if not said:
            said.append("")
            said[0] = refused(*words, "2")
        real(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(RunConfig, "write", write)
        main([*words, "1"])
    assert "is being trained by another process" in said[0]
    assert_is_one_run(RUNS / "x", tiny)


@pytest.mark.slow
def test_of_processes_that_claim_one_run_id_at_once_one_trains(folder, tiny):
    for attempt in range(8):
        barrier = CONTEXT.Barrier(3)
        words = ["fit", "--config", tiny, "--run_id", f"x{attempt}", "--seed_everything"]
        commands = [start([*words, str(seed)], barrier) for seed in range(3)]
        assert sorted(code_of(command) for command in commands) == [0, 2, 2]
        assert_is_one_run(RUNS / f"x{attempt}", tiny)
        for seed in range(3):
            shutil.rmtree(RUNS / f"alone-{seed}", ignore_errors=True)


def stop_after(epochs: int, *words: str) -> None:
    """Let a command line vanish, as if killed, once some epochs are kept."""

    class Vanished(BaseException):
        pass

    def vanish(self, trainer, *_):
        if trainer.current_epoch >= epochs:
            raise Vanished

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SeedEachEpoch, "on_train_epoch_start", vanish)
        patch.setattr("bclightning.runs.run._Run._end", lambda *_: None)
        with pytest.raises(Vanished):
            main(list(words))


def test_what_another_process_trained_before_it_died_is_not_lost(folder, tiny, monkeypatch):
    """A run is resumed; until its lock is free another process trains, and is then killed."""
    stop_after(1, "fit", "--config", tiny, "--run_id", "x", "--trainer.max_epochs", "4")
    real, waiting = RunFolder.lock, [True]

    def lock(self, *arguments):
        if waiting:
            waiting.clear()
            stop_after(3, "fit", "--resume", "x")
        return real(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "lock", lock)
        main(["fit", "--resume", "x"])
    assert [row["epoch"] for row in MetricsTable(RUNS / "x/metrics.csv").rows] == [0, 1, 2, 3]


def test_a_run_that_another_process_finished_meanwhile_stays_as_it_is(
    folder, tiny, monkeypatch, capsys
):
    stop_after(1, "fit", "--config", tiny, "--run_id", "x")
    real, waiting = RunFolder.lock, [True]

    def lock(self, *arguments):
        if waiting:
            waiting.clear()
            main(["fit", "--resume", "x"])
            capsys.readouterr()
        return real(self, *arguments)

    monkeypatch.setattr(RunFolder, "lock", lock)
    main(["fit", "--resume", "x"])
    assert "the run results/runs/digits/x is finished" in capsys.readouterr().out


@pytest.mark.slow
def test_of_processes_that_resume_one_run_at_once_one_trains(folder, tiny):
    for attempt in range(6):
        name = f"x{attempt}"
        stop_after(1, "fit", "--config", tiny, "--run_id", name)
        barrier = CONTEXT.Barrier(3)
        commands = [start(["fit", "--resume", name], barrier) for _ in range(3)]
        # Who waits until the run is finished shows it; who waits too long is refused.
        codes = sorted(code_of(command) for command in commands)
        assert codes[0] == 0
        assert set(codes) <= {0, 2}
        assert (RUNS / name / "metrics.csv").read_bytes() == metrics_of_seed(tiny, 0)
        shutil.rmtree(RUNS / "alone-0")


@pytest.mark.parametrize("way", ["dot", "link", "moved", "parents", "no names", "parent's dots"])
def test_a_run_keeps_its_names_however_it_is_resumed(folder, tiny, way, monkeypatch):
    stop_after(1, "fit", "--config", tiny, "--run_id", "x", "--experiment", "mine")
    run, name = Path("results/runs/mine/x").absolute(), "x"
    if way == "dot":
        monkeypatch.chdir(run)
        name = "."
    elif way == "parent's dots":
        monkeypatch.chdir(run / "checkpoints")
        name = ".."
    elif way == "link":
        Path("another name").symlink_to(run)
        name = "another name"
    elif way == "moved":
        (folder / "my runs").mkdir()
        run = run.rename(folder / "my runs" / "been moved")
        name = str(run)
    elif way == "parents":
        name = "results/../results/runs/mine/x/"
    else:
        text = (run / "config.yaml").read_text()
        text = text.replace("run_id: x", "run_id: null")
        (run / "config.yaml").write_text(text.replace("experiment: mine", "experiment: null"))
        name = str(run)
    main(["fit", "--resume", name])
    record = RunRecord.read(run / "run.json")
    assert (record.run_id, record.experiment, record.status) == ("x", "mine", "finished")
    main(["fit", "--resume", name])


def test_a_record_that_could_not_be_read_again_is_never_written(folder, tiny, refused):
    stop_after(1, "fit", "--config", tiny, "--run_id", "x")
    config = RUNS / "x/config.yaml"
    config.write_text(config.read_text().replace("run_id: x", "run_id: a b"))
    before = (RUNS / "x/run.json").read_bytes()
    assert "'a b' must be 1 to 64 letters" in refused("fit", "--resume", "x")
    assert (RUNS / "x/run.json").read_bytes() == before


@pytest.mark.parametrize("left", ["folders", "lock", "temporary file"])
def test_a_run_killed_before_it_had_a_configuration_begins_again(folder, tiny, left):
    run = RUNS / "x"
    (run / "checkpoints").mkdir(parents=True)
    if left != "folders":
        (run / ".lock").touch()
    if left == "temporary file":
        (run / ".config.yaml.k3j4.part").write_text("seed_every")
    main(["fit", "--config", tiny, "--run_id", "x"])
    assert RunRecord.read(run / "run.json").status == "finished"
    assert not list(run.glob(".*.part"))


def test_a_folder_with_files_that_are_not_a_runs_is_left_alone(folder, tiny, refused):
    (RUNS / "x").mkdir(parents=True)
    (RUNS / "x/notes.txt").write_text("mine")
    said = refused("fit", "--config", tiny, "--run_id", "x")
    assert "notes.txt" in said
    assert "--resume" not in said
    assert os.listdir(RUNS / "x") == ["notes.txt"]


@pytest.mark.parametrize("status", ["running", "finished"])
def test_a_run_where_nobody_may_write_is_refused_unless_it_is_finished(
    folder, tiny, refused, monkeypatch, status, capsys
):
    main(["fit", "--config", tiny, "--run_id", "x"])
    record = json.loads((RUNS / "x/run.json").read_text())
    (RUNS / "x/run.json").write_text(json.dumps({**record, "status": status}))

    def readonly(self, *_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("filelock.FileLock.acquire", readonly)
    if status == "finished":
        main(["fit", "--resume", "x"])
        assert "is finished" in capsys.readouterr().out
    else:
        assert "Read-only file system" in refused("fit", "--resume", "x")


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "a\0b"])
def test_a_name_that_no_folder_can_have_is_one_sentence(folder, tiny, refused, name):
    assert "there is no run" in refused("fit", "--resume", name)
    if "\0" not in name:
        assert "cannot" in refused("fit", "--config", tiny, "--runs_dir", name)


def test_a_lock_that_finds_a_full_disk_says_so(tmp_path, monkeypatch):
    def full(self, *arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(filelock.FileLock, "acquire", full)
    with (
        pytest.raises(DiskFullError, match=f"the disk is full: {tmp_path}"),
        RunFolder(tmp_path).lock(),
    ):
        pass
