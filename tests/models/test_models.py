"""The paper's networks: sizes by arithmetic, the same keys for all regularizers, the order."""

import pytest
import torch
from torch import nn

from bclightning.costs import model_size
from bclightning.models import MLP, ConvNet
from bclightning.nn import binary_layers
from bclightning.vocabulary import REGULARIZERS

SVHN = {"channels": [64, 128, 256]}


@pytest.mark.parametrize(
    ("network", "weights"),
    [(MLP, 2_910_208), (ConvNet, 14_022_016), (lambda **k: ConvNet(**SVHN, **k), 6_397_632)],
)
def test_binary_weights_of_the_papers_networks(network, weights):
    with torch.device("meta"):
        assert model_size(network()).binary_weights == weights


def test_learning_rate_scales_of_the_cifar10_network():
    with torch.device("meta"):
        layers = binary_layers(ConvNet())
    scales = {name: round(layer.learning_rate_scale(), 1) for name, layer in layers.items()}
    assert scales["features.0.conv"] == 28.0
    assert scales["features.5.conv"] == 78.4
    assert scales["hidden.0.linear"] == 78.4
    assert scales["output.linear"] == 26.3


@pytest.mark.parametrize("network", [lambda r: MLP(6, [5, 4], 3, r), lambda r: small(r)])
def test_networks_have_the_same_keys_with_all_regularizers_and_differ_in_the_weights_alone(network):
    networks = {regularizer: network(regularizer) for regularizer in REGULARIZERS}
    keys = [list(net.state_dict()) for net in networks.values()]
    assert all(other == keys[0] for other in keys)
    assert not binary_layers(networks["none"])
    assert not binary_layers(networks["dropout"])
    assert all(layer.bias is None for layer in binary_layers(networks["stochastic"]).values())
    kinds = {
        regularizer: [type(m).__name__ for m in net.modules() if not list(m.children())]
        for regularizer, net in networks.items()
    }
    assert [k for k in kinds["dropout"] if k != "Dropout"] == kinds["none"]
    assert [k.removeprefix("Binary") for k in kinds["deterministic"]] == kinds["none"]
    assert "Dropout" in kinds["dropout"]


def test_pixels_and_hidden_units_have_dropout_rates_of_their_own():
    def rates(network: nn.Module) -> list[float]:
        return [m.p for m in network.modules() if isinstance(m, nn.Dropout)]

    assert rates(MLP(6, [5, 4], 3, "dropout")) == [0.5, 0.5]
    assert rates(MLP(6, [5, 4], 3, "dropout", input_dropout=0.2)) == [0.2, 0.5, 0.5]
    assert rates(MLP(6, [], 3, "dropout", input_dropout=0.2)) == [0.2]
    assert rates(MLP(6, [5], 3, "stochastic", input_dropout=0.2)) == [0.2]
    assert rates(MLP(6, [5], 3, "stochastic", dropout=0.2)) == []


def small(regularizer: str) -> ConvNet:
    return ConvNet(8, 2, [2, 3], 5, 4, regularizer=regularizer)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_images_become_scores(regularizer):
    torch.manual_seed(0)
    assert MLP(12, [5], 3, regularizer)(torch.randn(4, 3, 2, 2)).shape == (4, 3)
    assert small(regularizer)(torch.randn(4, 2, 8, 8)).shape == (4, 4)


def test_the_order_is_convolution_pooling_normalization_activation():
    block = ConvNet(width=0.1).features[1]
    assert [type(m) for m in block][1:] == [nn.MaxPool2d, nn.BatchNorm2d, nn.ReLU]
    assert block.norm.eps == 1e-4
    assert [type(m) for m in MLP().output][1:] == [nn.BatchNorm1d]


def test_the_permutation_invariant_network_does_not_see_where_pixels_are():
    torch.manual_seed(0)
    network = MLP(16, [8], 3)
    order = torch.randperm(16)
    x = torch.randn(5, 1, 4, 4)
    scores = network(x)
    with torch.no_grad():
        network.hidden[0].linear.weight.copy_(network.hidden[0].linear.weight[:, order])
    assert torch.allclose(network(x.flatten(1)[:, order]), scores, atol=1e-5)


def test_width_scales_all_channels():
    network = ConvNet(width=0.25)
    assert [b.conv.out_channels for b in network.features] == [32, 32, 64, 64, 128, 128]
    assert network.hidden[1].linear.out_features == 256


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(hidden=[0]), "at least one unit"),
        (lambda: MLP(regularizer="binary"), "none, dropout, deterministic, stochastic"),
        (lambda: MLP(regularizer="dropout", input_dropout=-0.1), "not -0.1"),
        (lambda: MLP(dropout=1.0), r"must be in \[0, 1\), not 1.0"),
        (lambda: ConvNet(width=0.0001), "raise the width factor"),
        (lambda: ConvNet(image_size=4), "cannot be halved 3 times"),
    ],
)
def test_impossible_networks_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
