"""Clipping and choosing between the weights of a model."""

import torch
from torch import nn

from bclightning.nn import (
    BinaryLinear,
    clip_latent_weights_,
    evaluates_other_weights,
    evaluating_with,
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
    assert not evaluates_other_weights(nn.Linear(2, 2))
    assert not evaluates_other_weights(BinaryLinear(2, 2))
    stochastic = BinaryLinear(2, 2, binarization="stochastic")
    assert evaluates_other_weights(stochastic)
    with evaluating_with(stochastic, "sampled"):
        assert not evaluates_other_weights(stochastic)
