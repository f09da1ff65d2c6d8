"""A metric that runs are judged by: what tables call it, and how they show its values."""

from dataclasses import dataclass

from bclightning.compare.statistics import Sample
from bclightning.vocabulary import TEST_ERROR, VAL_ERROR, MonitorMode

_ERRORS = {VAL_ERROR: "validation error", TEST_ERROR: "test error"}


@dataclass(frozen=True)
class Metric:
    """A metric by its name.

    ``val/error`` and ``test/error`` are percentages and have names in words; any other metric goes
    by the name that it was logged under.

    Attributes:
        name: Name that it was logged under.
        mode: For a monitored metric, whether the lowest or the highest value is the best; ``None``
            for the test metric, which chooses nothing.

    Example:
        >>> Metric("val/error", "min").heading, Metric("val_acc", "max").heading
        ('validation error %', 'best val_acc (max)')
    """

    name: str
    mode: MonitorMode | None = None

    @property
    def is_error(self) -> bool:
        """Whether it is an error in percent of which less is better."""
        return self.name in _ERRORS and self.mode != "max"

    @property
    def words(self) -> str:
        """The metric in running text."""
        return _ERRORS[self.name] if self.is_error else self.name

    @property
    def plural(self) -> str:
        """The values of several runs in running text."""
        if self.is_error:
            return f"{self.words}s"
        return f"best {self.name}" if self.mode else self.name

    @property
    def heading(self) -> str:
        """Heading of a column of its values."""
        if self.is_error:
            return f"{self.words} %"
        return f"best {self.name} ({self.mode})" if self.mode else self.name

    @property
    def axis_label(self) -> str:
        """Label of an axis of its values."""
        return f"{self.words}, %" if self.is_error else self.name

    @property
    def best(self) -> str:
        """The best value in running text.

        Example:
            >>> Metric("val/error", "min").best, Metric("val_acc", "max").best
            ('lowest validation error', 'highest val_acc')
        """
        return f"{'highest' if self.mode == 'max' else 'lowest'} {self.words}"

    def number(self, value: float) -> str:
        """A value: two decimals of an error in percent, else four significant digits.

        Example:
            >>> Metric("test/error").number(1.234), Metric("test_acc").number(0.98765)
            ('1.23', '0.9877')
        """
        return f"{value:.2f}" if self.is_error else f"{value:#.4g}".rstrip(".")

    def difference(self, value: float) -> str:
        """A difference of two values, with its sign."""
        return f"{value:+.2f}" if self.is_error else f"{value:+#.4g}".rstrip(".")

    def show(self, sample: Sample | None) -> str:
        """Mean ± standard deviation; a hyphen where nothing is known."""
        return "-" if sample is None else sample.text(self.number)

    def interval(self, sample: Sample) -> str:
        """The 95 % interval of the mean; a hyphen for one run."""
        return sample.interval_text(self.number)
