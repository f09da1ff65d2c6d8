"""Seeds made of seeds: different where they must be, and the same for ever."""

from bclightning.seeds import derive_seed


def test_equally_many_numbers_give_seeds_of_their_own():
    small = range(12)
    triples = [(a, b, c) for a in (*small, 2**32 - 1) for b in small for c in small]
    assert len({derive_seed(*numbers) for numbers in triples}) == len(triples)
    assert all(0 <= derive_seed(*numbers) < 2**32 for numbers in triples)


def test_zeros_at_the_end_and_the_parts_of_large_numbers_are_not_told_apart():
    assert derive_seed(3, 5) == derive_seed(3, 5, 0)
    assert derive_seed(2**32) == derive_seed(0, 1)


def test_seeds_are_those_of_all_recorded_runs():
    assert derive_seed(0, 1) == 3964924996
    assert derive_seed(1, 0) == 1835504127
    assert derive_seed(3, 1, 2) == 1620210449
