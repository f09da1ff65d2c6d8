"""Attack what RELIABILITY promises, for as long as wanted, and count what held.

    python tests/campaigns/run.py kills|damage|hostile --minutes N [--seed S] [--controls]

Each campaign names its attacks; an attack is one try of one fault at a random place, and returns
whether the promise held. With ``--controls`` the defences are taken away one after the other, and
an attack on a missing defence has to find that: a campaign that cannot fail shows nothing.
"""

import argparse
import importlib
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CAMPAIGNS = ("kills", "damage", "hostile")
TRIES_OF_A_CONTROL = 60

Attack = Callable[[random.Random, Path], str | None]
"""One try, in an empty folder; returns what did not hold, or `None`."""


def tried(attack: Attack, seed: int) -> str | None:
    with tempfile.TemporaryDirectory(prefix="campaign-") as folder:
        try:
            return attack(random.Random(seed), Path(folder))
        except Exception:
            return traceback.format_exc()


def attacked(attacks: dict[str, Attack], seconds: float, seed: int) -> int:
    """Try all attacks in turn until the time is over; print the counts and return the failures."""
    counts = {name: [0, 0] for name in attacks}
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for name, attack in attacks.items():
            failure = tried(attack, seed + turn)
            counts[name][0] += 1
            if failure is not None:
                counts[name][1] += 1
                print(f"{name}, --seed {seed + turn}: {failure}", flush=True)
        turn += 1
    print(f"{'attack':<40} {'tried':>6} {'held':>6}")
    for name, (tries, failures) in counts.items():
        print(f"{name:<40} {tries:>6} {tries - failures:>6}")
    return sum(failures for _, failures in counts.values())


def controlled(controls: dict[str, Attack], seed: int) -> int:
    """Try each attack on a missing defence until it finds that; return how many do not."""
    unseen = 0
    for name, attack in controls.items():
        for turn in range(TRIES_OF_A_CONTROL):
            if tried(attack, seed + turn) is not None:
                print(f"without {name:<45} found at try {turn + 1}", flush=True)
                break
        else:
            unseen += 1
            print(f"without {name:<45} NOT found in {TRIES_OF_A_CONTROL} tries", flush=True)
    return unseen


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("--minutes", type=float, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--controls", action="store_true")
    options = parser.parse_args()
    importlib.import_module("campaigns.faults").compute_on_one_thread()
    campaign = importlib.import_module(f"campaigns.{options.campaign}")
    if options.controls:
        return min(controlled(campaign.CONTROLS, options.seed), 1)
    return min(attacked(campaign.ATTACKS, options.minutes * 60, options.seed), 1)


if __name__ == "__main__":
    sys.exit(main())
