"""The campaigns run, hold for a while, and find a defence that is missing."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["kills", "--minutes", "0.5"],
        ["damage", "--minutes", "0.1"],
        ["hostile", "--minutes", "0.1"],
        ["kills", "--only", "a database is killed", "--minutes", "0.1", "--controls"],
        ["kills", "--only", "a coordinator is frozen", "--minutes", "0.1"],
        ["kills", "--only", "machine sleeps, its clock", "--minutes", "0.1", "--controls"],
        ["kills", "--only", "write one export", "--minutes", "0", "--controls"],
        ["damage", "--minutes", "0", "--controls"],
        ["hostile", "--minutes", "0", "--controls"],
    ],
    ids=" ".join,
)
def test_a_campaign_holds_and_its_controls_do_not(words):
    command = [sys.executable, str(RUN), *words]
    process = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert process.returncode == 0, process.stdout + process.stderr
