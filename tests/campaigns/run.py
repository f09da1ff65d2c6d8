"""Attack what RELIABILITY promises, for as long as wanted, and count what held.

    python tests/campaigns/run.py kills|damage|hostile --minutes N [--controls] [--only TEXT]

Each campaign names its attacks, and its module says what is held to have held. A try makes a fault
at the next or at a random place or moment. Attacks have equal shares of the time, so slow ones are
tried less often. With ``--controls`` the defences are then taken away one after the other, and the
attack on a missing defence has to find that: a campaign that cannot fail shows nothing. ``--seed``
is the number of the first try, as a failure names it. What is printed last is a table in Markdown.
"""

import argparse
import collections
import importlib
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from campaigns.faults import Attempt, Controls

CAMPAIGNS = ("kills", "damage", "hostile")
TRIES_OF_A_CONTROL = 60


def tried(attempt: "Attempt", number: int) -> str | None:
    """What did not hold in a try; a fault of the attack's own counts too."""
    from campaigns.faults import Try

    with tempfile.TemporaryDirectory(prefix="campaign-", ignore_cleanup_errors=True) as folder:
        try:
            return attempt(Try(number), Path(folder))
        except Exception:
            return traceback.format_exc()


def attacked(
    attacks: "dict[str, Attempt]", seconds: float, seed: int
) -> dict[str, tuple[int, int]]:
    """Try all attacks until the time is over; return how often each was tried, and held."""
    tries = dict.fromkeys(attacks, 0)
    failures = collections.Counter[str]()
    spent = dict.fromkeys(attacks, 0.0)
    end = time.monotonic() + seconds
    while (start := time.monotonic()) < end:
        # That which has had the least time.
        name = min(spent, key=lambda each: spent[each])
        number = seed + tries[name]
        failure = tried(attacks[name], number)
        tries[name] += 1
        spent[name] += time.monotonic() - start
        if failure is not None:
            failures[name] += 1
            print(f"{name}, --seed {number}: {failure}", flush=True)
    return {name: (tries[name], tries[name] - failures[name]) for name in attacks}


def controlled(controls: "Controls", seed: int) -> dict[str, int | None]:
    """Try each attack on a missing defence; return at which try it found that, if at all."""
    found: dict[str, int | None] = {}
    for name, (_, attempt) in controls.items():
        found[name] = None
        for turn in range(TRIES_OF_A_CONTROL):
            if (failure := tried(attempt, seed + turn)) is not None:
                found[name] = turn + 1
                # To see that it was found for the right reason.
                print(f"without {name}, --seed {seed + turn}: {failure}", flush=True)
                break
    return found


def table(
    counts: dict[str, tuple[int, int]],
    controls: "Controls",
    found: dict[str, int | None],
) -> str:
    """The counts, and for each attack at which try it found that a defence was missing."""
    lines = ["| attack | tried | held | without a defence, found at try |", "|---|---|---|---|"]
    for name, (tries, held) in counts.items():
        cells = [f"{c}: {found[c] or 'not found'}" for c in found if controls[c][0] == name]
        lines.append(f"| {name} | {tries} | {held} | {'; '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of the names of the attacks to make")
    parser.add_argument("--controls", action="store_true")
    options = parser.parse_args()
    # In order, so that what an attack has started is ended.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    importlib.import_module("campaigns.faults").compute_on_one_thread()
    campaign = importlib.import_module(f"campaigns.{options.campaign}")
    attacks = {name: a for name, a in campaign.ATTACKS.items() if options.only in name}
    controls = {name: c for name, c in campaign.CONTROLS.items() if c[0] in attacks}
    if not attacks:
        parser.error(f"no attack of {options.campaign} has {options.only!r} in its name")
    counts = attacked(attacks, options.minutes * 60, options.seed)
    found = controlled(controls, options.seed) if options.controls else {}
    print(table(counts, controls, found))
    print(_machine())
    failed = any(tries > held for tries, held in counts.values())
    return int(failed or None in found.values())


def _machine() -> str:
    """What the figures were taken on."""
    import torch

    from bclightning.runs import provenance

    machine = provenance.machine(torch.device("cpu"))
    versions = provenance.versions()
    state = provenance.git_state() or {"commit": "no commit", "dirty": False}
    changed = ", with changes" if state["dirty"] else ""
    return (
        f"{machine['cores']} cores ({machine['name']}), Python {versions['python']}, torch "
        f"{versions['torch']}, commit {state['commit'][:7]}{changed}"
    )


if __name__ == "__main__":
    sys.exit(main())
