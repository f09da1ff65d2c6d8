"""The size of images: what a network is made for, and nothing else, goes in."""

from collections.abc import Sequence

from bclightning.errors import UserError


def check_size(what: str, given: Sequence[int], wanted: Sequence[int]) -> None:
    """See that images have the size that a network is made for.

    Args:
        what: What the images are called.
        given: Channels, height and width that they have.
        wanted: Those that they must have.

    Raises:
        UserError: They differ.

    Example:
        >>> check_size("images", (3, 32, 30), (3, 32, 32))
        Traceback (most recent call last):
        bclightning.errors.UserError: images of 3 x 32 x 30 do not fit a network for 3 x 32 x 32 \
(channels x height x width)
    """
    if tuple(given) != tuple(wanted):
        raise UserError(
            f"{what} of {_sides(given)} do not fit a network for {_sides(wanted)} "
            "(channels x height x width)"
        )


def _sides(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in shape)
