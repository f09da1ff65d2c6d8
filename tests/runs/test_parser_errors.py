"""One sentence out of the parser's many lines."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bclightning.errors import nearest
from bclightning.runs.parser_errors import explain

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
        ("Option 'clases' is not accepted", "there is no option 'clases' (did you mean classes?)"),
        ("Expected a <class 'int'>. Got value: x", "'x' is not of type int"),
        (
            "Expected a typing.Literal['a', 'b']. Got value: c",
            "'c' is not one of 'a', 'b'",
        ),
        ("batch_size must be at least 1", "batch_size must be at least 1"),
    ],
)
def test_the_cause_is_kept_and_the_frame_dropped(cause, sentence):
    assert explain(UNION.format(cause=cause), []) == f"--data: {sentence}"


@given(st.text(max_size=300))
def test_any_message_becomes_one_line(message):
    assert "\n" not in explain(message, ["--a"])


def test_nothing_near_is_not_suggested():
    assert nearest("zebra", ["mnist", "svhn"]) == ""
