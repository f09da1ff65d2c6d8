"""What is shown of a sweep, line by line or as a table that is drawn again."""

import io

import pytest
from rich.console import Console

from bclightning.cli import sweep_view
from bclightning.cli.sweep_view import LiveView, print_state
from bclightning.runs.record import RunRecord
from bclightning.sweep.definition import Definition
from bclightning.sweep.monitor import Monitor
from bclightning.sweep.studies import Studies
from bclightning.sweep.view import ArmProgress, table

SWEEP = Definition.parse(
    {"recipe": "digits.yaml", "arms": ["none", "stochastic"], "final_seeds": 2}, "seen"
)


@pytest.fixture
def studies(tmp_path):
    studies = Studies(SWEEP, f"sqlite:///{tmp_path / 'storage.db'}")
    yield studies
    studies.close()


@pytest.mark.parametrize("terminal", [True, False])
def test_epochs_are_drawn_on_a_terminal_and_events_are_printed(studies, monkeypatch, terminal):
    monkeypatch.setattr(sweep_view, "REDRAW_SECONDS", 0.0)
    studies.prepare("a recipe", Monitor("val/acc", "max"))
    out = io.StringIO()
    view = LiveView(Console(file=out, force_terminal=terminal, width=100))
    view.start(studies, 1)
    view.event("seen-none-s1", "starts")
    view.event("seen-none-s2", "failed: \x1b]0;a title\x07")
    view.notice("waiting for the storage")
    view.epoch("seen-none-s1", 3, 0.987654)
    view.refresh()
    view.stop()
    said = out.getvalue()
    assert said.count("seen-none-s1: starts") == 1
    assert r"seen-none-s2: failed: \x1b]0;a title\x07" in said
    assert said.count("waiting for the storage") == 1
    assert ("seen-none-s1  epoch 3  val/acc 0.9877" in said) == terminal
    assert ("best val/acc" in said) == terminal


@pytest.mark.parametrize(
    ("monitor", "heading", "best"),
    [(Monitor(), "best val.", "2.50 %"), (Monitor("val/acc", "max"), "best val/acc", "2.5")],
)
def test_the_state_names_what_is_monitored_and_what_failed(tmp_path, monitor, heading, best):
    content = {**SWEEP.plain(), "space": {"a.b": {"choices": [1]}}, "trials": 2}
    studies = Studies(Definition.parse(content, "seen"), f"sqlite:///{tmp_path / 'tuned.db'}")
    try:
        studies.prepare("a recipe", monitor)
        first, second, third = (studies.claim() for _ in range(3))
        for claimed, score in ((first, 2.5), (third, 2.5 + (monitor.mode == "min"))):
            assert claimed.arm == "none"
            record = RunRecord(claimed.run_id, "seen", "none", "digits", 0, status="finished")
            record.best_score = score
            studies.finish(claimed, record)
        studies.fail(second, "the loss\x1b[2J is [red]NaN")
        out = io.StringIO()
        assert print_state(Console(file=out, width=100), studies)
        _, _, headings, _, *rows = out.getvalue().splitlines()
        assert [cell.strip() for cell in headings.split("┃")[1:-1]] == [
            *("arm", "trials", "running", "failed", "pruned", heading, "final runs")
        ]
        assert [[cell.strip() for cell in row.split("│")[1:-1]] for row in rows[:2]] == [
            ["none", "2/2", "0", "0", "0", best, "0/2"],
            ["stochastic", "0/2", "0", "1", "0", "-", "0/2"],
        ]
        # Whoever made the storage may have put control characters there.
        assert rows[-1] == r"stochastic trial 0 failed: the loss\x1b[2J is [red]NaN"
    finally:
        studies.close()


def test_names_from_a_definition_and_a_storage_are_text_in_the_table():
    """Brackets are Rich's markup, and crash or vanish; control characters reach terminals."""
    out = io.StringIO()
    arm = ArmProgress("[/red]\x1b[2J", 1, 1, 0, 0, 0, 0.5, 0, 1, None, {})
    Console(file=out, width=120).print(table("seen", [arm], Monitor("[/blue]\x1b", "max")))
    assert "[/red]\\x1b[2J" in out.getvalue()
    assert "best [/blue]\\x1b" in out.getvalue()
    assert "\x1b" not in out.getvalue()
