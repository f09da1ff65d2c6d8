"""Records: what is read of them can be trusted."""

import contextlib
import copy
import io
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bclightning.compare.comparison import compare
from bclightning.compare.plain import as_csv, as_json
from bclightning.compare.render import markdown, plain_text, terminal_parts
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord

DIGITS = Path(__file__).parents[2] / "results" / "digits" / "digits-none-s1"


@pytest.mark.parametrize("key", ["run_id", "experiment"])
@pytest.mark.parametrize("name", ["../up", "/absolute", "a/b", "..", "", "a\n", "[/x]", "a" * 65])
def test_a_record_that_names_a_run_as_none_can_be_named_is_refused(tmp_path, key, name):
    content = json.loads((DIGITS / "run.json").read_text())
    RunRecord.parse(content)
    with pytest.raises(UserError, match="must be 1 to 64 letters, digits, dots"):
        RunRecord.parse({**content, key: name})


@pytest.mark.parametrize("command", [("reproduce", "r"), ("compare", "r", "--write", "page")])
def test_no_command_leaves_its_folders_for_such_a_name(folder, refused, command):
    shutil.copytree(DIGITS, folder / "r")
    content = json.loads((folder / "r/run.json").read_text())
    content["run_id"] = "../../escaped"
    (folder / "r/run.json").write_text(json.dumps(content))
    before = sorted(folder.parent.rglob("*"))
    assert "run_id in r/run.json '../../escaped' must be" in refused(*command)
    assert sorted(folder.parent.rglob("*")) == before


RECORDS = sorted((Path(__file__).parents[2] / "results").glob("*/*/run.json"))


def test_every_promoted_record_is_read_as_it_is():
    assert len(RECORDS) > 80
    for path in RECORDS:
        record = RunRecord.read(path)
        content = json.loads(path.read_text())
        assert (record.run_id, record.regularizer) == (content["run_id"], content["method"])
        assert [entry["value"] for entry in record.test] == [e["error"] for e in content["test"]]


def current() -> dict:
    """A record as it is written today, with something in each field."""
    record = RunRecord.read(DIGITS / "run.json")
    record.checksums = {"train": "0123"}
    record.test.append({"weights": "ensemble", "batch_norm": "re-estimated", "value": 2.5})
    record.test[-1]["ensemble_size"] = 10
    before = replace(record, versions={"torch": "2.10.0"}, parts=[])
    record.resume_from(before)
    return json.loads(json.dumps(asdict(record)))


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("seed", "1", "seed must be a whole number, and it is '1'"),
        ("seed", True, "seed must be a whole number, and it is True"),
        ("seed", 2**63, "seed must be a whole number"),
        ("arm", None, "arm must be text, and it is None"),
        ("arm", ["a"], "arm must be text, and it is ['a']"),
        ("status", "fine", "status must be one of running, finished, interrupted, failed, pruned"),
        ("monitor_mode", [], "monitor_mode must be one of min, max, and it is []"),
        ("best_score", "2", "best_score must be a number or null, and it is '2'"),
        ("train_seconds", float("nan"), "train_seconds must be a finite number, and it is nan"),
        ("train_seconds", 1e300, "train_seconds must be a finite number, and it is 1e+300"),
        ("test", {}, "test must be a list, and it is {}"),
        ("test", [3], "test[0] must be an object, and it is 3"),
        ("test", [{"weights": "real"}], "test[0].batch_norm is missing"),
        (
            "test",
            [{"weights": "real", "batch_norm": "as trained", "value": [2]}],
            "test[0].value must be a number, and it is [2]",
        ),
        ("evaluation", {"weights": 3}, "evaluation.weights must be text, and it is 3"),
        ("split_sizes", {"a": "b"}, "split_sizes['a'] must be a whole number, and it is 'b'"),
        ("checksums", {"\x1b[2J": 3}, r"checksums['\x1b[2J'] must be text, and it is 3"),
        ("git", {"dirty": False}, "git.commit is missing"),
        ("git", "abc", "git must be an object or null, and it is 'abc'"),
        ("parts", [{"started": ""}], "parts[0].versions is missing"),
        ("hyperparameters", [], "hyperparameters must be an object, and it is []"),
        ("format", "2", "format must be a whole number, and it is '2'"),
        ("format", 0, "format must be a whole number from 1 on, and it is 0"),
    ],
)
def test_a_field_of_another_type_is_named_with_its_file(tmp_path, field, value, said):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**current(), field: value}))
    with pytest.raises(UserError) as raised:
        RunRecord.read(path)
    assert str(raised.value).startswith(f"{path} is not a complete run record: {said}")
    assert str(raised.value).endswith("; remove it or run again")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        '{"format": 2, "hyperparameters": {"a": ' + "[" * 200 + "]" * 200 + "}}",
        "[]",
        "null",
        "3",
        '"text"',
        "",
        '{"format": 2}',
        '{"format": 1, "test": [3], "method": 3}',
        '{"format": 1, "test": 3}',
        '{"format": null}',
        "{}",
        "\ufeff{}",
        "9" * 5000,
    ],
)
def test_what_is_no_record_at_all_is_one_sentence(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"run.json is not a complete run record"):
        RunRecord.read(path)


