"""The command line: what is refused and how, and what starting costs."""

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch

from bclightning import __version__
from bclightning.cli.main import main
from bclightning.data import MNIST


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["tset"], "there is no command 'tset' (did you mean test?)"),
        (
            ["fit", "--config", "minst.yaml"],
            "no configuration file or recipe 'minst.yaml' (did you",
        ),
        (["fit", "--config", "zebra"], "the recipes are cifar10.yaml, digits.yaml, mnist.yaml"),
        (["fit"], "name a recipe or a file with --config"),
        (["fit", "TINY", "--trainer.max_epocs", "3"], "(did you mean --trainer.max_epochs?)"),
        (["fit", "TINY", "--model.learning_rat", "1"], "(did you mean --model.learning_rate?)"),
        (["fit", "TINY", "stray"], "there is no argument 'stray'"),
        (
            ["fit", "TINY", "--model.network.regularizr", "none"],
            "regularizr (did you mean --model.network.regularizer?)",
        ),
        (
            ["fit", "TINY", "--model.network.regularizer", "l2"],
            "'l2' is not one of 'none', 'dropout'",
        ),
        (["fit", "TINY", "--model.network.class_path", "no.Net"], "No module named 'no'"),
        (["fit", "TINY", "--data.batch_size", "0"], "batch_size must be at least 1, and is 0"),
        (["fit", "TINY", "--data.batch_size", "x"], "--data.batch_size: 'x' is not of type int"),
        (["fit", "TINY", "--data.batch_size", "5000"], "more than the 1197 training images"),
        (["fit", "TINY", "--model.end_factor", "0"], "end_factor must be a positive number"),
        (["fit", "TINY", "--model.learning_rate", "-1"], "must be a positive number, and is -1.0"),
        (["fit", "TINY", "--model.momentum", "1"], "momentum must lie in [0, 1), and is 1.0"),
        (["fit", "TINY", "--trainer.max_epochs", "0"], "--trainer.max_epochs must be at least 1"),
        (["fit", "TINY", "--trainer.accelerator", "tpu"], "torch_xla"),
        (["fit", "TINY", "--trainer.precision", "12"], "--trainer.precision"),
        (["fit", "TINY", "--run_id", "../elsewhere"], "must be 1 to 64 letters, digits, dots"),
        (["fit", "TINY", "--experiment", ".."], "must be 1 to 64 letters, digits, dots"),
        (["fit", "TINY", "--warm_start", "no.ckpt"], "there is no checkpoint no.ckpt"),
        (
            ["fit", "TINY", "--seed_everything", "false"],
            "--seed_everything: 'False' is not of type int",
        ),
        (
            ["fit", "TINY", "--seed_everything", "-1"],
            "must be an integer from 0 to 4294967295, and is -1",
        ),
        (["fit", "TINY", "--seed_everything", "4294967296"], "and is 4294967296"),
        (["fit", "--resume"], "--resume needs a value"),
        (["fit", "--resume", "nothere"], "there is no run 'nothere'"),
        (["test"], "bcl test RUN, or bcl test --config FILE --ckpt_path CHECKPOINT"),
        (["test", "--run", "nothere"], "there is no run 'nothere'"),
        (["test", "TINY", "--ckpt_path", "no.ckpt"], "there is no checkpoint no.ckpt"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(folder, tiny, refused, words, sentence):
    words = [part for word in words for part in (["--config", tiny] if word == "TINY" else [word])]
    assert sentence in refused(*words)
    assert not (folder / "results").exists()


def test_a_broken_yaml_file_is_one_sentence(folder, refused):
    (folder / "broken.yaml").write_text("trainer: [unclosed")
    assert "broken.yaml is not a readable YAML file: " in refused("fit", "--config", "broken.yaml")


def test_a_run_folder_that_exists_is_left_alone(folder, tiny, refused):
    existing = folder / "results" / "runs" / "digits" / "r"
    existing.mkdir(parents=True)
    (existing / "mine").write_text("mine")
    assert "exists; give another --run_id" in refused("fit", "--config", tiny, "--run_id", "r")
    assert [path.name for path in existing.iterdir()] == ["mine"]


def test_a_folder_of_runs_that_is_a_file(folder, tiny, refused):
    (folder / "runs").write_text("mine")
    for place in ("runs", "runs/deeper"):
        said = refused("fit", "--config", tiny, "--runs_dir", place, "--run_id", "r")
        assert f"{place}/digits/r cannot be made: Not a directory; give another --runs_dir" in said
    assert (folder / "runs").read_text() == "mine"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"not a checkpoint", "is not"),
        (b"", "is damaged or not a checkpoint"),
        ({"weights": torch.zeros(1)}, "it has no 'state_dict'"),
        ({"state_dict": {"network.other": torch.zeros(1)}}, "belongs to another network"),
        ({"state_dict": {}, "code": torch.nn.Linear(1, 1)}, "could execute code"),
    ],
)
@pytest.mark.parametrize("option", ["--warm_start", "--ckpt_path"])
def test_an_unreadable_or_foreign_checkpoint(folder, tiny, refused, content, sentence, option):
    if isinstance(content, bytes):
        (folder / "x.ckpt").write_bytes(content)
    else:
        torch.save(content, folder / "x.ckpt")
    command = "fit" if option == "--warm_start" else "test"
    assert sentence in refused(command, "--config", tiny, option, "x.ckpt")


