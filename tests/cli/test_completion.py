"""Tab completion, in a real shell."""

import subprocess

import pytest

from bclightning.cli.main import COMMANDS, main


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "bcl"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda text="", *_, **__: lines.append(text))
        main(["completion", "bash"])
    path.write_text("\n".join(lines))
    return path


def completed(script, *words: str) -> set[str]:
    """What bash offers for the last of the words after bcl."""
    typed = " ".join(f"'{word}'" for word in ("bcl", *words))
    code = (
        f"source {script}; COMP_WORDS=({typed}); COMP_CWORD={len(words)}; "
        "$(complete -p bcl | sed 's/.*-F \\([^ ]*\\).*/\\1/') 2>/dev/null; "
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
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


def test_values_are_completed(script):
    offered = completed(script, "fit", "--model.network.regularizer", "")
    assert offered >= {"none", "dropout", "deterministic", "stochastic"}


def test_an_unknown_shell_is_refused(refused):
    assert "invalid choice: 'dos'" in refused("completion", "dos")
