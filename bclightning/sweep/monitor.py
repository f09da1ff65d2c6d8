"""The metric that the trials of a sweep are judged by."""

from collections.abc import Iterable
from dataclasses import dataclass

from bclightning.vocabulary import TEST_ERROR, VAL_ERROR, MonitorMode

# Errors in percent; any other metric is called by its name and has no unit.
_ERRORS = {VAL_ERROR: "validation error", TEST_ERROR: "test error"}


@dataclass(frozen=True)
class Monitor:
    """The monitored metric and its direction.

    Attributes:
        metric: Name of the metric, as the model logs it.
        mode: Whether the lowest (``min``) or the highest value (``max``) is the best.

    Example:
        >>> Monitor("val/acc", "max").best([0.25, 0.75, 0.5])
        0.75
    """

    metric: str = VAL_ERROR
    mode: MonitorMode = "min"

    def cost(self, value: float) -> float:
        """A number that is lower for a better value."""
        return value if self.mode == "min" else -value

    def best(self, values: Iterable[float]) -> float | None:
        """The best of some values; ``None`` if there are none."""
        return min(values, key=self.cost, default=None)


def score_text(metric: str, value: float) -> str:
    """A metric's name and value for people to read.

    Example:
        >>> score_text("val/error", 1.5), score_text("val/acc", 0.98765)
        ('validation error 1.50 %', 'val/acc 0.9877')
    """
    return f"{_ERRORS.get(metric, metric)} {value_text(metric, value)}"


def value_text(metric: str, value: float) -> str:
    """A metric's value for people to read."""
    return f"{value:.2f} %" if metric in _ERRORS else f"{value:.4g}"
