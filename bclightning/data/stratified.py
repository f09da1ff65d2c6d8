"""Splits that hold each class's share, and depend on names and a seed alone."""

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence

from bclightning.errors import DataError


def stratified(
    names: Sequence[str],
    labels: Sequence[int],
    class_names: Sequence[str],
    fractions: Mapping[str, float],
    seed: int,
) -> dict[str, list[int]]:
    """Split images so that each split has the same share of every class.

    The images of a class are ordered by a hash of the seed and their names, and the first ones go
    to the first split. So the split is the same in whatever order the file system lists them, and
    an image that is added moves few others.

    Args:
        names: Names of the images, each another one.
        labels: Class index of each image.
        class_names: Names of the classes.
        fractions: Share of each split but ``train``, which has the rest.
        seed: Seed of the split.

    Returns:
        The places of each split's images, in the order of `names`. Of every class each split has
        the nearest whole number to its share, and at least one.

    Raises:
        DataError: A class has too few images.

    Example:
        >>> stratified("abcdef", [0, 0, 0, 1, 1, 1], ["no", "yes"], {"val": 0.3}, seed=0)
        {'train': [0, 1, 3, 4], 'val': [2, 5]}
    """
    members: dict[int, list[int]] = {label: [] for label in range(len(class_names))}
    for place, label in enumerate(labels):
        members[label].append(place)
    splits: dict[str, list[int]] = {"train": [], **{split: [] for split in fractions}}
    for label, places in members.items():
        places.sort(key=lambda place: _rank(names[place], seed))
        counts = [max(1, int(len(places) * share + 0.5)) for share in fractions.values()]
        if sum(counts) >= len(places):
            raise DataError(
                f"class {class_names[label]!r} has {len(places)} images, too few for {len(splits)} "
                f"splits; at least {len(splits)} are needed, or smaller fractions"
            )
        start = 0
        for split, count in zip(fractions, counts, strict=True):
            splits[split] += places[start : start + count]
            start += count
        splits["train"] += places[start:]
    return {split: sorted(places) for split, places in splits.items()}


def check_fractions(**fractions: float) -> None:
    """Check the shares of splits.

    Raises:
        ValueError: One is not between 0 and 1, or they leave nothing to train on.

    Example:
        >>> check_fractions(val_fraction=0.5, test_fraction=0.5)
        Traceback (most recent call last):
        ValueError: val_fraction and test_fraction add up to 1, and leave nothing to train on
    """
    for key, share in fractions.items():
        if not 0 < share < 1:
            raise ValueError(f"{key} must be between 0 and 1, and is {share:g}")
    if sum(fractions.values()) >= 1:
        raise ValueError(
            f"{' and '.join(fractions)} add up to {sum(fractions.values()):g}, and leave nothing "
            "to train on"
        )


def _rank(name: str, seed: int) -> bytes:
    # Composed, since macOS may list the same name in another form; then the name as it is, so that
    # two that differ in their form alone have an order too.
    composed = unicodedata.normalize("NFC", name)
    text = f"{seed}/{composed}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest() + name.encode(
        errors="surrogateescape"
    )
