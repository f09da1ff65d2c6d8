"""What `bcl sweep` prints of a sweep's state, while it runs and at the end."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from bclightning.formatting import printable
from bclightning.sweep.monitor import score_text
from bclightning.sweep.studies import Studies
from bclightning.sweep.view import View, failures, progress, table, time_left

# Least time between two drawings, since each reads the storage.
REDRAW_SECONDS = 1.0


class LiveView(View):
    """A sweep's state while it runs: a live table on a terminal, else one line for each event.

    Args:
        console: Console to print to.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._studies: Studies | None = None
        self._jobs = 1
        self._drawn = 0.0
        self._live: Live | None = None
        self._epochs: dict[str, str] = {}

    def start(self, studies: Studies, jobs: int) -> None:
        """Open the view."""
        self._studies, self._jobs = studies, jobs
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
            self.refresh()

    def stop(self) -> None:
        """Clear the live table: the state at the end, or an error, is printed next."""
        if self._live is not None:
            self._live.stop()

    def epoch(self, run_id: str, number: int, value: float) -> None:
        """Show a run's last epoch."""
        if self._studies is not None:
            score = score_text(self._studies.monitor.metric, value)
            self._epochs[run_id] = f"{run_id}  epoch {number}  {score}"

    def event(self, run_id: str, what: str) -> None:
        """Print an event, with the time left where no live table shows it."""
        self._epochs.pop(run_id, None)
        line = Text(f"{run_id}: {printable(what)}")
        if self._live is None and self._studies is not None:
            left = time_left(progress(self._studies), self._jobs)
            line.append(f"  (time left {left})" if left else "")
        self._console.print(line, highlight=False, soft_wrap=True)

    def notice(self, sentence: str) -> None:
        """Print what is waited for."""
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
        lines = list(self._epochs.values())
        if left := time_left(arms, self._jobs):
            lines.append(f"time left: {left}")
        self._live.update(Group(state, *map(Text, lines)), refresh=True)


def print_state(console: Console, studies: Studies) -> bool:
    """Print a sweep's state, with the reasons of what failed.

    Returns:
        Whether a trial or a final run failed.
    """
    arms = progress(studies)
    console.print(table(studies.definition.name, arms, studies.monitor))
    left = time_left(arms)
    if left and not studies.finished():
        console.print(f"time left: {left}", highlight=False)
    failed = failures(arms)
    for name, reason in failed.items():
        console.print(f"{name} failed: {reason}", highlight=False, soft_wrap=True, markup=False)
    return bool(failed)
