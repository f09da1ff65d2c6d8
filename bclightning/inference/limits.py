"""What a network may ask for: memory and work that no honest model comes near.

The description of a network is a few hundred bytes, whatever it asks for. So it is added up before
anything is allocated. The yardstick is VGG-19 on images of 224 x 224 pixels, the most expensive
chain of layers in common use: 1.4e8 weights, 2e10 multiplications, 4e7 values, of which 3e6 after
one layer. Each limit is at least five times as much, and takes gigabytes and three minutes of one
core for an image at most, as measured with the least favourable layers.
"""

import math
from collections.abc import Sequence

from bclightning.inference.graph import PRODUCTS, SIZE_BITS, Step, label, shapes

_SIZE_LIMIT = 2**SIZE_BITS

# Multiplications of one image in all products: seconds, or minutes where torch has no fast code.
_WORK_BITS = 38

# A group of a convolution takes as long as so many multiplications, however small it is: 9 us.
_GROUP_WORK = 2**14

# Values that steps write, and that pooling compares.
_VALUES_BITS = 30

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
    sizes = [(step, math.prod(shape)) for step, shape in zip(steps, after, strict=True)]
    work = sum(_multiplications(step, size) for step, size in sizes)
    values = sum(size * _window(step) for step, size in sizes)
    layers = {step.name: step for step in steps if step.kind in PRODUCTS}
    weights = [_padded(step.weight_shape) for step in layers.values()]
    for what, total, bits in (
        ("multiplications for an image", work, _WORK_BITS),
        ("values for an image", values, _VALUES_BITS),
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


def _multiplications(step: Step, size: int) -> int:
    if step.kind not in PRODUCTS:
        return 0
    each = math.prod(step.weight_shape[1:])
    return size * each + _GROUP_WORK * step.settings.get("groups", 0)


def _window(step: Step) -> int:
    """The number of values that one value of the result is chosen from."""
    return math.prod(step.settings["kernel_size"]) if step.kind == "max_pool2d" else 1


def _padded(shape: tuple[int, ...]) -> int:
    rows, columns = shape[0], math.prod(shape[1:])
    return math.prod(-(-side // _BLOCK) * _BLOCK for side in (rows, columns))
