"""An estimate of the energy that a network takes, from published figures per operation.

The figures are those of M. Horowitz, "Computing's energy problem (and what we can do about it)",
ISSCC 2014, for a 45 nm process at 0.9 V: 3.7 pJ for a multiplication and 0.9 pJ for an addition of
32-bit floats, and 1.3 to 2.6 nJ for 64 bits from DRAM, of which the lower one is taken here. Newer
processes need less for all of them; their ratios, which are what is compared, change slowly.
"""

from dataclasses import dataclass

from bclightning.nn.operations import Operations

MULTIPLICATION = 3.7e-12
"""Joules for a multiplication of 32-bit floats."""

ADDITION = 0.9e-12
"""Joules for an addition of 32-bit floats."""

DRAM_BIT = 1.3e-9 / 64
"""Joules for a bit that is read from DRAM."""


@dataclass(frozen=True)
class Energy:
    """The energy for one image, in joules.

    Attributes:
        arithmetic: Multiplications and additions.
        traffic: Reading all weights once, which a single image makes necessary and a batch shares.
    """

    arithmetic: float
    traffic: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.arithmetic + self.traffic


def energy(operations: Operations, bits: int) -> Energy:
    """The energy of operations on 32-bit floats, and of reading weights from DRAM.

    Args:
        operations: Of one image.
        bits: That all weights take.

    Example:
        >>> energy(Operations(multiplications=1_000_000, additions=0), 64).arithmetic
        3.7e-06
        >>> energy(Operations(), 64).traffic
        1.3e-09
    """
    arithmetic = operations.multiplications * MULTIPLICATION + operations.additions * ADDITION
    return Energy(arithmetic, bits * DRAM_BIT)
