"""The command line: what is refused and how, and what starting costs."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

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
            "--seed_everything: 'false' is not of type int",
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
    assert (
        folder / "results" / "runs" / f"{recipe}-fit" / "r" / "checkpoints" / "best.ckpt"
    ).exists()


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


def test_a_reader_that_has_seen_enough_is_no_error_where_pipes_cannot_be_polled(folder):
    """As on Windows."""
    reader, writer = os.pipe()
    os.close(reader)
    code = "import select; del select.poll; from bclightning.cli.main import main; main(['--help'])"
    process = subprocess.run(
        [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert process.stderr == ""


def test_a_broken_pipe_of_another_kind_is_told(folder, monkeypatch):
    def broken(*_):
        raise BrokenPipeError

    monkeypatch.setattr("bclightning.cli.summary.run", broken)
    with pytest.raises(BrokenPipeError):
        main(["summary", "digits"])


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["fit", "--config", "TINY", "--runs_dir", LONG, "--run_id", "r"], "File name too long"),
        (["fit", "--config", LONG], "File name too long"),
        (["test", LONG], "there is no run 'xxx"),
        (["predict", LONG], "File name too long"),
        (["summary", LONG], "there is no run 'xxx"),
        (["compare", LONG], "File name too long"),
        (["sweep", LONG], "File name too long"),
    ],
)
def test_a_name_that_is_too_long_for_the_file_system_is_one_sentence(
    folder, tiny, refused, words, sentence
):
    assert sentence in refused(*(tiny if word == "TINY" else word for word in words))


def test_a_folder_that_cannot_be_written_is_one_sentence(folder, tiny, refused, monkeypatch):
    """Root may write everywhere, so the file system's answer is simulated."""

    def read_only(self, *arguments, **keywords):
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert "cannot be made: Read-only file system" in refused("fit", "--config", tiny)
    monkeypatch.setattr("bclightning.cli.summary.run", lambda _: Path("here").mkdir())
    assert refused("summary", "digits") == "here cannot be used: Read-only file system"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    ],
)
def test_no_memory_left_is_one_sentence(folder, refused, monkeypatch, error):
    def run(_):
        raise error

    monkeypatch.setattr("bclightning.cli.summary.run", run)
    assert "the machine has no memory left" in refused("summary", "digits")


def test_another_error_of_the_program_keeps_its_traceback(folder, monkeypatch):
    def run(_):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr("bclightning.cli.summary.run", run)
    with pytest.raises(RuntimeError, match="shapes differ"):
        main(["summary", "digits"])


@pytest.mark.parametrize("closed", [(1,), (1, 2)])
def test_closed_streams_are_no_error(tmp_path, closed):
    code = (
        f"import os; [os.close(fd) for fd in {closed}];"
        f"os.execv({sys.executable!r}, ['python', '-m', 'bclightning', '--help'])"
    )
    process = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (0, "")


def test_a_file_of_ours_is_not_written_to_by_who_prints_to_a_closed_stream(tmp_path):
    """The system gives the lowest free descriptor, which a closed stream's would be."""
    code = (
        "import os, sys; os.close(1); sys.stdout = None;"
        "from bclightning.cli.streams import usable_streams\n"
        "with usable_streams():\n"
        "    assert os.open('mine', os.O_CREAT | os.O_WRONLY) > 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "cp1252"])
def test_any_text_can_be_printed_in_any_encoding(tmp_path, encoding):
    code = (
        "from bclightning.cli import completion, main\n"
        "from bclightning.errors import UserError\n"
        "def run(_):\n"
        "    print('2.17 \u00b1 0.24 \u2502 n\\udcffme')\n"
        "    raise UserError('n\\udcffme')\n"
        "completion.run = run\n"
        "main.main(['completion', 'bash'])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )
    assert process.stderr == rf"bcl: n\udcffme{os.linesep}".encode()
    assert process.stdout.startswith(b"2.17 ")
    assert process.stdout.rstrip().endswith(rb"n\udcffme")
    assert process.returncode == 2


def test_the_current_folder_is_put_on_the_path_once(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("bclightning.cli.summary.run", lambda _: 0)
    for _ in range(3):
        main(["summary", "digits"])
    assert sys.path.count(str(folder)) == 1


@pytest.fixture
def own_path(folder, monkeypatch):
    """A folder with a module that has the name of an installed one, and one that has not."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(folder))])
    installed = {
        name: sys.modules.pop(name) for name in ("own_net", "shtab") if name in sys.modules
    }
    for name in ("own_net", "shtab"):
        (folder / f"{name}.py").write_text(
            "from torch import nn\n\nclass Net(nn.Flatten):\n"
            "    def __init__(self): super().__init__()\n"
        )
    (folder / "own.yaml").write_text("model: {network: {class_path: shtab.Net}}\n")
    yield folder
    for name in ("own_net", "shtab"):
        sys.modules.pop(name, None)
    sys.modules.update(installed)


def test_a_module_beside_the_configuration_comes_before_an_installed_one(own_path, capsys):
    """As with ``python``; the installed shtab has no Net."""
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", "digits.yaml", "--config", "own.yaml", "--print_config"])
    assert stopped.value.code == 0
    assert "class_path: shtab.Net" in capsys.readouterr().out
    assert sys.path[0] == str(own_path)


@pytest.mark.parametrize("words", [["--trainer.max_epochs", "1"], ["--seed_everything", "1"]])
def test_where_no_module_of_the_folder_is_named_libraries_come_first(own_path, capsys, words):
    """A folder that was sent may hold a module with the name of a library."""
    with pytest.raises(SystemExit):
        main(["fit", "--config", "digits.yaml", *words, "--print_config"])
    assert sys.path[-1] == str(own_path)


def test_an_option_may_name_a_module_of_the_folder(own_path, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "digits.yaml", "--model.network", "own_net.Net", "--print_config"])
    assert "class_path: own_net.Net" in capsys.readouterr().out
    assert sys.path[0] == str(own_path)


def test_a_path_below_home_is_expanded_wherever_it_is_given(folder, tiny, monkeypatch):
    home = folder.parent / "home"
    (home / "configs").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    (home / "configs" / "mine.yaml").write_text(
        f"{Path(tiny).read_text()}\nruns_dir: ~/runs\nrun_id: r\n"
    )
    main(["fit", "--config=~/configs/mine.yaml", "--data.root=~/data", "--trainer.max_epochs=1"])
    assert (home / "runs/digits/r/run.json").exists()
    assert f"root: {home}/data" in (home / "runs/digits/r/config.yaml").read_text()
    main(["predict", "~/runs/digits/r", "--output=~/scores.csv"])
    assert (home / "scores.csv").exists()
    main(["compare", "~/runs/digits", "--write=~/page"])
    assert (home / "page" / "README.md").exists()
    assert not list(folder.glob("**/~*"))


def test_a_full_disk_that_no_writer_of_ours_met_is_one_sentence_too(
    folder, tiny, refused, monkeypatch
):
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
