"""Binary layers: which weight multiplies, when, and that they stand in for the float layers."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bclightning.nn import BinaryConv2d, BinaryLinear

LAYERS = [
    (lambda **k: BinaryLinear(6, 4, **k), lambda: nn.Linear(6, 4), (2, 6)),
    (lambda **k: BinaryConv2d(2, 3, 3, **k), lambda: nn.Conv2d(2, 3, 3), (2, 2, 5, 5)),
]


@pytest.mark.parametrize(("binary", "real", "shape"), LAYERS)
def test_the_product_is_the_float_layers_with_the_signs(binary, real, shape):
    torch.manual_seed(0)
    layer, twin = binary(), real()
    twin.load_state_dict(dict(layer.state_dict()))
    with torch.no_grad():
        twin.weight.copy_(torch.where(twin.weight >= 0, 1.0, -1.0))
    x = torch.randn(shape)
    assert torch.equal(layer(x), twin(x))


@pytest.mark.parametrize(("binary", "real", "shape"), LAYERS)
def test_evaluation_uses_what_the_paper_says(binary, real, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    deterministic, stochastic, twin = binary(), binary(binarization="stochastic"), real()
    twin.load_state_dict(dict(stochastic.state_dict()))
    training = deterministic(x)
    assert torch.equal(deterministic.eval()(x), training)
    assert torch.equal(stochastic.eval()(x), twin(x))
    stochastic.eval_weights = "sampled"
    assert set(stochastic.effective_weight().unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(("binary", "real", "shape"), LAYERS)
def test_the_gradient_of_the_latent_weight_is_that_of_the_binary_weight(binary, real, shape):
    torch.manual_seed(0)
    layer = binary()
    with torch.no_grad():
        layer.weight.mul_(3)  # beyond the bounds too
    x = torch.randn(shape)
    layer(x).square().sum().backward()
    twin = real()
    twin.load_state_dict(dict(layer.state_dict()))
    with torch.no_grad():
        twin.weight.copy_(layer.effective_weight())
    twin(x).square().sum().backward()
    assert torch.equal(layer.weight.grad, twin.weight.grad)


@pytest.mark.parametrize(("binary", "real", "shape"), LAYERS)
def test_gradients_for_each_input_alone_add_up_to_the_gradient(binary, real, shape):
    torch.manual_seed(0)
    layer, x = binary(), torch.randn(shape)
    weights = {name: parameter.detach() for name, parameter in layer.named_parameters()}

    def loss(weights, one):
        return torch.func.functional_call(layer, weights, one[None]).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights, x)
    layer(x).square().sum().backward()
    assert len(each["weight"]) == len(x)
    torch.testing.assert_close(each["weight"].sum(0), layer.weight.grad)


@pytest.mark.parametrize(("binary", "real", "shape"), LAYERS)
def test_checkpoints_load_both_ways(binary, real, shape):
    torch.manual_seed(0)
    layer, twin = binary(), real()
    assert list(layer.state_dict()) == list(twin.state_dict())
    layer.load_state_dict(twin.state_dict())
    assert torch.equal(layer.weight, twin.weight)
    # The state says what its weights are, and a plain mapping of it does not.
    with pytest.warns(UserWarning, match="latent weights of a deterministic binary layer"):
        twin.load_state_dict(layer.state_dict())
    twin.load_state_dict(dict(layer.state_dict()))


@pytest.mark.parametrize(("binary", "real", "shape"), LAYERS)
def test_layers_are_copied_and_pickled(binary, real, shape):
    torch.manual_seed(0)
    layer = binary(binarization="stochastic").eval()
    x = torch.randn(shape)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x), layer(x))
        assert twin.binarization == "stochastic"


def test_initial_latent_weights_are_uniform_between_the_bounds():
    torch.manual_seed(0)
    weight = BinaryLinear(300, 100).weight.detach()
    assert weight.abs().max() <= 1
    assert abs(weight.var().item() - 1 / 3) < 0.01


def test_a_stochastic_layer_makes_a_new_draw_at_each_forward_pass():
    torch.manual_seed(0)
    layer = BinaryLinear(100, 100, binarization="stochastic")
    x = torch.randn(1, 100)
    assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("binarization", ["deterministic", "stochastic"])
def test_a_checkpointed_layer_has_the_same_weights_forward_and_backward(
    binarization, use_reentrant
):
    torch.manual_seed(0)
    layer = BinaryLinear(16, 16, bias=False, binarization=binarization)
    layer.set_precomputed_weight(layer.effective_weight().detach())
    # Two calls: only one of them could use the precomputed weight.
    for _ in range(2):
        # By a unit matrix, product and gradient of the inputs are the weights themselves.
        x = torch.eye(16, requires_grad=True)
        product = checkpoint(layer, x, use_reentrant=use_reentrant)
        layer(x)  # draws in between do not matter
        product.backward(torch.eye(16))
        assert torch.equal(x.grad, product.T)


def test_an_unknown_binarization_is_refused():
    with pytest.raises(ValueError, match="'deterministic' or 'stochastic', not 'sign'"):
        BinaryLinear(2, 2, binarization="sign")


@pytest.mark.parametrize(
    ("layer", "scale"),
    [
        (lambda: BinaryConv2d(3, 128, 3), 28.0),
        (lambda: BinaryConv2d(512, 512, 3), 78.4),
        (lambda: BinaryLinear(8192, 1024), 78.4),
        (lambda: BinaryLinear(1024, 10), 26.3),
    ],
)
def test_learning_rate_scales_of_the_cifar10_network(layer, scale):
    assert round(layer().learning_rate_scale(), 1) == scale
