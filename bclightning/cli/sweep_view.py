"""What `bcl sweep` prints of a sweep's state, while it runs and at the end."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bclightning.formatting import printable
from bclightning.sweep.monitor import value_text
from bclightning.sweep.studies import Studies
from bclightning.sweep.view import View, failures, progress, running_table, table, time_left

# Least time between two drawings, since each reads the storage.
REDRAW_SECONDS = 1.0


class LiveView(View):
    """A sweep's state while it runs: a live table on a terminal, else one line for each event.

    Args:
        console: Console to print to.
        begin: Called before anything is printed, as to clear what is shown until then.
    """

    def __init__(self, console: Console, begin: Callable[[], object] = lambda: None) -> None:
        self._console = console
        self._begin = begin
        self._studies: Studies | None = None
        self._jobs = 1
        self._drawn = 0.0
        self._live: Live | None = None
        # Values and progress of what this process runs, by name.
        self._runs: dict[str, tuple[Mapping[str, Any], str]] = {}

    def start(self, studies: Studies, jobs: int) -> None:
        """Open the view."""
        self._begin()
        self._studies, self._jobs = studies, jobs
        if self._console.is_interactive:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            self.refresh()

    def stop(self) -> None:
        """Clear the live table: the state at the end, or an error, is printed next."""
        if self._live is not None:
            self._live.stop()

    def running(self, run_id: str, settings: Mapping[str, Any]) -> None:
        """Show a run and its settings until it ends."""
        self._runs[run_id] = (settings, "")

    def epoch(self, run_id: str, number: int, value: float) -> None:
        """Show a run's last epoch."""
        if self._studies is not None:
            settings, _ = self._runs.get(run_id, ({}, ""))
            shown = value_text(self._studies.monitor.metric, value)
            self._runs[run_id] = (settings, f"epoch {number}  {shown}")

    def event(self, run_id: str, what: str) -> None:
        """Print an event, with the time left where no live table shows it."""
        self._runs.pop(run_id, None)
        line = Text(f"{run_id}: {printable(what)}")
        if self._live is None and self._studies is not None:
            left = time_left(progress(self._studies), self._jobs)
            line.append(f"  (time left {left})" if left else "")
        self._console.print(line, highlight=False, soft_wrap=True)

    def notice(self, sentence: str) -> None:
        """Print what is waited for."""
        self._begin()
        self._console.print(Text(sentence), highlight=False, soft_wrap=True)

    def refresh(self) -> None:
        """Draw the live table again, unless that was done a moment ago."""
        if self._live is None or self._studies is None:
            return
        if time.monotonic() - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = time.monotonic()
        arms = progress(self._studies)
        state = table(self._studies.definition.name, arms, self._studies.monitor)
        left = time_left(arms, self._jobs)
        lines = [Text(f"time left: {left}")] if left else []
        self._live.update(Group(state, running_table(self._runs), *lines), refresh=True)


def print_state(console: Console, studies: Studies) -> bool:
    """Print a sweep's state, with the reasons of what failed.

    Returns:
        Whether a trial or a final run failed.
    """
    arms = progress(studies)
    console.print(table(studies.definition.name, arms, studies.monitor))
    running = {name: settings for arm in arms for name, settings in arm.running.items()}
    if running:
        console.print(running_table({name: (values, "") for name, values in running.items()}))
    left = time_left(arms)
    if left and not studies.finished():
        console.print(f"time left: {left}", highlight=False)
    failed = failures(arms)
    for name, reason in failed.items():
        console.print(f"{name} failed: {reason}", highlight=False, soft_wrap=True, markup=False)
    return bool(failed)
