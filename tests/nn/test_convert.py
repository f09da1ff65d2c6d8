"""Conversion of any model: everything that can be is, and nothing is left real in silence."""

import copy
import functools

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


def test_a_layer_alone_is_converted_in_place():
    layer = nn.Linear(3, 2)
    assert convert_to_binary(layer) is layer
    assert type(layer) is BinaryLinear


class References(nn.Module):
    """A network that calls its layers through everything but the registered module."""

    def __init__(self) -> None:
        super().__init__()
        layers = [nn.Linear(3, 3, bias=False) for _ in range(5)]
        for index, layer in enumerate(layers):
            self.add_module(f"fc{index}", layer)
        self.listed, self.keyed = layers[:1], {"fc": layers[1]}
        self.closure = lambda x: layers[2](x)
        self.partial = functools.partial(lambda layer, x: layer(x), layers[3])
        self.called = layers[4].__call__

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.keyed["fc"](self.listed[0](x))
        return self.called(self.partial(self.closure(x)))


def test_every_reference_to_a_layer_sees_its_binary_weights():
    torch.manual_seed(0)
    network = References()
    x, expected = torch.ones(1, 3), torch.ones(1, 3)
    for weight in network.state_dict().values():
        expected = expected @ torch.where(weight >= 0, 1.0, -1.0).T
    convert_to_binary(network)
    assert torch.equal(network(x), expected)
    assert torch.equal(copy.deepcopy(network).listed[0](x), network.fc0(x))


def keep_method(layer):
    return layer.forward


def replace_forward(layer):
    layer.forward = lambda x: x


@pytest.mark.parametrize("keep", [keep_method, replace_forward])
def test_a_kept_or_replaced_forward_which_would_stay_real_is_refused(keep):
    network = model()
    kept = keep(network[3])
    with pytest.raises(TypeError, match=r"3 \(Linear\) has its forward method kept or replaced"):
        convert_to_binary(network)
    assert not binary_layers(network)
    del kept


def test_what_was_kept_and_is_garbage_does_not_count():
    network = model()
    circle = [network[3].forward]
    circle.append(circle)
    del circle
    assert "3" in binary_layers(convert_to_binary(network))


def tied() -> nn.ModuleDict:
    network = nn.ModuleDict({"embed": nn.Embedding(4, 2), "head": nn.Linear(2, 4)})
    network["head"].weight = network["embed"].weight
    return network


def by_memory() -> nn.ModuleDict:
    network = nn.ModuleDict({"embed": nn.Embedding(4, 2), "head": nn.Linear(2, 4)})
    network["head"].weight = nn.Parameter(network["embed"].weight.data)
    return network


@pytest.mark.parametrize(
    ("network", "skip", "names"),
    [
        (tied, [], r"embed \(Embedding\) shares its weight with head"),
        (by_memory, [], r"embed \(Embedding\) shares its weight with head"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), ["0"], "0 .* shares .* with 1"),
    ],
)
def test_a_weight_that_a_real_layer_shares_is_refused(network, skip, names):
    network = network()
    if skip:
        network[1].weight = network[0].weight
    with pytest.raises(TypeError, match=names):
        convert_to_binary(network, skip=skip)
    assert not binary_layers(network)


def test_binary_layers_may_share_a_weight():
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    assert list(binary_layers(convert_to_binary(network))) == ["0", "1"]


def test_an_unknown_binarization_changes_nothing():
    network = model()
    with pytest.raises(ValueError, match="not 'sign'"):
        convert_to_binary(network, "sign")
    assert not binary_layers(network)


def test_a_layer_of_another_class_has_no_binary_form():
    with pytest.raises(TypeError, match="BinaryLinear is made of Linear, not Conv2d"):
        BinaryLinear.from_float(nn.Conv2d(1, 1, 1), "deterministic")


def test_a_layer_used_in_two_places_stays_one_layer():
    shared = nn.Linear(2, 2)
    network = nn.Sequential(shared, nn.ReLU(), shared)
    convert_to_binary(network)
    assert isinstance(network[0], BinaryLayer)
    assert network[0] is network[2]


# Torch's compiler meets this with every function that has a gradient of its own.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_network_that_was_compiled_before_is_compiled_again():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 2, bias=False))
    compiled = torch.compile(network, backend="eager")
    x = torch.ones(1, 3)
    compiled(x)
    convert_to_binary(network)
    assert torch.equal(compiled(x), network(x))
    assert compiled(x).abs().sum() in (2, 4, 6)


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
    with pytest.warns(UserWarning, match=r"call bclightning.convert_to_binary\(model, 'determ"):
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
