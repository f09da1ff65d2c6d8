"""Command lines in processes of their own, which begin at the same moment."""

import multiprocessing
import os
from collections.abc import Sequence
from multiprocessing.context import ForkServerProcess
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
# Each process is forked from one that has imported everything.
CONTEXT.set_forkserver_preload(["bclightning.cli.main", "bclightning.cli.fit"])


def start(words: Sequence[str], barrier: Any) -> ForkServerProcess:
    """Start a command line; the exit code of its process is the command line's.

    Args:
        words: The words after ``bcl``.
        barrier: What it waits at before it begins.
    """
    given = (list(words), os.getcwd(), dict(os.environ), barrier)
    process = CONTEXT.Process(target=_run, args=given)
    process.start()
    return process


def code_of(process: ForkServerProcess) -> int | None:
    """Wait for the end, and return the exit code."""
    process.join(60)
    return process.exitcode


def _run(words: list[str], folder: str, environment: dict[str, str], barrier: Any) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    import torch

    import bclightning.runs.folder
    from bclightning.cli.main import main

    torch.set_num_threads(1)
    bclightning.runs.folder.LOCK_TIMEOUT_SECONDS = 0.5
    barrier.wait()
    main(words)
