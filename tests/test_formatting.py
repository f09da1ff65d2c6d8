"""Text from elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bclightning.formatting import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "plain name, 3 µm, ünïcode 猫 🐈 [red] a|b <b>",
            "plain name, 3 µm, ünïcode 猫 🐈 [red] a|b <b>",
        ),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b2J\x7f\x00", "\\x9b2J\\x7f\\x00"),
        ("left\u202eright\u2028\u200b\ufeff", "left\\u202eright\\u2028\\u200b\\ufeff"),
        ("caf\udce9.png", "caf\\udce9.png"),
        ("", ""),
    ],
)
def test_control_characters_are_escaped_and_all_else_stays(text, shown):
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_what_is_printed_is_one_line_that_any_file_can_hold(text):
    shown = printable(text)
    assert shown.encode().decode() == shown
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    assert printable(shown) == shown
