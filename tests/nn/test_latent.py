"""Clipping, counting and choosing between the weights of a model."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bclightning.nn import (
    BinaryConv2d,
    BinaryLinear,
    ModelSize,
    clip_latent_weights_,
    evaluating_with,
    model_size,
    trains_and_evaluates_differently,
)


def test_only_latent_weights_are_clipped():
    network = nn.Sequential(BinaryLinear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(2.0)
    clip_latent_weights_(network)
    values = {name: parameter.unique().tolist() for name, parameter in network.named_parameters()}
    assert values.pop("0.weight") == [1.0]
    assert all(value == [2.0] for value in values.values())


def test_weights_are_chosen_for_a_block_and_restored():
    network = nn.Sequential(BinaryLinear(2, 2), BinaryLinear(2, 2, binarization="stochastic"))
    assert [layer.eval_weights for layer in network] == ["binary", "real"]
    with evaluating_with(network, "sampled"):
        assert [layer.eval_weights for layer in network] == ["sampled", "sampled"]
    assert [layer.eval_weights for layer in network] == ["binary", "real"]


def test_only_stochastic_networks_evaluate_other_weights_than_they_train():
    assert not trains_and_evaluates_differently(nn.Linear(2, 2))
    assert not trains_and_evaluates_differently(BinaryLinear(2, 2))
    stochastic = BinaryLinear(2, 2, binarization="stochastic")
    assert trains_and_evaluates_differently(stochastic)
    with evaluating_with(stochastic, "sampled"):
        assert not trains_and_evaluates_differently(stochastic)


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
