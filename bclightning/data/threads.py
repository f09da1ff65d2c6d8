"""Work on many files at once, with a progress bar."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

# Fewer files take no time that anybody would want to watch.
MIN_FILES_SHOWN = 500

# Files that are waiting for a thread, for each thread.
_AHEAD = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[_Item], _Result], items: Sequence[_Item], description: str
) -> Iterator[_Result]:
    """Results of a function for each item, in order, from one thread for each core.

    Reading, decoding and checksums leave Python's lock. On a terminal a progress bar shows how far
    it is, where there are many items.

    Args:
        work: The function.
        items: What it is called with.
        description: What is done, for the progress bar.

    Example:
        >>> list(in_threads(len, ["a", "bc"], "measuring"))
        [1, 2]
    """
    threads = min(cores(), len(items))
    shown = len(items) >= MIN_FILES_SHOWN and sys.stderr is not None and sys.stderr.isatty()
    with Progress(console=Console(stderr=True), disable=not shown, transient=True) as progress:
        bar = progress.add_task(description, total=len(items))
        if threads < 2:
            for item in items:
                yield work(item)
                progress.advance(bar)
            return
        with ThreadPoolExecutor(threads) as executor:
            # A few at a time, so that an error or Ctrl-C ends it at once.
            waiting = [executor.submit(work, item) for item in items[: _AHEAD * threads]]
            try:
                for place in range(len(items)):
                    following = len(waiting)
                    if following < len(items):
                        waiting.append(executor.submit(work, items[following]))
                    yield waiting[place].result()
                    progress.advance(bar)
            finally:
                executor.shutdown(cancel_futures=True)


def cores() -> int:
    """Number of cores that this process may use, as far as the system says.

    Example:
        >>> cores() >= 1
        True
    """
    # macOS and Windows bind no process to cores.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
