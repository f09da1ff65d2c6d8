"""Splits by class: shares, no image twice, the same for a seed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bclightning.data.stratified import check_fractions, stratified
from bclightning.errors import DataError

CLASSES = ["a", "b", "c"]
SHARES = st.fixed_dictionaries({"val": st.floats(0.05, 0.4), "test": st.floats(0.05, 0.4)})
counts = st.lists(st.integers(12, 60), min_size=3, max_size=3)


def images(counts: list[int]) -> list[tuple[str, int]]:
    return [
        (f"{CLASSES[label]}/{n}", label) for label, count in enumerate(counts) for n in range(count)
    ]


def split(files: list[tuple[str, int]], shares: dict[str, float], seed: int) -> dict[str, set[str]]:
    names, labels = zip(*files, strict=True)
    parts = stratified(names, labels, CLASSES, shares, seed)
    return {part: {names[place] for place in places} for part, places in parts.items()}


@given(counts, SHARES, st.integers(0, 1000))
def test_every_class_has_its_share_and_every_image_one_split(counts, shares, seed):
    parts = split(images(counts), shares, seed)
    assert sum(map(len, parts.values())) == sum(counts)
    assert set.union(*parts.values()) == {name for name, _ in images(counts)}
    for label, count in enumerate(counts):
        for part, share in shares.items():
            mine = [name for name in parts[part] if name.startswith(CLASSES[label])]
            assert abs(len(mine) - count * share) <= 0.5 + 1e-9


@settings(max_examples=30)
@given(counts, st.randoms(use_true_random=False), st.integers(0, 1000))
def test_the_order_of_the_file_system_plays_no_part(counts, random, seed):
    files = images(counts)
    shuffled = random.sample(files, len(files))
    shares = {"val": 0.2, "test": 0.1}
    assert split(files, shares, seed) == split(shuffled, shares, seed)


def test_seeds_differ_and_an_added_image_moves_few():
    files = images([40, 40, 40])
    shares = {"val": 0.25}
    assert split(files, shares, 0) != split(files, shares, 1)
    before = split(files, shares, 0)["val"]
    after = split([*files, ("b/new", 1)], shares, 0)["val"]
    assert len(before ^ after) <= 2


def test_too_few_images_and_fractions_out_of_range():
    with pytest.raises(DataError, match="class 'b' has 2 images, too few for 3 splits"):
        split(
            [("a/1", 0), ("a/2", 0), ("a/3", 0), ("b/1", 1), ("b/2", 1)],
            {"val": 0.1, "test": 0.1},
            0,
        )
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="must be between 0 and 1"):
            check_fractions(val_fraction=fraction)
