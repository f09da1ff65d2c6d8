"""The private names of torch that we use: what they say, and what would break without them."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from bclightning.functional import _torch_private, binarize_deterministic, kernels
from bclightning.nn import BinaryConv2d, BinaryLinear
from bclightning.training.binary_adam import BinaryAdam


def inside(transform, ask) -> list[bool]:
    """What `ask` says of the input of a function that a transform of `torch.func` runs."""
    answers = []

    def function(x):
        answers.append(ask(x))
        return x.sum()

    transform(function)
    return answers


X = torch.ones(2, 3)
TRANSFORMS = {
    "grad": lambda f: torch.func.grad(f)(X),
    "vmap": lambda f: torch.func.vmap(f)(X),
    "vmap of grad": lambda f: torch.func.vmap(torch.func.grad(f))(X),
    "functionalize": lambda f: torch.func.functionalize(f)(X),
}


@pytest.mark.parametrize("name", ["grad", "vmap", "vmap of grad"])
def test_transforms_are_seen_and_the_straight_through_gradient_takes_part_in_them(name):
    transform = TRANSFORMS[name]
    assert inside(transform, lambda x: _torch_private.transforms_active()) == [True]
    assert not _torch_private.transforms_active()
    # The form for plain calls would raise here.
    transform(lambda x: binarize_deterministic(x).sum())


@pytest.mark.parametrize("name", TRANSFORMS)
def test_tensors_inside_transforms_are_seen_and_kept_away_from_the_kernels(name):
    # The kernels would read memory that such a tensor does not have, or that is not its own.
    assert inside(TRANSFORMS[name], _torch_private.is_wrapped) == [True]
    assert inside(TRANSFORMS[name], kernels.supports) == [False]
    assert not _torch_private.is_wrapped(X)
    assert kernels.supports(X)


def test_checkpointed_layers_are_seen_and_do_not_use_a_draw_that_only_one_pass_would_have():
    torch.manual_seed(0)
    seen = []
    layer = BinaryLinear(3, 3, bias=False, binarization="stochastic")
    layer.register_forward_pre_hook(
        lambda *_: seen.append(_torch_private.saved_tensor_hooks_active())
    )
    layer.set_precomputed_weight(torch.full((3, 3), 7.0))
    x = torch.eye(3, requires_grad=True)
    product = checkpoint(layer, x, use_reentrant=False)
    assert seen == [True]
    assert (product.abs() == 1).all()
    layer.set_precomputed_weight(torch.full((3, 3), 7.0))
    assert (layer(x) == 7).all()
    assert seen == [True, False]


def test_the_version_counts_changes_in_place_and_outdates_a_precomputed_weight():
    torch.manual_seed(0)
    layer = BinaryLinear(3, 3, bias=False)
    changes = [
        lambda weight: weight.clamp_(-0.5, 0.5),
        lambda weight: layer.load_state_dict({"weight": torch.ones(3, 3)}),
        lambda weight: torch.autograd.graph.increment_version(weight),
    ]
    for change in changes:
        layer.set_precomputed_weight(torch.full((3, 3), 7.0))
        before = _torch_private.version(layer.weight)
        with torch.no_grad():
            change(layer.weight)
        assert _torch_private.version(layer.weight) > before
        # A weight that belongs to older latent weights would be used.
        assert not (layer.effective_weight() == 7).any()


@pytest.mark.parametrize("size", [16, 32])
def test_views_are_seen_and_a_step_does_not_write_binary_weights_into_anothers_buffer(size):
    torch.manual_seed(0)
    layer = BinaryLinear(4, 4, bias=False)
    bucket = torch.randn(size)
    before = bucket.clone()
    layer.weight.grad = bucket[:16].view(4, 4)
    assert _torch_private.is_view(layer.weight.grad)
    assert not _torch_private.is_view(layer.weight.grad.clone())
    BinaryAdam(layer.parameters(), [layer]).step()
    assert torch.equal(bucket, before)
    layer(torch.randn(2, 4)).sum().backward()
    assert not _torch_private.is_view(layer.weight.grad)


@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("padding", [1, "same"])
def test_a_binary_convolution_pads_as_torchs_does(padding, padding_mode):
    torch.manual_seed(0)
    options = {"padding": padding, "padding_mode": padding_mode, "dilation": 2, "groups": 2}
    layer, twin = BinaryConv2d(2, 4, 3, **options), nn.Conv2d(2, 4, 3, **options)
    twin.load_state_dict(dict(layer.state_dict()))
    x = torch.randn(1, 2, 6, 6)
    with torch.no_grad():
        twin.weight.copy_(layer.effective_weight())
        assert torch.equal(layer(x), twin(x))
