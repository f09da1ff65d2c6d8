"""YAML of strangers and of typing errors: a value or one sentence, soon, and nothing else."""

import contextlib
import time

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bclightning.errors import UserError
from bclightning.runs.recipes import read_config, resolve_recipe
from bclightning.sweep.definition import Definition

LAUGHS = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)
)
RECIPE = resolve_recipe("digits.yaml").read_text(encoding="utf-8")
SWEEP = (
    "recipe: digits.yaml\narms: [none, stochastic]\nspace: {model.momentum: {low: 0, high: 1}}\n"
)
READERS = {"configuration": read_config, "sweep": Definition.read}

BOMBS = {
    "laughs": (LAUGHS, "more than 20,000 values, with aliases written out"),
    "merged laughs": (LAUGHS.replace("[", "{<<: [").replace("]", "]}"), "more than 20,000 values"),
    "deep": ("[" * 500, "nested more than 50 levels deep"),
    "deep blocks": ("".join(f"{' ' * i}a:\n" for i in range(200)), "nested more than 50 levels"),
    "itself": ("a: &a [1, *a]", "the anchor &a contains itself"),
    "itself below": ("&a {b: {c: *a}}", "the anchor &a contains itself"),
    "text": ("model: '{" + LAUGHS.replace("\n", ", ") + "}'", "more than 20,000 values"),
    "text in text": (
        yaml.safe_dump({"a": yaml.safe_dump({"b": LAUGHS})}),
        "more than 20,000 values",
    ),
    "text in text in text": (
        "a: " + "".join(f"|\n{' ' * i}" for i in range(1, 300)) + "*",
        "nested more than 3 texts deep",
    ),
    "deep text": ("a: '" + "[" * 60 + "]" * 60 + "'", "nested more than 50 levels deep"),
    "large": ("a: " + "x" * 300_000, "more than 256 KiB"),
    "tag": ("a: !!python/object/apply:os.system [id]", "is not plain data"),
    "set": ("a: !!set {b}", "is not plain data"),
    "digits": ("a: " + "9" * 5000, "a value that cannot be read"),
    "number": ("a: !!int x", "a value that cannot be read"),
    "key": ("? [1]\n: 2", "unhashable key"),
    "bytes": (b"a: \xff", "can't decode byte"),
    "control": ("a: \x00", "not allowed"),
    "two": ("a: 1\n---\nb: 2\n", "expected a single document"),
    "alias of none": ("a: *b", "undefined alias"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_one_sentence_at_once(tmp_path, reader, name):
    content, sentence = BOMBS[name]
    path = tmp_path / "bomb.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    with pytest.raises(UserError, match=r"bomb.yaml is not a readable YAML file: ") as refused:
        READERS[reader](path)
    assert time.process_time() - started < 1
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_people_write_is_read_as_before(tmp_path):
    text = (
        "base: &base {a: 1, b: [x, 1.5, true, null]}\n"
        "more: {<<: *base, a: 2}\n"
        "list: [*base, *base]\nday: 2026-01-02\nrate: 1e-3\n"
    )
    path = tmp_path / "mine.yaml"
    path.write_text(f"\ufeff{text}", encoding="utf-8")
    assert read_config(path) == {**yaml.safe_load(text), "day": "2026-01-02"}


def changed(text: str) -> st.SearchStrategy[str]:
    """A text with pieces taken out, put in or written twice."""
    pieces = st.sampled_from(
        [
            *"[]{}:,&*!|>-?#\"'%@`\t\n ",
            "&a ",
            "*a",
            "!!",
            "<<: ",
            "- ",
            "1e999",
            "0x",
            ".nan",
            "---",
        ]
    ) | st.text(max_size=5)
    edit = st.tuples(st.integers(0, len(text)), st.integers(0, 40), pieces)

    def apply(edits: list[tuple[int, int, str]]) -> str:
        result = text
        for place, length, piece in edits:
            result = result[:place] + piece + result[place + length :]
        return result

    return st.lists(edit, max_size=6).map(apply)


@pytest.mark.parametrize("reader", READERS)
@settings(max_examples=250, deadline=1000)
@given(data=st.data())
@example(data=None)
def test_a_mutant_is_a_value_or_one_sentence(tmp_path_factory, reader, data):
    text = {"configuration": RECIPE, "sweep": SWEEP}[reader]
    if data is not None:
        text = data.draw(changed(text))
    path = tmp_path_factory.getbasetemp() / f"{reader}.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UserError):
        READERS[reader](path)
