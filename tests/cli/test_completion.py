"""Tab completion, in a real shell."""

import importlib
import subprocess

import pytest

from bclightning.cli.main import COMMANDS, main, make_parser
from bclightning.runs.config import option_names


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "bcl"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda text="", *_, **__: lines.append(text))
        main(["completion", "bash"])
    path.write_text("\n".join(lines))
    return path


def completed(script, *words: str, cwd=None) -> set[str]:
    """What bash offers for the last of the words after bcl."""
    typed = " ".join(f"'{word}'" for word in ("bcl", *words))
    code = (
        f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; "
        "$(complete -p bcl | sed 's/.*-F \\([^ ]*\\).*/\\1/') 2>/dev/null; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=cwd)
    return {line.strip() for line in done.stdout.splitlines() if line.strip()}


def test_commands_are_completed(script):
    assert completed(script, "") >= set(COMMANDS)
    assert completed(script, "rep") == {"reproduce"}


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (("fit", "--trainer.max_ep"), "--trainer.max_epochs"),
        (("fit", "--model.network.reg"), "--model.network.regularizer"),
        (("fit", "--res"), "--resume"),
        (("test", "--eval"), "--eval_weights"),
        (("sweep", "--jo"), "--jobs"),
        (("compare", "--wri"), "--write"),
    ],
)
def test_options_are_completed(script, words, option):
    assert completed(script, *words) == {option}


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("--model.network.regularizer", {"none", "dropout", "deterministic", "stochastic"}),
        ("--model.optimizer", {"adam", "sgd", "nesterov"}),
        ("--wandb.mode", {"online", "offline", "disabled"}),
        ("--trainer.precision", {"16-mixed", "bf16-mixed", "32-true"}),
        ("--data", {"bclightning.data.MNIST", "bclightning.data.CIFAR10"}),
        ("--config", {"digits.yaml", "mnist.yaml"}),
    ],
)
def test_values_are_completed(script, option, values):
    assert completed(script, "fit", option, "") >= values


def test_runs_are_completed_by_id_and_by_folder(script, tmp_path):
    for experiment, run in (("digits", "digits-none-s1"), ("mnist", "mnist-none-s1")):
        (tmp_path / "results/runs" / experiment / run).mkdir(parents=True)
        (tmp_path / "results/runs" / experiment / run / "config.yaml").touch()
    for words in (("fit", "--resume"), ("test",), ("export", "--run"), ("reproduce",)):
        assert completed(script, *words, "dig", cwd=tmp_path) == {"digits-none-s1"}
    assert completed(script, "predict", "mn", cwd=tmp_path) == {"mnist-none-s1"}
    typed = "results/runs/digits/"
    assert completed(script, "test", typed, cwd=tmp_path) == {f"{typed}digits-none-s1"}
    # Outside of a project there are folders alone.
    (tmp_path / "elsewhere" / "inner").mkdir(parents=True)
    assert completed(script, "test", "i", cwd=tmp_path / "elsewhere") == {"inner"}


def test_files_are_completed_beside_recipes_and_sweeps(script, tmp_path):
    (tmp_path / "digits_of_mine.yaml").touch()
    assert completed(script, "fit", "-c", "digits", cwd=tmp_path) == {
        "digits.yaml",
        "digits_of_mine.yaml",
    }
    assert completed(script, "summary", "digits.", cwd=tmp_path) == {"digits.yaml"}
    assert "digits" in completed(script, "sweep", "dig", cwd=tmp_path)


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if command.configures])
def test_every_option_of_the_parser_is_offered(script, name):
    """They are read without the parser, which waits for torch."""
    parser = make_parser(name, importlib.import_module(f"bclightning.cli.{name}"))
    offered = completed(script, name, "--")
    names = {option.replace(".init_args", "") for option in option_names(parser)}
    assert offered >= names - {"--run", "--model.class_path"}
    assert ("--resume" in offered) == (name == "fit")


@pytest.mark.parametrize("shell", ["zsh", "fish", "tcsh", "powershell"])
def test_other_shells_have_a_script_too(capsys, shell):
    main(["completion", shell])
    assert "bcl" in capsys.readouterr().out


def test_an_unknown_shell_is_refused(refused):
    assert "invalid choice: 'dos'" in refused("completion", "dos")
