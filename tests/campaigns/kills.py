"""Kills, stops, full disks, second processes, frozen processes, and databases that restart."""

import sys

import postgresql
from campaigns import faults, fits, pages, sweeps

ATTACKS: dict[str, faults.Attempt] = {**fits.ATTACKS, **pages.ATTACKS, **sweeps.ATTACKS}
CONTROLS: faults.Controls = {**fits.CONTROLS, **pages.CONTROLS, **sweeps.CONTROLS}

if not postgresql.installed():
    print("without Debian's package postgresql no database is attacked", file=sys.stderr)
    ATTACKS = {name: each for name, each in ATTACKS.items() if name not in sweeps.OF_A_DATABASE}
