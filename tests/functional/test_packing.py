"""Bits in place of signs: nothing is lost, and products on the bits are products."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bclightning.functional.bit_product import bit_linear, by_groups
from bclightning.functional.packing import pack_signs, unpack_signs

shapes = st.one_of(
    st.tuples(st.integers(1, 40)),
    st.tuples(st.integers(1, 40), st.integers(1, 70)),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 5), st.integers(1, 5)),
)


@given(shape=shapes, seed=st.integers(0, 1000))
def test_signs_come_back_from_their_bits(shape, seed):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    packed = pack_signs(weight)
    assert packed.numel() == shape[0] * math.ceil(math.prod(shape[1:]) / 8)
    back = unpack_signs(packed, shape)
    assert torch.equal(back, torch.where(weight >= 0, 1.0, -1.0))


def test_both_zeros_are_plus_one():
    assert pack_signs(torch.tensor([[0.0, -0.0, -1e-45]])).tolist() == [[3]]


@pytest.mark.parametrize("weight", [torch.zeros(0, 3), torch.tensor(1.0), torch.tensor([math.nan])])
def test_what_has_no_signs_is_refused(weight):
    with pytest.raises(ValueError, match="sign"):
        pack_signs(weight)


def test_bytes_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 1\) .* do not match weights of shape \(2, 9\)"):
        unpack_signs(torch.zeros(2, 1, dtype=torch.uint8), (2, 9))
    with pytest.raises(ValueError, match=r"float32 do not match weights of shape \(2, 9\)"):
        unpack_signs(torch.zeros(2, 2), (2, 9))


@settings(deadline=None)
@given(
    outputs=st.integers(1, 300),
    features=st.integers(1, 200),
    batch=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_a_product_on_the_bits_is_the_product(outputs, features, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randint(0, 2, (outputs, features), generator=generator).double() * 2 - 1
    inputs = torch.randn(batch, features, generator=generator)
    result = bit_linear(inputs, by_groups(pack_signs(weight)))
    torch.testing.assert_close(result.double(), inputs.double() @ weight.T, rtol=1e-4, atol=1e-4)


def test_a_large_product_is_the_same_with_one_thread_and_with_two():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1031, 1000, generator=generator)
    inputs = torch.randn(1, 1000, generator=generator)
    bits = by_groups(pack_signs(weight))
    threads = torch.get_num_threads()
    try:
        results = []
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(bit_linear(inputs, bits))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_inputs_of_another_size_are_refused():
    with pytest.raises(ValueError, match="do not match a packed matrix for 9 to 16 features"):
        bit_linear(torch.zeros(1, 17), torch.zeros(2, 5, dtype=torch.uint8))
