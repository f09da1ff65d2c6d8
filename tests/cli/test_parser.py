"""Old spellings of options, which still work and say what they are called now."""

import pytest

from bclightning.cli.parser import RENAMED, Arguments, with_current_names
from bclightning.errors import UserError


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
@pytest.mark.parametrize("joined", [True, False])
def test_an_old_spelling_is_replaced_and_said_once(capsys, old, new, joined):
    words = [f"{old}=a", f"{old}=b"] if joined else [old, "a", old, "b"]
    current = [f"{new}=a", f"{new}=b"] if joined else [new, "a", new, "b"]
    assert with_current_names(words) == current
    assert capsys.readouterr().err == f"bcl: {old} is now spelled {new}\n"


def test_other_words_stay(capsys):
    words = ["r", "--output", "x-batch-norm", "--eval_weights=real"]
    assert with_current_names(words) == words
    assert capsys.readouterr().err == ""


def test_there_are_no_abbreviations():
    parser = Arguments("bcl x", "X.")
    parser.add_argument("--output")
    with pytest.raises(UserError, match="bcl x --help lists the options"):
        parser.parse_args(["--out", "a"])
