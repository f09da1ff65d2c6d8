"""Seeds derived from a run's seed: what an epoch draws depends on that seed and the epoch alone."""

import hashlib
from dataclasses import dataclass

import numpy as np

SEEDING = 2
"""Version of how random numbers are derived from a run's seed, for new runs; see `RunSeeds`."""


def derive_seed(*numbers: int, purpose: str | None = None) -> int:
    """A 32-bit seed that is a function of `numbers`, in their order, and of `purpose`.

    Torch's generator on a CPU uses the low 32 bits of a seed and ignores the others, so numbers
    that are packed into a larger one would be lost; a hash of them is not.

    NumPy's `SeedSequence`, which computes the hash, does not tell trailing zeros from nothing and
    splits a number of 2**32 or more into several. Without a purpose, two uses therefore have
    different seeds only if they give equally many numbers, each below 2**32. A purpose puts 32
    bits of its SHA-256 first, so that uses with different purposes may give any numbers.

    Args:
        numbers: Integers that are not negative, as the run's seed, the epoch and the process's
            rank.
        purpose: Name of what the seed is for; `None` for a hash of the numbers alone.

    Raises:
        ValueError: A number is negative.

    Example:
        >>> derive_seed(0, 1) == derive_seed(1, 0)
        False
        >>> derive_seed(7, 1) == derive_seed(7, 1, 0)  # a trailing zero
        True
        >>> derive_seed(7, 1, purpose="order") == derive_seed(7, 1, 0, purpose="draws")
        False
    """
    if purpose is not None:
        tag = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")
        numbers = (tag, *numbers)
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


@dataclass(frozen=True)
class RunSeeds:
    """The seeds of a run: one for the order of each epoch's images, one for each epoch's draws.

    There are two versions of how they are derived. In version 1, that of runs recorded in format
    1, the order of epoch e and the draws of epoch e on the first process have the same seed, since
    (seed, e) and (seed, e, 0) differ by a trailing zero alone, which `derive_seed` does not see.
    Version 2 derives each for a purpose of its own, so that dropout and stochastic weights are
    independent of the order. Version 1 stays, so that older runs can be resumed and reproduced.

    Attributes:
        seed: The run's seed, from 0 to 2**32 - 1.
        version: How the seeds are derived: 1 or 2.

    Raises:
        ValueError: The seed is negative, or the version is unknown.

    Example:
        >>> new, old = RunSeeds(7), RunSeeds(7, version=1)
        >>> new.order(epoch=3) == new.draws(epoch=3), old.order(epoch=3) == old.draws(epoch=3)
        (False, True)
    """

    seed: int
    version: int = SEEDING

    def __post_init__(self) -> None:
        """Refuse a negative seed and an unknown version."""
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, and is {self.seed}")
        if self.version not in (1, 2):
            raise ValueError(f"seeding version must be 1 or 2, and is {self.version}")

    def order(self, epoch: int) -> int:
        """Seed of the order of an epoch's training images, the same on all processes.

        Example:
            >>> RunSeeds(7).order(epoch=3), RunSeeds(7, version=1).order(epoch=3)
            (2476349525, 3466196061)
        """
        if self.version == 1:
            return derive_seed(self.seed, epoch)
        return derive_seed(self.seed, epoch, purpose="order")

    def draws(self, epoch: int, rank: int = 0) -> int:
        """Seed of what an epoch draws on one process: dropout masks, stochastic weights.

        Args:
            epoch: Number of the epoch, from 0.
            rank: Number of the process, from 0.

        Example:
            >>> RunSeeds(7).draws(epoch=3, rank=1), RunSeeds(7, version=1).draws(epoch=3, rank=1)
            (2102727016, 1060801321)
        """
        if self.version == 1:
            return derive_seed(self.seed, epoch, rank)
        return derive_seed(self.seed, epoch, rank, purpose="draws")
