"""What is shown of a sweep, line by line or as a table that is drawn again."""

import io
import re

import pytest
from rich.console import Console

from bclightning.cli import sweep_view
from bclightning.cli.sweep_view import LiveView, print_state
from bclightning.runs.record import RunRecord
from bclightning.sweep.definition import Definition
from bclightning.sweep.monitor import Monitor
from bclightning.sweep.studies import Studies
from bclightning.sweep.view import ArmProgress, table

HOSTILE = "[/blue]\x1b"

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
    begun = []
    console = Console(file=out, force_terminal=terminal, width=100)
    view = LiveView(console, lambda: begun.append(out.getvalue()))
    view.start(studies, 1)
    view.event("seen-none-s1", "starts")
    view.running("seen-none-s1", {"model.learning_rate": 0.00196234})
    view.event("seen-none-s2", "failed: \x1b]0;a title\x07")
    view.notice("waiting for the storage")
    view.epoch("seen-none-s1", 3, 0.987654)
    view.refresh()
    view.stop()
    said = out.getvalue()
    # What was shown until then is cleared before the first line.
    assert begun[0] == ""
    assert said.count("seen-none-s1: starts") == 1
    assert r"seen-none-s2: failed: \x1b]0;a title\x07" in said
    assert said.count("waiting for the storage") == 1
    assert ("seen-none-s1  learning_rate=0.001962  epoch 3  0.9877" in said) == terminal
    assert ("seen-none-s1  learning_rate" in said) == ("sweep seen" in said) == terminal


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
        # Nothing is running and nothing was pruned.
        assert [cell.strip() for cell in headings.split("┃")[1:-1]] == [
            *("arm", "trials", "failed", heading, "best so far", "final")
        ]
        assert [[cell.strip() for cell in row.split("│")[1:-1]] for row in rows[:2]] == [
            ["none", "2/2", "", best, "b=1", "0/2"],
            ["stochastic", "0/2", "1", "", "", "0/2"],
        ]
        # Whoever made the storage may have put control characters there.
        assert rows[-1] == r"stochastic trial 0 failed: the loss\x1b[2J is [red]NaN"
    finally:
        studies.close()


def test_the_settings_of_what_runs_and_of_what_was_chosen_are_shown(tmp_path, monkeypatch):
    """At 80 columns nothing of them is cut."""
    monkeypatch.setattr(sweep_view, "REDRAW_SECONDS", 0.0)
    arms = ["none", "dropout", "deterministic", "stochastic"]
    content = {
        **{"recipe": "digits.yaml", "arms": arms, "trials": 2, "final_seeds": 1},
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
    }
    studies = Studies(Definition.parse(content, "digits"), f"sqlite:///{tmp_path / 'tuned.db'}")
    try:
        studies.prepare("a recipe")
        out = io.StringIO()
        view = LiveView(Console(file=out, force_terminal=True, width=80))
        view.start(studies, 2)
        chosen = {}
        for number in range(12):
            claimed = studies.claim()
            rate = claimed.options["model.learning_rate"]
            view.running(claimed.run_id, {"model.learning_rate": rate})
            view.epoch(claimed.run_id, 12, 66.67)
            if number == 6:
                view.refresh()
                now = f"{claimed.run_id}  learning_rate={rate:.4g}  epoch 12  66.67 %"
                assert now in out.getvalue()
                shown = said(lambda console: print_state(console, studies))
                assert f"{claimed.run_id}  learning_rate={rate:.4g}" in shown
                assert "best so far" in shown
                assert f"│ learning_rate={chosen['none']:.4g} │" in shown
            record = RunRecord(claimed.run_id, "digits", claimed.arm, "digits", 0)
            record.status, record.best_score = "finished", float(number)
            studies.finish(claimed, record)
            view.event(claimed.run_id, "finished")
            if claimed.stage == "tune":
                chosen.setdefault(claimed.arm, rate)
            else:
                assert rate == chosen[claimed.arm]
            studies.advance()
        view.stop()
        end = said(lambda console: print_state(console, studies))
        assert "chosen" in end
        assert "best so far" not in end
        for arm, rate in chosen.items():
            assert re.search(f"│ {arm} +│ +2/2 │.*│ learning_rate={rate:.4g} +│ +1/1 │", end)
    finally:
        studies.close()


def said(show):
    """What is printed at 80 columns."""
    out = io.StringIO()
    show(Console(file=out, width=80))
    assert max(map(len, out.getvalue().splitlines())) <= 80
    return out.getvalue()


def test_a_sweep_without_a_search_has_no_column_of_settings(studies):
    studies.prepare("a recipe")
    shown = said(lambda console: print_state(console, studies))
    assert re.findall(r"┃ ([a-z .]+?) +(?=┃)", shown) == ["arm", "final"]


@pytest.mark.parametrize("dumb", [False, True])
def test_a_dumb_terminal_gets_lines(studies, monkeypatch, dumb):
    monkeypatch.setenv("TERM", "dumb" if dumb else "xterm")
    studies.prepare("a recipe")
    out = io.StringIO()
    view = LiveView(Console(file=out, force_terminal=True, width=80))
    view.start(studies, 1)
    view.event("seen-none-s1", "starts")
    view.stop()
    assert ("┃" in out.getvalue()) != dumb


def test_names_from_a_definition_and_a_storage_are_text_in_the_table():
    """Brackets are Rich's markup, and crash or vanish; control characters reach terminals."""
    out = io.StringIO()
    arm = ArmProgress("[/red]\x1b[2J", 1, 1, {}, 0, 0, 0.5, {HOSTILE: HOSTILE}, 0, 1, None, {})
    Console(file=out, width=120).print(table("seen", [arm], Monitor("[/blue]\x1b", "max")))
    assert "[/red]\\x1b[2J" in out.getvalue()
    assert "best [/blue]\\x1b" in out.getvalue()
    assert r"]\x1b=[/blue]\x1b" in out.getvalue()
    assert "\x1b" not in out.getvalue()