def test_a_damaged_last_checkpoint_is_told_when_a_run_goes_on(folder, tiny, refused):
    main(["fit", "--config", tiny, "--run_id", "r"])
    last = folder / "results/runs/digits/r/checkpoints/last.ckpt"
    last.write_bytes(last.read_bytes()[:1000])
    record = folder / "results/runs/digits/r/run.json"
    record.write_text(record.read_text().replace('"status": "finished"', '"status": "running"'))
    assert "last.ckpt" in refused("fit", "--resume", "r")


def test_what_is_trained_cannot_change_when_a_run_goes_on(folder, tiny, refused):
    main(["fit", "--config", tiny, "--run_id", "r"])
    (folder / "more.yaml").write_text("trainer:\n  max_epochs: 9\n")
    for words in (["--trainer.max_epochs=9"], ["--config", "more.yaml"], ["-c", "more.yaml"]):
        said = refused("fit", "--resume", "r", *words)
        assert "--trainer.max_epochs cannot change when a run is resumed" in said


def test_a_loss_that_becomes_nan_says_when_and_what_to_try(folder, tiny, refused):
    said = refused("fit", "--config", tiny, "--run_id", "r", "--model.learning_rate", "1e30")
    assert "NaN or infinite in epoch 1; try a lower --model.learning_rate" in said
    # No checkpoint of broken weights is left.
    assert not list((folder / "results/runs/digits/r/checkpoints").iterdir())


def test_missing_data_without_a_network_says_where_it_goes(folder, refused, monkeypatch):
    from dataclasses import replace

    nowhere = tuple(replace(f, urls=("http://127.0.0.1:9/x",)) for f in MNIST.files)
    monkeypatch.setattr(MNIST, "files", nowhere)
    said = refused("fit", "--config", "mnist.yaml", "--data.root", "here")
    assert "here/MNIST/raw/train-images-idx3-ubyte.gz is missing" in said
    assert "--data.root DIR" in said
    assert not (folder / "results").exists()


def test_a_truncated_data_file_is_refused(folder, mnist_root, refused):
    path = mnist_root / MNIST.files[0].name
    path.write_bytes(path.read_bytes()[:-5])
    said = refused("fit", "--config", "mnist.yaml", "--data.root", str(mnist_root))
    assert "truncated" in said


@pytest.mark.parametrize("recipe", ["mnist", "cifar10", "svhn"])
def test_each_recipe_trains_on_small_files_of_its_kind(folder, request, recipe, monkeypatch):
    root = request.getfixturevalue(f"{recipe}_root")
    if recipe == "cifar10":
        from bclightning.functional.whitening import ZCA

        identity = ZCA(torch.zeros(3072), torch.eye(3072))
        monkeypatch.setattr(ZCA, "fit", lambda *_: identity)
    small = ["--model.network.width", "0.03"] if recipe != "mnist" else []
    where = ["--data.root", str(root), "--run_id", "r", "--wandb.mode", "disabled"]
    what = ["--trainer.max_epochs", "1", "--data.batch_size", "20", *small]
    main(["fit", "--config", recipe, *where, *what, "--model.network.regularizer", "stochastic"])
    assert (folder / "results" / "runs" / recipe / "r" / "checkpoints" / "best.ckpt").exists()


