"""Tables of results: what a record says is shown as text."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from bclightning.cli.tables import print_report, results_table
from bclightning.evaluation import EvaluationResult
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord
from bclightning.tracking.folders import how_to_look

HOSTILE = "\x1b[2J[/red][link=http://evil.example]x\n"


def shown(show) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(console)
    return console.file.getvalue()


def test_names_from_records_are_text(tmp_path):
    result = EvaluationResult("real", HOSTILE, 1.5)
    said = shown(lambda c: c.print(results_table(HOSTILE, HOSTILE, [result], ("real", HOSTILE))))
    assert all(line.isprintable() for line in said.splitlines())
    assert said.count(r"\x1b[2J[/red][link=http://evil.example]x\n") == 3
    assert "1.5 *" in said


def test_the_report_of_a_strange_record_is_printed(tmp_path):
    entry = {"weights": HOSTILE, "batch_norm": "as trained", "value": 1.5, "more": 3}
    record = RunRecord("a", "e", HOSTILE, HOSTILE, 1, test=[entry], monitor=HOSTILE)
    record.best_epoch, record.best_score = 0, 2.5
    said = shown(lambda console: print_report(console, record, RunFolder(tmp_path / "[/red]")))
    assert all(line.isprintable() for line in said.splitlines())
    assert "1.50 %" in said
    assert "[/red]\n" in said


@pytest.mark.parametrize("place", ["results/runs", "a folder with spaces/" + 8 * "deep/"])
def test_commands_to_copy_are_whole_lines_of_their_own(folder, place):
    run = RunFolder(folder / place / "digits" / "digits-deterministic-s0-20261125-135925-4315")
    run.path.mkdir(parents=True)
    (run.path / "wandb").mkdir()
    run.config.touch()
    record = RunRecord(run.run_id, "digits", "deterministic", "digits", 0, best_epoch=3)
    record.best_score, record.epochs, record.split_sizes = 1.5, 50, {"train": 10}
    record.wandb = {"mode": "offline"}
    record.binary_weights, record.real_weights = 14_022_016, 3_850
    record.packed_bytes, record.float_bytes = 1_790_000, 56_100_000
    console = Console(file=io.StringIO(), width=80)
    print_report(console, record, RunFolder(run.path.relative_to(folder)))
    lines = console.file.getvalue().splitlines()
    short, path = run.run_id, str(run.path.relative_to(folder))
    assert lines[lines.index("next:") + 1 :] == [
        f"bcl export {short}" if place == "results/runs" else f"bcl export '{path}'",
        *how_to_look(RunFolder(run.path.relative_to(folder)).path, "offline"),
    ]
    before = lines[: lines.index("next:")]
    assert max(len(line) for line in before if not line.startswith("run ")) <= 80


@pytest.mark.parametrize("change", [{"best_epoch": None}, {"split_sizes": {}}])
def test_what_cannot_be_exported_is_not_said_to_be(tmp_path, change):
    record = RunRecord("a", "e", "none", "d", 0, best_epoch=0, split_sizes={"train": 10})
    assert "bcl export" in shown(lambda console: print_report(console, record, RunFolder(tmp_path)))
    record = replace(record, **change)
    assert "next" not in shown(lambda console: print_report(console, record, RunFolder(tmp_path)))
