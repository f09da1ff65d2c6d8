"""Tables of results: what a record says is shown as text."""

import io

from rich.console import Console

from bclightning.cli.tables import print_report, results_table
from bclightning.evaluation import EvaluationResult
from bclightning.runs.folder import RunFolder
from bclightning.runs.record import RunRecord

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
