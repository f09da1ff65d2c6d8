"""Interleaved timing: variants take turns, so that a disturbance affects all of them alike."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

Variant = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """A variant's time as a multiple of the base's.

    Attributes:
        name: Name of the variant.
        median: Median over rounds of the ratio within a round.
        low: First quartile of these ratios.
        high: Third quartile of these ratios.
        milliseconds: Median time of one call of the variant.
    """

    name: str
    median: float
    low: float
    high: float
    milliseconds: float


def interleave(
    variants: dict[str, Variant], base: str, rounds: int = 40, calls: int = 5, warm_up: int = 3
) -> list[Ratio]:
    """Time variants in turns and compare each with the base, round by round.

    Args:
        variants: Functions to time, by name.
        base: Name of the variant that the others are compared with.
        rounds: Number of turns of each variant.
        calls: Number of calls in a turn.
        warm_up: Number of calls of each variant before the first round.
    """
    for call in variants.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[float]] = {name: [] for name in variants}
    names = list(variants)
    for turn in range(rounds):
        # The first variant of a round changes, so that none always follows the same other one.
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            call = variants[name]
            began = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - began) / calls)
    return [_ratio(name, times[name], times[base]) for name in names]


def _ratio(name: str, times: list[float], base: list[float]) -> Ratio:
    ratios = [own / other for own, other in zip(times, base, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4)
    return Ratio(name, median, low, high, 1000 * statistics.median(times))


def show(title: str, ratios: list[Ratio], goals: dict[str, float]) -> None:
    """Print ratios with their quartiles, and the goals of those that have one."""
    print(f"\n{title}")
    width = max(len(ratio.name) for ratio in ratios)
    for ratio in ratios:
        goal = f"   goal {goals[ratio.name]:.2f}" if ratio.name in goals else ""
        print(
            f"  {ratio.name:<{width}}  {ratio.median:5.2f}  "
            f"({ratio.low:.2f} to {ratio.high:.2f})  {ratio.milliseconds:8.2f} ms{goal}",
            flush=True,
        )
