"""The numbers of binary and of real weights, and their bytes."""

from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bclightning.costs import ModelSize, model_size
from bclightning.nn import BinaryConv2d, BinaryLinear


def test_size_counts_a_shared_weight_once():
    layer = BinaryLinear(9, 5, bias=False)
    assert model_size(nn.Sequential(layer, layer)) == ModelSize(45, 0)
    size = model_size(nn.Sequential(layer, BinaryConv2d(1, 1, 3)))
    assert (size.binary_weights, size.real_weights) == (54, 1)


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_bits_are_packed_eight_to_a_byte(binary, real):
    size = ModelSize(binary, real)
    assert size.float_bytes == 4 * (binary + real)
    assert 0 <= 8 * (size.packed_bytes - 4 * real) - binary < 8
