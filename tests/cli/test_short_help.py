"""Help on one screen: short, true, and before torch is imported."""

import importlib
import subprocess
import sys

import pytest

from bclightning.cli.command_line import read_settings, take_apart
from bclightning.cli.main import COMMANDS, main, make_parser
from bclightning.cli.short_help import shown_options
from bclightning.runs.config import parse_words
from bclightning.runs.signatures import REQUIRED, UNKNOWN

CONFIGURED = [name for name, command in COMMANDS.items() if command.configures]


def said(capsys, *words):
    main(list(words))
    return capsys.readouterr().out


@pytest.mark.parametrize("name", CONFIGURED)
def test_help_fits_a_screen_of_80_columns(capsys, name):
    lines = said(capsys, name, "--help").splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= (64 if name == "fit" else 40)


def test_help_of_fit_has_what_people_set(capsys):
    text = said(capsys, "fit", "--help")
    beside = " ".join(text.partition("--model.network.regularizer ")[2].split())
    assert beside.startswith(
        "What regularizes the network: none, dropout, deterministic, stochastic. [deterministic]"
    )
    for option in ("--config", "--resume", "--trainer.max_epochs", "--wandb.mode", "--data.root"):
        assert f"{option} " in text
    assert said(capsys, "fit", "-h") == text


@pytest.mark.parametrize("name", CONFIGURED)
def test_what_is_shown_is_the_parsers(name):
    """Each option exists, with the default that the parser has; a recipe's values are its own."""
    parser = make_parser(name, importlib.import_module(f"bclightning.cli.{name}"))
    words = ["--config", "digits.yaml"]
    line = take_apart(words)
    if name == "reproduce":
        parser.set_defaults({"data": {"class_path": "bclightning.data.MNIST"}})
        values = parser.get_defaults()
    else:
        values = parse_words(parser, words)
    read_settings(line, None)
    shown = shown_options(name, COMMANDS[name].own, line)
    assert len(shown) >= (25 if name == "fit" else 3)
    for option, value in shown.items():
        if name == "reproduce" and "." in option:
            continue
        actual = values
        for part in option.split("."):
            if part not in actual:
                actual = actual["init_args"]
            actual = actual[part]
        if value not in (REQUIRED, UNKNOWN) and option not in ("data", "model"):
            assert actual == value, option


def test_all_options_are_a_word_away(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--help=all"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert len(text.splitlines()) > 300
    assert "--trainer.accumulate_grad_batches" in text


def test_help_of_the_network_is_that_of_the_recipes(capsys, refused):
    text = said(capsys, "fit", "--config", "digits.yaml", "--model.network.help")
    assert text.startswith("bclightning.models.MLP: ")
    assert "--model.network.hidden      Width of each hidden layer. [256,256]" in text
    text = said(capsys, "fit", "--config", "svhn.yaml", "--model.network.help")
    assert "--model.network.width" in text
    named = said(capsys, "fit", "--model.network.help", "bclightning.models.ConvNet")
    assert "--model.network.channels" in named
    assert "bcl fit --config mnist.yaml --model.network.help" in refused(
        "fit", "--model.network.help"
    )


def test_help_of_a_network_of_your_own(folder, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "own_net", raising=False)
    (folder / "own_net.py").write_text(
        'class Net:\n    """A net.\n\n    Args:\n        depth: How deep.\n    """\n\n'
        "    def __init__(self, depth: int = 3) -> None:\n        raise SystemExit(5)\n"
    )
    (folder / "own.yaml").write_text(
        "model: {network: {class_path: own_net.Net, init_args: {depth: 4}}}\n"
    )
    text = said(capsys, "fit", "--config", "own.yaml", "--model.network.help")
    assert "--model.network.depth       How deep. [4]" in text
    assert "own_net" not in sys.modules
    # A module of that name in another folder is another one.
    (folder / "inner").mkdir()
    (folder / "inner" / "own_net.py").write_text(
        "class Net:\n    def __init__(self, wide=1): ...\n"
    )
    monkeypatch.chdir(folder / "inner")
    words = ["--model.network", "own_net.Net", "--model.network.help"]
    assert "--model.network.wide" in said(capsys, "fit", *words)


@pytest.mark.parametrize("group", ["data", "trainer", "wandb", "model"])
def test_help_of_the_other_groups(capsys, group):
    text = said(capsys, "fit", "--config", "digits.yaml", f"--{group}.help")
    assert text.count(f"\n  --{group}.") >= 4


def test_help_does_not_wait_for_torch(folder):
    code = (
        "import sys\nfrom bclightning.cli.main import COMMANDS, main\n"
        "for words in [*[[name, '--help'] for name in COMMANDS if name != 'completion'], "
        "['fit', '--config', 'mnist.yaml', '--model.network.help']]:\n"
        "    try:\n        main(words)\n    except SystemExit as stopped:\n"
        "        assert not stopped.code\n"
        "    assert not {'torch', 'lightning'} & set(sys.modules), words\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
