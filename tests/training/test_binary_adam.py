"""BinaryAdam is Adam, a clip and a binarization; only faster."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from bclightning.functional import kernels
from bclightning.models import MLP
from bclightning.nn import BinaryLinear, binary_layers, clip_latent_weights_
from bclightning.training.binary_adam import BinaryAdam
from bclightning.training.optim import make_optimizer, parameter_groups


def network(regularizer="deterministic") -> nn.Module:
    torch.manual_seed(0)
    return MLP(12, [40, 30], 4, regularizer=regularizer)


def train(net, optimizer, steps=6, clip=False, autocast=False) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        x = torch.randn(20, 12, generator=generator)
        labels = torch.randint(0, 4, (20,), generator=generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(net(x).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if clip:
            clip_latent_weights_(net)
        losses.append(loss.item())
    return losses


def plain(net) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameter_groups(net, 0.01), lr=0.01)


@pytest.mark.parametrize("autocast", [False, True])
def test_it_trains_as_adam_with_a_clip(autocast, monkeypatch):
    ours, theirs = network(), network()
    fast = train(ours, make_optimizer(ours, learning_rate=0.01), autocast=autocast)
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "supports", lambda *_: False)
        slow = train(theirs, plain(theirs), clip=True, autocast=autocast)
    assert fast == pytest.approx(slow, rel=1e-3 if autocast else 1e-5)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-2 if autocast else 1e-5)
    assert any((layer.weight.abs() == 1).any() for layer in binary_layers(ours).values())


def test_without_the_kernels_it_is_the_same_and_clips(monkeypatch):
    fast, slow = network(), network()
    train(fast, make_optimizer(fast, learning_rate=0.01))
    monkeypatch.setattr(kernels, "supports", lambda *_: False)
    train(slow, make_optimizer(slow, learning_rate=0.01))
    for mine, other in zip(fast.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)
    assert all(layer.weight.abs().max() <= 1 for layer in binary_layers(slow).values())


def test_its_state_is_adams_and_goes_both_ways():
    ours, theirs = network(), network()
    optimizer, other = make_optimizer(ours, learning_rate=0.01), plain(theirs)
    train(ours, optimizer)
    train(theirs, other, clip=True)
    mine, its = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert mine.keys() == its.keys()
    for key in mine:
        assert mine[key].keys() == its[key].keys()
        for name in mine[key]:
            torch.testing.assert_close(mine[key][name], its[key][name], rtol=1e-3, atol=1e-6)
    again = make_optimizer(network(), learning_rate=0.01)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))


@pytest.mark.parametrize(
    ("option", "value"), [("weight_decay", 0.1), ("amsgrad", True), ("maximize", True)]
)
def test_options_that_it_does_not_support_are_refused(option, value):
    net = network()
    layers = binary_layers(net).values()
    groups = parameter_groups(net, 0.01)
    groups[-1][option] = value
    with pytest.raises(
        ValueError, match=f"does not support {option}={value}, which a parameter group"
    ):
        BinaryAdam(groups, layers)

    elsewhere = torch.optim.Adam(groups)
    optimizer = make_optimizer(net, learning_rate=0.01)
    optimizer.load_state_dict(elsewhere.state_dict())
    with pytest.raises(ValueError, match=option):
        train(net, optimizer)


def test_groups_have_rates_and_decays_of_their_own():
    ours, theirs = network(), network()
    options = {"betas": (0.5, 0.9), "eps": 1e-2}
    mine, others = (
        [group | options for group in parameter_groups(net, 0.01)] for net in (ours, theirs)
    )
    train(ours, BinaryAdam(mine, binary_layers(ours).values()))
    train(theirs, torch.optim.Adam(others), clip=True)
    for weight, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(weight, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("regularizer", ["none", "deterministic"])
def test_scaled_gradients_are_scaled_back_and_an_overflow_costs_the_step_alone(regularizer):
    scaled, straight = network(regularizer), network(regularizer)
    optimizers = [make_optimizer(net, learning_rate=0.01) for net in (scaled, straight)]
    # By a power of two, so that the same bits come back.
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    generator = torch.Generator().manual_seed(1)
    for step in range(4):
        x = torch.randn(20, 12, generator=generator)
        if step == 2:
            scaler.scale(scaled(x).square().sum() * 1e38).backward()
        else:
            scaler.scale(scaled(x).square().mean()).backward()
            straight(x).square().mean().backward()
            optimizers[1].step()
        scaler.step(optimizers[0])
        scaler.update()
        for optimizer in optimizers:
            optimizer.zero_grad()
    assert scaler.get_scale() == 2.0**9
    first, second = (optimizer.state_dict()["state"] for optimizer in optimizers)
    for key in second:
        for name in second[key]:
            assert torch.equal(first[key][name], second[key][name])
    for weight, other in zip(scaled.parameters(), straight.parameters(), strict=True):
        assert torch.equal(weight, other)


def has_precomputed(layer) -> bool:
    return layer._precomputed is not None


@pytest.fixture
def stepped():
    """A layer after a step, which has precomputed the weight of its next product."""
    torch.manual_seed(0)
    layer = BinaryLinear(8, 8, bias=False, binarization="stochastic")
    optimizer = BinaryAdam(layer.parameters(), [layer], lr=0.1)
    layer(torch.randn(4, 8)).sum().backward()
    optimizer.step()
    assert has_precomputed(layer)
    assert layer.weight.grad is None
    return layer


def test_a_precomputed_weight_serves_one_forward_pass(stepped):
    prepared = stepped._precomputed[0]
    assert torch.equal(stepped.effective_weight(), prepared)
    assert not has_precomputed(stepped)
    again = stepped.effective_weight()
    assert not torch.equal(again, prepared)
    assert set(again.unique().tolist()) == {-1.0, 1.0}


def test_evaluation_leaves_the_precomputed_weight(stepped):
    stepped.eval()
    assert torch.equal(stepped.effective_weight(), stepped.weight)
    assert has_precomputed(stepped)


@pytest.mark.parametrize("change", ["in place", "loaded", "autocast", "cleared"])
def test_a_precomputed_weight_that_no_longer_fits_is_not_used(stepped, change):
    prepared = stepped._precomputed[0].clone()
    enabled = change == "autocast"
    if change == "in place":
        with torch.no_grad():
            stepped.weight.fill_(1.0)
    elif change == "loaded":
        stepped.load_state_dict({"weight": torch.ones(8, 8)})
    elif change == "cleared":
        stepped.clear_precomputed_weight()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        used = stepped.effective_weight()
    if change in ("in place", "loaded"):
        assert (used == 1).all()
    else:
        assert not torch.equal(used.float(), prepared)
    assert used.dtype == (torch.bfloat16 if enabled else torch.float32)


def test_the_gradient_is_that_of_the_plain_layer(stepped):
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    weight = stepped._precomputed[0].clone().requires_grad_()
    stepped(x).square().sum().backward()
    (x @ weight.T).square().sum().backward()
    torch.testing.assert_close(stepped.weight.grad, weight.grad)


def test_a_gradient_in_somebody_elses_buffer_is_left_alone():
    torch.manual_seed(0)
    layer = BinaryLinear(4, 4, bias=False)
    optimizer = BinaryAdam(layer.parameters(), [layer], lr=0.1)
    bucket = torch.randn(32)
    before = bucket.clone()
    layer.weight.grad = bucket[:16].view(4, 4)
    optimizer.step()
    assert torch.equal(bucket, before)


@pytest.fixture
def stepped_in_bfloat16():
    return step_in_bfloat16()


def step_in_bfloat16():
    torch.manual_seed(0)
    layer = BinaryLinear(64, 64, bias=False)
    optimizer = BinaryAdam(layer.parameters(), [layer], lr=0.1)
    backward_in_bfloat16(layer)
    optimizer.step()
    return layer, optimizer


def backward_in_bfloat16(layer):
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(8, 64)).square().sum().backward()


def test_a_gradient_in_bfloat16_is_not_widened_and_its_memory_serves_on(stepped_in_bfloat16):
    layer, optimizer = stepped_in_bfloat16
    backward_in_bfloat16(layer)
    assert layer.weight.grad.dtype == torch.bfloat16
    place = layer.weight.grad.data_ptr()
    optimizer.step()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.effective_weight().data_ptr() == place


def test_gradients_of_several_batches_are_summed_in_float32(stepped_in_bfloat16):
    layer, optimizer = stepped_in_bfloat16
    generator = torch.Generator().manual_seed(5)
    parts = [torch.randn(64, 64, generator=generator).bfloat16() for _ in range(40)]
    for part in parts:
        with torch.autocast("cpu", torch.bfloat16):
            layer.effective_weight().backward(part)
    exact = torch.stack([part.double() for part in parts]).sum(0)
    torch.testing.assert_close(layer.weight.grad.double(), exact, rtol=1e-5, atol=1e-5)
    optimizer.step()
    assert has_precomputed(layer)


def test_gradients_of_several_batches_are_summed_in_64_bits_where_the_weights_have_them():
    net = network().double()
    optimizer = make_optimizer(net, learning_rate=0.01)
    weight = next(iter(binary_layers(net).values())).weight
    x = torch.randn(20, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    net(x).square().sum().backward()
    once = weight.grad.clone()
    net(x).square().sum().backward()
    assert torch.equal(weight.grad, 2 * once)
    optimizer.step()
    assert weight.dtype == torch.float64
    assert weight.abs().max() <= 1


def test_an_optimizer_leaves_nothing_on_the_weights():
    layer, optimizer = step_in_bfloat16()
    assert layer.weight._backward_hooks
    del optimizer
    gc.collect()
    assert not layer.weight._backward_hooks


def test_a_frozen_layer_stays_as_it_is_and_is_trained_and_clipped_once_thawed():
    net = network()
    frozen = next(iter(binary_layers(net).values()))
    frozen.requires_grad_(False)
    before = frozen.weight.clone()
    optimizer = make_optimizer(net, learning_rate=0.01)
    losses = train(net, optimizer)
    assert torch.equal(frozen.weight, before)
    assert losses[-1] < losses[0]
    frozen.requires_grad_(True)
    optimizer.add_param_group({"params": [frozen.weight], "lr": 5.0})
    train(net, optimizer, autocast=True)
    assert not torch.equal(frozen.weight, before)
    assert frozen.weight.abs().max() == 1


def test_a_gradient_laid_out_otherwise_is_used_all_the_same(stepped_in_bfloat16):
    layer, optimizer = stepped_in_bfloat16
    before = layer.weight.detach().clone()
    layer.weight.grad = (
        torch.ones(64, 64, dtype=torch.bfloat16).T[:, :].as_strided((64, 64), (1, 64))
    )
    optimizer.step()
    assert not torch.equal(before, layer.weight)
    assert layer.weight.abs().max() <= 1


def test_other_optimizers_get_gradients_in_the_weights_own_dtype():
    layer, optimizer = step_in_bfloat16()
    backward_in_bfloat16(layer)
    kept = layer.weight.grad
    assert kept.dtype == torch.bfloat16
    del optimizer
    gc.collect()
    assert layer.weight.grad.dtype == torch.float32
    assert torch.equal(layer.weight.grad, kept.float())
    layer.weight.grad = None
    backward_in_bfloat16(layer)
    assert layer.weight.grad.dtype == torch.float32


def test_layers_that_share_a_weight_both_see_the_update():
    torch.manual_seed(0)
    first = BinaryLinear(4, 4, bias=False)
    second = BinaryLinear(4, 4, bias=False)
    second.weight = first.weight
    optimizer = BinaryAdam([first.weight], [first, second], lr=5.0)
    second(first(torch.randn(3, 4))).sum().backward()
    optimizer.step()
    assert torch.equal(first.effective_weight(), second.effective_weight())


def test_a_closure_is_called_with_gradients_on():
    torch.manual_seed(0)
    layer = BinaryLinear(2, 2)
    optimizer = BinaryAdam(layer.parameters(), [layer])

    def closure():
        loss = layer(torch.ones(1, 2)).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).requires_grad


@pytest.mark.parametrize("regularizer", ["deterministic", "stochastic"])
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
def test_a_compiled_network_is_compiled_once_for_all_steps(regularizer):
    graphs = CompileCounter()
    net = network(regularizer)
    net.compile(backend=graphs)
    train(net, make_optimizer(net, learning_rate=0.01))
    assert graphs.frame_count == 1
