"""What a network may ask for: memory and work that no honest model comes near.

The description of a network is a few hundred bytes, whatever it asks for. So it is added up before
anything is allocated. The yardstick is VGG-19 on images of 224 x 224 pixels, the most expensive
chain of layers in common use: 1.4e8 weights, 2e10 multiplications, 3e7 values and 3e6 values after
a layer. Each limit is at least five times as much, and takes minutes and gigabytes at most.
"""

import math
from collections.abc import Sequence

from bclightning.inference.graph import PRODUCTS, SIZE_BITS, Step, label, shapes

_SIZE_LIMIT = 2**SIZE_BITS

# Multiplications of one image in all products: an hour of one slow core, seconds of a usual one.
_WORK_BITS = 38

# Values that the other steps read: a pooling window's, and each result.
_VALUES_BITS = 32

# Weights in memory, each layer once, in the blocks of 32 x 32 that one storage keeps.
_WEIGHTS_BITS = 30
_BLOCK = 32


def check_limits(steps: Sequence[Step], image: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of the output for one image, after a check of what the network asks for.

    Args:
        steps: The steps.
        image: Channels, height and width of an image.

    Raises:
        ValueError: A step cannot take the output of the step before it, or the network asks for
            more memory or work than any model needs.

    Example:
        >>> check_limits([Step("flatten")], (1, 60_000, 60_000))
        Traceback (most recent call last):
        ValueError: images of shape (1, 60000, 60000) have 2**24 values or more
    """
    if math.prod(image) >= _SIZE_LIMIT:
        raise ValueError(f"images of shape {image} have 2**{SIZE_BITS} values or more")
    _check_names(steps)
    after = shapes(steps, image)
    outputs = [math.prod(shape) for shape in after]
    pairs = list(zip(steps, outputs, strict=True))
    products = [_terms(step) * count for step, count in pairs if step.kind in PRODUCTS]
    others = [_terms(step) * count for step, count in pairs if step.kind not in PRODUCTS]
    layers = {step.name: step for step in steps if step.kind in PRODUCTS}
    weights = [_padded(step.weight_shape) for step in layers.values()]
    for what, total, bits in (
        ("multiplications for an image", sum(products), _WORK_BITS),
        ("values to compare, scale or copy for an image", sum(others), _VALUES_BITS),
        ("weights", sum(weights), _WEIGHTS_BITS),
    ):
        if total > 2**bits:
            raise ValueError(
                f"the network asks for {total:.1e} {what}, more than the limit of 2**{bits}"
            )
    return after[-1] if after else image


def _check_names(steps: Sequence[Step]) -> None:
    """Steps with one name share tensors, so that they must be one layer that is used again."""
    known: dict[str, Step] = {}
    for step in steps:
        if step.name and known.setdefault(step.name, step) != step:
            raise ValueError(
                f"{label(step.kind, step.name)}: another step has the same name and is not the same"
            )


def _terms(step: Step) -> int:
    """The number of values that make one value of the result."""
    if step.kind in PRODUCTS:
        return math.prod(step.weight_shape[1:])
    return math.prod(step.settings.get("kernel_size", (1,)))


def _padded(shape: tuple[int, ...]) -> int:
    rows, columns = shape[0], math.prod(shape[1:])
    return math.prod(-(-side // _BLOCK) * _BLOCK for side in (rows, columns))