def run_python(code: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return process.stdout


@pytest.mark.parametrize("word", ["--help", "--version"])
def test_help_and_version_import_neither_torch_nor_lightning(word):
    code = (
        f"import sys; from bclightning.cli.main import main; main([{word!r}]);"
        "print(sorted({'torch', 'lightning', 'numpy', 'wandb'} & set(sys.modules)))"
    )
    lines = run_python(code).splitlines()
    assert lines[-1] == "[]"
    assert __version__ in lines[0] if word == "--version" else "usage: bcl COMMAND" in lines[0]


def test_help_of_fit_lists_what_users_of_lightning_expect(folder, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help"])
    assert stopped.value.code == 0
    said = capsys.readouterr().out
    for option in (
        "--config",
        "--resume",
        "--trainer.max_epochs",
        "--model.network",
        "--wandb.mode",
    ):
        assert option in said


def test_python_m_is_the_same_program():
    process = subprocess.run(
        [sys.executable, "-m", "bclightning", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == f"bcl {__version__}\n"


def test_with_sockets_blocked_every_command_works(folder, tiny, monkeypatch):
    import socket

    def blocked(*arguments, **keywords):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", blocked)
    main(["fit", "--config", tiny, "--run_id", "r"])
    for command in ("validate", "test", "predict"):
        main([command, "--run", "r"])


@pytest.mark.slow
def test_two_processes_train_one_network(folder, tiny):
    """Lightning starts the second process by running the command again."""
    words = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--run_id", "r"]
    process = subprocess.run(
        [sys.executable, "-m", "bclightning", "fit", "--config", tiny, *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.count("\nbest epoch ") == 1
    assert (folder / "results/runs/digits/r/metrics.csv").read_text().count("\n") == 4


@pytest.fixture
def ctrl_c():
    """Python's own answer to SIGINT, which a shell's background processes are made to ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("words", "at_work"),
    [
        (["test", "--config", "digits"], "cli.test.run"),
        (["export", "--config", "digits"], "cli.export.run"),
        (["predict", "--run", "r"], "cli.predict.run"),
        (["predict", "r.bcl", "--images", "a.png"], "cli.predict.run"),
        (["compare", "results/runs/digits"], "cli.compare.run"),
        (["summary", "digits"], "cli.summary.run"),
    ],
)
def test_ctrl_c_ends_what_has_nothing_to_go_on_with(ctrl_c, monkeypatch, capsys, words, at_work):
    monkeypatch.setattr(f"bclightning.{at_work}", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["sweep", "--help"]])
def test_a_reader_that_has_seen_enough_is_no_error(folder, words, unbuffered):
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [sys.executable, "-m", "bclightning", *words],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )
    os.close(writer)
    assert process.stderr == ""
    assert process.returncode in (0, 1)


def test_a_broken_pipe_of_another_kind_is_told(folder, monkeypatch):
    def broken(*_):
        raise BrokenPipeError

    monkeypatch.setattr("bclightning.cli.summary.run", broken)
    with pytest.raises(BrokenPipeError):
        main(["summary", "digits"])


def test_a_full_disk_that_no_writer_of_ours_met_is_one_sentence_too(
    folder, tiny, refused, monkeypatch
):
    from pathlib import Path

    def full(self, *arguments, **keywords):
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "mkdir", full)
    assert "the disk is full" in refused("fit", "--config", tiny, "--run_id", "r")


def test_a_full_disk_where_no_writer_of_ours_met_it_promises_nothing(folder, refused, monkeypatch):
    """What became of the file is not known there."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "results/\x1b[2J")

    monkeypatch.setattr("bclightning.cli.compare.gather", full)
    assert refused("compare", "results") == (
        r"the disk is full: results/\x1b[2J was not written; free some space and start again"
    )
