"""One sentence out of the parser's many lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bclightning.errors import nearest
from bclightning.runs.parser_errors import format_parser_error

UNION = """Parser key "data":
  Does not validate against any of the Union subtypes
  Subtypes: [<class 'lightning.pytorch.core.datamodule.LightningDataModule'>, <class 'NoneType'>]
  Errors:
    - Problem with given class_path 'bclightning.models.MLP':
        {cause}
    - Expected a <class 'NoneType'>
  Given value type: <class 'jsonargparse._util.NestedArg'>
  Given value: NestedArg(key='batch_size', val='x')"""


@pytest.mark.parametrize(
    ("cause", "sentence"),
    [
        ("Expected a <class 'int'>. Got value: x", "'x' is not of type int"),
        (
            "Expected a typing.Literal['a', 'b']. Got value: c",
            "'c' is not one of 'a', 'b'",
        ),
        ("batch_size must be at least 1", "batch_size must be at least 1"),
    ],
)
def test_the_cause_is_kept_and_the_frame_dropped(cause, sentence):
    assert format_parser_error(UNION.format(cause=cause), []) == f"--data: {sentence}"


def test_an_unknown_option_is_named_as_on_the_command_line():
    said = format_parser_error(UNION.format(cause="Option 'clases' is not accepted"), [])
    assert said == "there is no option --data.clases (did you mean --data.classes?)"


@given(st.text(max_size=300))
def test_any_message_becomes_one_line(message):
    assert "\n" not in format_parser_error(message, ["--a"])


def test_nothing_near_is_not_suggested():
    assert nearest("zebra", ["mnist", "svhn"]) == ""
