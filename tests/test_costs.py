"""Costs of layers, against counts by hand and against what the paper says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bclightning.costs import ModelSize, Operations, energy, layer_costs, model_size
from bclightning.models import MLP, ConvNet
from bclightning.nn import BinaryConv2d, BinaryLinear, convert_to_binary


def total(costs, which: str) -> Operations:
    return sum((getattr(cost, which) for cost in costs), Operations())


def test_the_mnist_network_by_hand():
    costs = {cost.name: cost for cost in layer_costs(MLP(), (1, 28, 28))}
    first, second = costs["hidden.0.linear"], costs["hidden.1.linear"]
    assert first.test == Operations(0, 784 * 1024)
    # No gradient of the image, and no multiplication forward.
    assert first.train == Operations(784 * 1024, 2 * 784 * 1024)
    assert second.train == Operations(1024 * 1024, 3 * 1024 * 1024)
    assert second.float_train == Operations(3 * 1024 * 1024, 3 * 1024 * 1024)
    assert costs["hidden.0.norm"].test == Operations(1024, 1024)
    assert first.bits == first.parameters == 784 * 1024
    assert costs["output.norm"].bits == 32 * 20


def test_the_convolutional_network_has_the_617_million_of_the_paper_s_recipe():
    """FACTS of the recipe: 617 M multiply-accumulates an image forward, 2/3 saved in training."""
    costs = [cost for cost in layer_costs(ConvNet(), (3, 32, 32)) if cost.binary]
    assert round(total(costs, "test").additions / 1e6) == 617
    saved = 1 - total(costs, "train").multiplications / total(costs, "float_train").multiplications
    assert saved == pytest.approx(2 / 3, abs=0.002)


# Few: a conversion looks through all objects of the process.
@settings(max_examples=20)
@given(
    batch_norm=st.booleans(),
    widths=st.lists(st.integers(1, 20), min_size=1, max_size=3),
    seed=st.integers(0, 10),
)
def test_binary_weights_change_multiplications_and_bits_alone(batch_norm, widths, seed):
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    before = 6
    for width in widths:
        layers += [nn.Linear(before, width), *([nn.BatchNorm1d(width)] if batch_norm else [])]
        before = width
    network = nn.Sequential(*layers)
    real = layer_costs(network, (6,))
    binary = layer_costs(convert_to_binary(network), (6,))
    for twin, cost in zip(real, binary, strict=True):
        assert (cost.float_test, cost.float_train) == (twin.test, twin.train)
        assert cost.test.additions == twin.test.additions
        assert cost.train.additions == twin.train.additions
        assert cost.parameters == twin.parameters
    size = model_size(network)
    assert sum(cost.bits for cost in binary) == size.binary_weights + 32 * size.real_weights
    assert sum(cost.bits for cost in real) == 8 * size.float_bytes


class Twice(nn.Module):
    """A layer that is used twice, beside one with the same weight and one of an unknown kind."""

    def __init__(self):
        super().__init__()
        self.linear = BinaryLinear(4, 4, bias=False)
        self.tied = BinaryLinear(4, 4, bias=False)
        self.tied.weight = self.linear.weight
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return self.norm(self.tied(self.linear(self.linear(x)) + x))


def test_what_is_used_twice_works_twice_and_is_stored_once():
    network = Twice()
    linear, tied, norm = layer_costs(network, (4,))
    assert linear.test == Operations(0, 32)
    assert tied.test == Operations(0, 16)
    assert (linear.parameters, tied.parameters) == (16, 0)
    assert (linear.bits, tied.bits) == (16, 0)
    assert norm.test is None
    assert network.training


def test_frozen_layers_need_no_gradient_of_weights():
    network = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False))
    network[0].weight.requires_grad_(False)
    first, second = layer_costs(network, (4,))
    assert first.train == Operations(16, 16)
    assert second.train == Operations(16, 16)


def test_a_normalization_without_parameters_works_too_and_every_mode_is_as_it_was():
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False)).bfloat16()
    network[1].eval()
    costs = layer_costs(network, (4,))
    assert [cost.test for cost in costs] == [Operations(12, 12), Operations(3, 3)]
    assert costs[1].bits == 0
    assert [module.training for module in network.modules()] == [True, True, False]


def test_energy_is_the_sum_of_its_parts():
    estimate = energy(Operations(10, 100), 6400)
    assert estimate.arithmetic == pytest.approx(10 * 3.7e-12 + 100 * 0.9e-12)
    assert estimate.traffic == pytest.approx(130e-9)
    assert estimate.total == estimate.arithmetic + estimate.traffic


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
