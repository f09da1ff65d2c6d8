"""Is one bit as good as float? Arms tested for equivalence within a margin."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from bclightning.compare.power import LEVEL, seeds_to_settle, tost
from bclightning.compare.statistics import Sample, holm, welch
from bclightning.errors import UserError

Verdict = Literal["equivalent", "different", "not settled"]


@dataclass(frozen=True)
class Side:
    """One side of a test of equivalence.

    Attributes:
        label: Label of the arm.
        sample: Its results.
        size: Size of its model in bytes.
    """

    label: str
    sample: Sample
    size: int


@dataclass(frozen=True)
class Equivalence:
    """Two arms, tested for equivalence and for a difference.

    Attributes:
        first: Label of one arm, of real weights where the other is of one bit.
        second: Label of the other arm.
        difference: Mean of the second less that of the first, for errors in percentage points.
        low: Lower end of the 90 % interval of the difference; ``None`` where there is no test, for
            lack of runs or of any spread.
        high: Its upper end.
        margin: The largest difference that does not matter; ``None`` if none was given.
        p: Of equivalence, by two one-sided t-tests; ``None`` without a margin or a test.
        p_holm: Corrected for the number of pairs.
        p_different: Of no difference, by Welch's t-test, two-sided.
        p_different_holm: Corrected for the number of pairs.
        seeds: Runs of each arm at which the pair is expected to be settled; ``None`` where it is,
            or where more than 1000 were needed.
        first_bytes: Size of the first arm's model.
        second_bytes: Size of the second arm's model.
    """

    first: str
    second: str
    difference: float
    low: float | None
    high: float | None
    margin: float | None
    p: float | None
    p_holm: float | None
    p_different: float | None
    p_different_holm: float | None
    seeds: int | None
    first_bytes: int
    second_bytes: int

    @property
    def least_margin(self) -> float | None:
        """The smallest margin within which this pair by itself is equivalent at 5 %."""
        if self.low is None or self.high is None:
            return None
        return max(abs(self.low), abs(self.high))

    @property
    def verdict(self) -> Verdict | None:
        """What the corrected tests say at 5 %; ``None`` without a margin or a test.

        A difference that is beyond chance and yet within the margin is ``equivalent``.
        """
        if self.p_holm is None or self.p_different_holm is None:
            return None
        if self.p_holm < LEVEL:
            return "equivalent"
        return "different" if self.p_different_holm < LEVEL else "not settled"


def check_margin(margin: float | None) -> float | None:
    """The margin, if it is one.

    Raises:
        UserError: It is not a number above 0.
    """
    if margin is not None and not (math.isfinite(margin) and margin > 0):
        raise UserError(
            f"a margin of {margin:g} is not a number above 0; give the largest difference that "
            "does not matter, in the unit of the values, as 0.5 for half a percentage point"
        )
    return margin


def equivalences(
    pairs: Sequence[tuple[Side, Side]], margin: float | None = None
) -> list[Equivalence]:
    """Test each pair for equivalence and for a difference, corrected for the number of pairs.

    Args:
        pairs: The sides of each pair.
        margin: The largest difference that does not matter, in the unit of the values.

    Raises:
        UserError: The margin is not a number above 0.
    """
    check_margin(margin)
    samples = [(first.sample, second.sample) for first, second in pairs]
    tests = [tost(second, first, margin) for first, second in samples]
    welchs = [welch(second, first) for first, second in samples]
    p = [None if test is None else test.p for test in tests]
    p_different = [None if test is None else test.p for test in welchs]
    p_holm, p_different_holm = holm(p), holm(p_different)
    number = sum(test is not None for test in tests)
    found = []
    for place, (first, second) in enumerate(pairs):
        test = tests[place]
        corrected = [q for q in (p_holm[place], p_different_holm[place]) if q is not None]
        settled = not corrected or min(corrected) < LEVEL
        found.append(
            Equivalence(
                first=first.label,
                second=second.label,
                difference=second.sample.mean - first.sample.mean,
                low=None if test is None else test.low,
                high=None if test is None else test.high,
                margin=margin,
                p=p[place],
                p_holm=p_holm[place],
                p_different=p_different[place],
                p_different_holm=p_different_holm[place],
                seeds=None if settled else seeds_to_settle(*samples[place], margin, number),
                first_bytes=first.size,
                second_bytes=second.size,
            )
        )
    return found
