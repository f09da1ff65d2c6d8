"""Seeds made of seeds: what happens at an epoch depends on the run's seed and the epoch alone."""

import numpy as np

SEEDING = 2
"""Version of how random numbers are derived from a run's seed."""


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed that is a function of `numbers`, in their order.

    Torch's generator on a CPU looks at the low 32 bits of a seed and at no others, so numbers that
    are packed into a larger one would be lost; a hash of them is not.

    To have seeds of their own, two uses must give equally many numbers, each below 2**32: NumPy's
    `SeedSequence` does not tell zeros at the end from nothing, and takes a larger number apart into
    several. So the order of an epoch's images, of (seed, epoch), has the same seed as the epoch's
    draws on the first process, of (seed, epoch, 0). That does no harm, for each has a generator of
    its own, and makes something else of the same random numbers: an order, or masks and signs.

    Args:
        numbers: Not negative; as the run's seed, the epoch and the process's rank.

    Example:
        >>> derive_seed(0, 1) == derive_seed(1, 0)
        False
        >>> derive_seed(7, 1) == derive_seed(7, 1, 0)
        True
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
