"""Whether the process that has a trial is alive, by this process's own observation."""

import time
from collections.abc import Callable, Mapping

# A trial whose sign of life has been the same for so many intervals is a dead process's.
MISSED_SIGNS = 3


class Watch:
    """Watches signs of life: any value that a living process changes.

    No clock is compared with another's, since one may be set or its machine suspended. What counts
    is for how long this process has *seen* a sign unchanged: of the time between two looks no more
    than one interval counts, so that a process that was frozen itself, or waited for a database,
    does not take the others for dead when it looks again.

    Args:
        interval: Seconds between the signs of a living process.
        clock: Clock that runs evenly.

    Example:
        >>> seconds = iter(range(0, 60, 10))
        >>> watch = Watch(10, clock=lambda: next(seconds))
        >>> [watch.look({7: sign}) for sign in ("a", "a", "b", "b", "b", "b")]
        [set(), set(), set(), set(), set(), {7}]
    """

    def __init__(self, interval: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval
        self._clock = clock
        self._looked: float | None = None
        self._unchanged: dict[int, tuple[str, float]] = {}

    def look(self, signs: Mapping[int, str]) -> set[int]:
        """Look at the signs of all that are running.

        Args:
            signs: The last sign of each, by key.

        Returns:
            The keys of those that have given no other sign for three intervals.
        """
        now = self._clock()
        passed = 0.0 if self._looked is None else min(now - self._looked, self._interval)
        self._looked = now
        before, self._unchanged = self._unchanged, {}
        for key, sign in signs.items():
            known, since = before.get(key, (sign, -passed))
            self._unchanged[key] = (sign, since + passed if known == sign else 0.0)
        limit = MISSED_SIGNS * self._interval
        return {key for key, (_, since) in self._unchanged.items() if since >= limit}