def test_a_record_that_cannot_be_opened_is_one_sentence(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(UserError, match=r"run.json cannot be read: Is a directory"):
        RunRecord.read(tmp_path / "run.json")
    with pytest.raises(UserError, match="there is no run record"):
        RunRecord.read(tmp_path / "none")
    (tmp_path / "other").write_bytes(b'{"arm": "\xff"}')
    with pytest.raises(UserError, match="other is not a complete run record"):
        RunRecord.read(tmp_path / "other")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_run_whose_metric_is_not_finite_can_be_read_again(tmp_path, value):
    """What a run writes, it can read: its own metric may be any float."""
    entry = {"weights": "real", "batch_norm": "as trained", "value": value}
    record = replace(RunRecord.parse(current()), best_score=value, test=[entry])
    record.write(tmp_path / "run.json")
    assert repr(RunRecord.read(tmp_path / "run.json")) == repr(record)


def places(content, path=()):
    """The path of each value within plain data."""
    yield path
    items = content.items() if isinstance(content, dict) else ()
    items = enumerate(content) if isinstance(content, list) else items
    for key, value in items:
        yield from places(value, (*path, key))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(10**400), 1e308, float("nan"), float("inf"), -0.0, ""])
    | st.floats()
    | st.text(st.sampled_from("a\x1b[/red]|\n\0\ud800"), max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@st.composite
def mutants(draw):
    """A real record of either format, with some of its values replaced, removed or added."""
    old = json.loads((DIGITS / "run.json").read_text())
    content = copy.deepcopy(draw(st.sampled_from([old, current()])))
    for _ in range(draw(st.integers(1, 3))):
        *above, key = draw(st.sampled_from(list(places(content))[1:]))
        holder = content
        for step in above:
            holder = holder[step]
        if draw(st.booleans()):
            holder[key] = draw(VALUES)
        elif isinstance(holder, dict):
            del holder[key]
            holder[draw(st.sampled_from(["", "new", "value", "weights"]))] = draw(VALUES)
    return content


@settings(max_examples=150, deadline=None)
@given(mutants())
def test_a_mutated_record_is_read_as_it_is_or_refused_in_a_sentence(content):
    try:
        record = RunRecord.parse(json.loads(json.dumps(content)), "r/run.json")
    except UserError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:
        assert "r/run.json" in refusal
        assert refusal.isprintable()
        return
    assert record.run_id == content["run_id"]
    again = RunRecord.parse(json.loads(json.dumps(asdict(record))))
    assert repr(again) == repr(record)
    # What is read can be compared and shown, or is refused likewise.
    with contextlib.suppress(UserError):
        comparisons = compare([record, RunRecord.parse(current())])
        for show in (markdown, plain_text, as_csv, as_json):
            show(comparisons).encode()
        for comparison in comparisons:
            console = Console(file=io.StringIO(), width=80)
            for part in terminal_parts(comparison, 80):
                console.print(part, markup=False)
            assert "\x1b" not in console.file.getvalue()
