"""Conversion of any model: everything that can be is, and nothing is left real in silence."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm

from bclightning.nn import BinaryConv2d, BinaryLayer, BinaryLinear, binary_layers, convert_to_binary


def model() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)
    )


def test_all_layers_become_binary_and_share_their_parameters():
    network = model()
    parameters = dict(network.named_parameters())
    keys = list(network.state_dict())
    assert convert_to_binary(network, "stochastic") is network
    assert list(binary_layers(network)) == ["0", "3"]
    assert isinstance(network[0], BinaryConv2d)
    assert all(layer.binarization == "stochastic" for layer in binary_layers(network).values())
    assert list(network.state_dict()) == keys
    assert all(value is parameters[name] for name, value in network.named_parameters())


@pytest.mark.parametrize("skip", [["3"], "3", lambda name, module: isinstance(module, nn.Linear)])
def test_what_is_skipped_stays_real(skip):
    network = convert_to_binary(model(), skip=skip)
    assert type(network[3]) is nn.Linear
    assert list(binary_layers(network)) == ["0"]


def test_a_skip_covers_what_is_inside():
    network = nn.ModuleDict({"body": model(), "head": nn.Sequential(nn.Linear(2, 2))})
    convert_to_binary(network, skip=["head"])
    assert list(binary_layers(network)) == ["body.0", "body.3"]


def test_a_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(ValueError, match="skip='hed' matches no module of Sequential"):
        convert_to_binary(model(), skip=["hed"])


@pytest.mark.parametrize("network", [nn.ReLU(), nn.Sequential(nn.BatchNorm1d(2))])
def test_converting_nothing_is_an_error(network):
    with pytest.raises(ValueError, match="no Linear or Conv2d to convert in"):
        convert_to_binary(network)


def test_skipping_everything_is_an_error():
    with pytest.raises(ValueError, match="all of them are skipped"):
        convert_to_binary(model(), skip=["*"])


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (nn.Conv1d(1, 1, 3), "Conv1d"),
        (nn.ConvTranspose2d(1, 1, 3), "ConvTranspose2d"),
        (nn.LSTM(2, 2), "LSTM"),
        (nn.Bilinear(2, 2, 2), "Bilinear"),
        (nn.MultiheadAttention(4, 2), "MultiheadAttention"),
        (parametrizations.weight_norm(nn.Linear(2, 2)), "ParametrizedLinear"),
        (parametrizations.orthogonal(nn.Conv2d(2, 2, 1)), "ParametrizedConv2d"),
        (parametrizations.weight_norm(nn.Conv1d(2, 2, 1)), "ParametrizedConv1d"),
        (spectral_norm(nn.Linear(2, 2)), "Linear"),
        (prune.identity(nn.Linear(2, 2), "weight"), "Linear"),
    ],
)
def test_a_layer_that_cannot_be_converted_is_named(layer, name):
    network = nn.ModuleDict({"first": nn.Linear(2, 2), "odd": layer})
    with pytest.raises(TypeError, match=rf"odd \({name}\) cannot be made binary"):
        convert_to_binary(network)
    # The refusal comes before anything was changed.
    assert not binary_layers(network)
    assert list(binary_layers(convert_to_binary(network, skip=["odd"]))) == ["first"]


class Conditional(nn.BatchNorm2d):
    """A normalization with a weight matrix."""

    def __init__(self):
        super().__init__(2)
        self.embedded_weight = nn.Parameter(torch.zeros(3, 2))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Embedding(3, 2),
        nn.EmbeddingBag(3, 2),
        nn.LayerNorm((2, 2)),
        nn.RMSNorm((2, 2)),
        Conditional(),
        nn.LazyBatchNorm1d(),
        nn.LazyBatchNorm2d(),
        nn.LazyBatchNorm3d(),
        nn.LazyInstanceNorm1d(affine=True),
        nn.LazyInstanceNorm2d(affine=True),
        nn.LazyInstanceNorm3d(affine=True),
    ],
)
def test_embeddings_and_normalizations_stay_real(layer):
    network = nn.ModuleDict({"first": nn.Linear(2, 2), "other": layer})
    convert_to_binary(network)
    assert network["other"] is layer
    assert list(binary_layers(network)) == ["first"]


def test_converting_twice_is_an_error():
    with pytest.raises(TypeError, match="is binary already"):
        convert_to_binary(convert_to_binary(model()))


def test_a_layer_alone_is_converted_into_the_result():
    layer = convert_to_binary(nn.Linear(3, 2))
    assert isinstance(layer, BinaryLinear)


def test_a_layer_used_in_two_places_stays_one_layer():
    shared = nn.Linear(2, 2)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    convert_to_binary(network)
    assert isinstance(network[0], BinaryLayer)
    assert network[0] is network[2]


def test_hooks_and_mode_come_along():
    layer = nn.Linear(2, 2).eval()
    calls = []
    layer.register_forward_hook(lambda *_: calls.append(1))
    network = convert_to_binary(nn.Sequential(layer))
    network(torch.zeros(1, 2))
    assert calls == [1]
    assert not network[0].training


def test_a_real_model_is_a_warm_start_and_gets_its_weights_back():
    torch.manual_seed(0)
    real = model()
    binary = convert_to_binary(model())
    binary.load_state_dict(real.state_dict())
    back = model()
    back.load_state_dict(binary.state_dict())
    x = torch.randn(2, 1, 3, 3)
    assert torch.equal(back.eval()(x), real.eval()(x))


class Block(nn.Module):
    """A pre-norm transformer block of plain linear layers."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        x = x + self.proj(nn.functional.scaled_dot_product_attention(q, k, v))
        return x + self.mlp(self.norms[1](x))


def test_a_transformer_block_trains_with_binary_weights():
    torch.manual_seed(0)
    block = convert_to_binary(Block(), "stochastic")
    assert list(binary_layers(block)) == ["qkv", "proj", "mlp.0", "mlp.2"]
    block(torch.randn(2, 3, 8)).sum().backward()
    assert all(layer.weight.grad.abs().sum() > 0 for layer in binary_layers(block).values())


def test_torchs_transformer_layer_evaluates_with_binary_weights_too():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    convert_to_binary(layer, skip=["self_attn"])
    x = torch.randn(2, 3, 8)
    training = layer(x)
    with torch.inference_mode():
        assert torch.allclose(layer.eval()(x), training, atol=1e-5)
