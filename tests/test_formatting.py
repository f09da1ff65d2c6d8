"""Text from elsewhere is shown as text, wherever it is shown."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bclightning.formatting import markdown_code, markdown_text, printable

# What terminals, rich and Markdown act on, among ordinary text.
HOSTILE = st.text(
    st.one_of(st.sampled_from("\x1b\x9b\r\n|<>&;#*_[]()!`~\\:/ a1-=."), st.characters())
)


@given(HOSTILE)
@example("\x1b]0;title\x07\x1b[2J")
@example("\u202egnp.exe\u2028\x85")
def test_printable_text_controls_nothing(text):
    shown = printable(text)
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    assert len(shown.splitlines()) <= 1
    shown.encode("utf-8")
    assert printable(shown) == shown


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


@pytest.mark.parametrize("text", ["", "stochastic, learning_rate=0.1", r"C:\runs", "µ ± ü 日本　x"])
def test_ordinary_text_stays_as_it_is(text):
    assert printable(text) == text


def inline(markdown):
    """The inline tokens of a table's first cell."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    tokens = parser.parse(f"| {markdown} | next |\n|---|---|\n")
    kinds = [token.type for token in tokens]
    assert kinds[:4] == ["table_open", "thead_open", "tr_open", "th_open"], markdown
    assert kinds.count("th_open") == 2
    return tokens[4].children


@given(HOSTILE)
@example("[click](http://evil.example)")
@example("![x](http://evil.example/p.png)")
@example("<img src=x onerror=alert(1)><script>")
@example("a | b &lt; `c` **d** ~~e~~ <http://f> \\|")
@example("_a_ and learning_rate")
def test_markdown_shows_the_text_and_nothing_else(text):
    """CommonMark's own reader is the oracle."""
    children = inline(markdown_text(text))
    assert {child.type for child in children} <= {"text", "text_special"}
    assert "".join(child.content for child in children) == printable(text).strip(" \u00a0\u3000")


@given(HOSTILE)
@example("a`b``c|d")
def test_code_in_markdown_is_the_text_and_nothing_else(text):
    (child,) = inline(markdown_code(text)) or [None]
    assert child.type == "code_inline"
    assert child.content.strip() == printable(text).strip()


def test_ordinary_text_is_the_same_in_markdown():
    for text in ("none", "sgd-scaled", "real, BN re-estimated", "0.1 (n = 3)", "< 0.0001", "a_b=1"):
        assert markdown_text(text) == text
    assert markdown_code("model.learning_rate") == "`model.learning_rate`"
