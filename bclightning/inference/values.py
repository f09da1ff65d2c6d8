"""The values between the steps of a network: their sizes, and which axis the batch has."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """What is known of a value for every size of the batch.

    Attributes:
        sizes: The size of each axis. The batch's axis has its size for a batch of one image, as
            2 where two rows of each image were made rows of the batch.
        batch: The axis that grows with the batch; ``None`` for a parameter, which has none.

    Example:
        >>> str(Value((1, 3, 8, 8))), str(Value((4, 8), batch=None)), str(Value((7, 2, 8), 1))
        ('(3, 8, 8)', '(4, 8)', '(7, 2*batch, 8)')
    """

    sizes: tuple[int, ...]
    batch: int | None = 0

    @property
    def numel(self) -> int:
        """Elements for a batch of one image."""
        return math.prod(self.sizes)

    @property
    def of_an_image(self) -> tuple[int, ...]:
        """The shape of one image's part, without an axis that only counts images."""
        if self.batch is None or self.sizes[self.batch] != 1:
            return self.sizes
        return self.sizes[: self.batch] + self.sizes[self.batch + 1 :]

    def with_sizes(self, sizes: Sequence[int]) -> "Value":
        """The same axes with other sizes."""
        return Value(tuple(sizes), self.batch)

    def __str__(self) -> str:
        """The shape of one image's part, or the sizes with a word for the batch's."""
        if self.batch == 0 and self.sizes[0] == 1:
            return str(self.sizes[1:])
        shown = [str(size) for size in self.sizes]
        if self.batch is not None:
            factor = self.sizes[self.batch]
            shown[self.batch] = "batch" if factor == 1 else f"{factor}*batch"
        return f"({', '.join(shown)}{',' if len(shown) == 1 else ''})"


def broadcast(a: Value, b: Value) -> Value | None:
    """The value that two values make element by element; ``None`` if they do not fit.

    Axes are matched from the last, as in torch.

    Example:
        >>> broadcast(Value((1, 8, 4, 4)), Value((8, 1, 1), batch=None))
        Value(sizes=(1, 8, 4, 4), batch=0)
        >>> broadcast(Value((1, 8)), Value((1, 8, 4, 4))) is None  # two axes of the batch
        True
    """
    length = max(len(a.sizes), len(b.sizes))
    places = {
        value.batch + length - len(value.sizes) for value in (a, b) if value.batch is not None
    }
    if len(places) > 1:
        return None
    batch = next(iter(places), None)
    sizes = []
    for axis in range(length):
        x, y = (
            value.sizes[axis - length] if length - axis <= len(value.sizes) else 1
            for value in (a, b)
        )
        if axis == batch and not _same_batch(a, b, x, y):
            return None
        if x != y and 1 not in (x, y):
            return None
        sizes.append(max(x, y))
    return Value(tuple(sizes), batch)


def _same_batch(a: Value, b: Value, x: int, y: int) -> bool:
    if a.batch is not None and b.batch is not None:
        return x == y
    return (y if b.batch is None else x) == 1
