"""What a network may ask for: memory and work that no honest model comes near.

The description of a network is a few hundred bytes, whatever it asks for. So it is added up before
anything is allocated. The yardstick is VGG-19 on images of 224 x 224 pixels, the most expensive
network in common use: 1.4e8 weights, 2e10 multiplications, 4e7 values, of which 3e6 after one
layer. Each limit is at least five times as much, and takes gigabytes and three minutes of one core
for an image at most, as measured with the least favourable layers.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from bclightning.inference.graph import PRODUCTS, Step, label, values
from bclightning.inference.settings import SIZE_BITS, SIZE_LIMIT
from bclightning.inference.values import Value

# Multiplications of one image in all products: seconds, or minutes where torch has no fast code.
_WORK_BITS = 38

# A group of a convolution takes as long as so many multiplications, however small it is: 9 us. So
# does a matrix of a product of many small ones, which is faster.
_GROUP_WORK = 2**14

# Values that steps write, and that pooling compares.
_VALUES_BITS = 30

# Values that are in memory at the same time: those that a later step still takes.
_ALIVE_BITS = 27

# Weights in memory, each layer once, in the blocks of 32 x 32 that one storage keeps.
_WEIGHTS_BITS = 30
_BLOCK = 32


def check_limits(steps: Sequence[Step], image: tuple[int, ...]) -> list[Value]:
    """The input and what each step makes of it, after a check of what the network asks for.

    Args:
        steps: The steps.
        image: Channels, height and width of an image.

    Raises:
        ValueError: A step cannot take its inputs, or the network asks for more memory or work than
            any model needs.

    Example:
        >>> check_limits([Step("flatten")], (1, 60_000, 60_000))
        Traceback (most recent call last):
        ValueError: images of shape (1, 60000, 60000) have 2**24 values or more
    """
    if math.prod(image) >= SIZE_LIMIT:
        raise ValueError(f"images of shape {image} have 2**{SIZE_BITS} values or more")
    _check_names(steps)
    found = values(steps, image)
    work = written = 0
    for number, step in enumerate(steps, 1):
        taken = [found[before] for before in step.taken(number)]
        work += _multiplications(step, taken, found[number])
        written += _written(step, taken, found[number])
    layers = {step.name: step for step in steps if step.kind in PRODUCTS}
    weights = [_padded(step.weight_shape) for step in layers.values()]
    for what, total, bits in (
        ("multiplications for an image", work, _WORK_BITS),
        ("values for an image", written, _VALUES_BITS),
        ("values of an image in memory at the same time", _most_alive(steps, found), _ALIVE_BITS),
        ("weights", sum(weights), _WEIGHTS_BITS),
    ):
        if total > 2**bits:
            raise ValueError(
                f"the network asks for {total:.1e} {what}, more than the limit of 2**{bits}"
            )
    return found


def last_uses(steps: Sequence[Step]) -> list[list[int]]:
    """For each step the numbers of the values that nothing needs after it, its own among them.

    Args:
        steps: The steps; the result of the last one is kept.

    Example:
        >>> last_uses([Step("relu"), Step("sigmoid"), Step("add", inputs=(1, 2))])
        [[0], [], [1, 2]]
    """
    last = {0: 0}
    for number, step in enumerate(steps, 1):
        last[number] = number
        for taken in step.taken(number):
            last[taken] = number
    done: list[list[int]] = [[] for _ in steps]
    for number, user in last.items():
        if number != len(steps):
            # An input that nothing takes goes with the first step.
            done[max(user, 1) - 1].append(number)
    return done


def _most_alive(steps: Sequence[Step], found: Sequence[Value]) -> int:
    alive = most = found[0].numel
    for number, (step, done) in enumerate(zip(steps, last_uses(steps), strict=True), 1):
        taken = [found[before] for before in step.taken(number)]
        own = found[number].numel
        most = max(most, alive + own + _scores(step, taken))
        alive += own - sum(found[before].numel for before in done)
    return most


def _check_names(steps: Sequence[Step]) -> None:
    """Steps with one name share tensors, so that they must be one layer that is used again."""
    known: dict[str, Step] = {}
    for step in steps:
        if step.shapes() and not step.name:
            raise ValueError(f"{step.kind}: has tensors, and no name that says which")
        layer = replace(step, inputs=None)
        if step.name and known.setdefault(step.name, layer) != layer:
            raise ValueError(
                f"{label(step.kind, step.name)}: another step has the same name and is not the same"
            )


def _multiplications(step: Step, taken: Sequence[Value], result: Value) -> int:
    match step.kind:
        case "matmul":
            matrices = math.prod(result.sizes[:-2])
            return result.numel * taken[0].sizes[-1] + _GROUP_WORK * matrices
        case "attention":
            sizes = taken[0].sizes[-1] + taken[2].sizes[-1]
            matrices = math.prod(result.sizes[:-2])
            return _scores(step, taken) * sizes + _GROUP_WORK * matrices
        case kind if kind in PRODUCTS:
            each = math.prod(step.weight_shape[1:])
            return result.numel * each + _GROUP_WORK * step.settings.get("groups", 0)
    return 0


def _scores(step: Step, taken: Sequence[Value]) -> int:
    """What attention computes on the way: a score for each query and key."""
    if step.kind != "attention":
        return 0
    return math.prod(taken[0].sizes[:-1]) * taken[1].sizes[-2]


def _written(step: Step, taken: Sequence[Value], result: Value) -> int:
    """The values that a step writes, or that it compares or adds to find one."""
    match step.kind:
        case "max_pool1d" | "max_pool2d" | "avg_pool1d" | "avg_pool2d":
            return result.numel * math.prod(step.settings["kernel_size"])
        case "mean" | "max":
            return taken[0].numel
    return result.numel + _scores(step, taken)


def _padded(shape: tuple[int, ...]) -> int:
    rows, columns = shape[0], math.prod(shape[1:])
    return math.prod(-(-side // _BLOCK) * _BLOCK for side in (rows, columns))
