"""Seeds made of seeds: what happens at an epoch depends on the run's seed and the epoch alone."""

import numpy as np


def derive_seed(*numbers: int) -> int:
    """A 32-bit seed that is a function of all of `numbers`, in their order.

    Torch's generator on a CPU looks at the low 32 bits of a seed and at no others, so numbers that
    are packed into a larger one would be lost; a hash of them is not.

    Args:
        numbers: Not negative; as the run's seed, the epoch and the process's rank.

    Example:
        >>> derive_seed(0, 1) == derive_seed(1, 0)
        False
    """
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
