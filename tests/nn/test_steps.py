"""What every optimizer's step does to latent weights: scaled updates, and the clip."""

import copy
import gc
import itertools
import math
import pickle

import pytest
import torch
from torch import nn

from bclightning.errors import UserError
from bclightning.nn import BinaryLinear, binary_layers, convert_to_binary, steps


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return convert_to_binary(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, count: int = 3) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()


def largest(model: nn.Module) -> float:
    return max(float(layer.weight.detach().abs().max()) for layer in binary_layers(model).values())


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_a_plain_loop_clips_with_any_optimizer(optimizer):
    model = network()
    step(model, optimizer(model.parameters(), lr=5.0))
    assert largest(model) == 1


def test_without_the_clip_a_plain_loop_leaves_the_bounds(monkeypatch):
    monkeypatch.setattr(steps, "_clip", lambda optimizer: None)
    model = network()
    step(model, torch.optim.Adam(model.parameters(), lr=5.0))
    assert largest(model) > 1


def test_a_biased_and_a_real_layer_are_left_alone():
    model = convert_to_binary(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), skip=["1"])
    step(model, torch.optim.Adam(model.parameters(), lr=5.0))
    assert model[0].bias.abs().max() > 1
    assert model[1].weight.abs().max() > 1


def test_it_does_not_matter_when_an_optimizer_got_a_weight():
    model = network()
    optimizer = torch.optim.Adam(model[0].parameters(), lr=5.0)
    step(model, optimizer)
    optimizer.add_param_group({"params": list(model[2].parameters())})
    step(model, optimizer)
    assert largest(model) == 1
    model[2].weight = nn.Parameter(torch.randn(2, 8) * 0.1)
    step(model, torch.optim.Adam(model.parameters(), lr=5.0))
    assert largest(model) == 1


@pytest.mark.parametrize("make", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_network_are_clipped_too(make):
    model = make(network())
    step(model, torch.optim.Adam(model.parameters(), lr=5.0))
    assert largest(model) == 1


def test_layers_are_not_kept_alive():
    layer = BinaryLinear(2, 2)
    assert id(layer) in steps._LAYERS
    key = id(layer)
    del layer
    gc.collect()
    assert key not in steps._LAYERS


def rates_within(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[int, float]:
    """The rate of each parameter within a step."""
    seen: dict[int, float] = {}

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).sum()
        loss.backward()
        for group in optimizer.param_groups:
            seen.update(dict.fromkeys(map(id, group["params"]), group["lr"]))
        return loss

    optimizer.step(closure)
    return seen


@pytest.mark.parametrize(
    ("optimizer", "power"),
    [(torch.optim.Adam, 1), (torch.optim.RMSprop, 1), (torch.optim.SGD, 2), (torch.optim.ASGD, 2)],
)
def test_updates_are_scaled_and_the_groups_stay_the_owners(optimizer, power):
    model = network()
    for layer in binary_layers(model).values():
        layer.set_scale_updates(True)
    optimizer = optimizer([{"params": [*model[0].parameters(), *model[2].parameters()]}], lr=0.25)
    groups = optimizer.param_groups
    rates = rates_within(model, optimizer)
    for layer in (model[0], model[2]):
        assert rates[id(layer.weight)] == 0.25 * layer.learning_rate_scale() ** power
        assert rates[id(layer.bias)] == 0.25
    assert optimizer.param_groups is groups
    assert [group["lr"] for group in groups] == [0.25]
    for layer in binary_layers(model).values():
        layer.set_scale_updates(False)
    assert set(rates_within(model, optimizer).values()) == {0.25}


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_scaled_step_is_the_step_of_scaled_groups(name):
    from bclightning.training import make_optimizer

    ours, twin = network(), network()
    for layer in binary_layers(ours).values():
        layer.set_scale_updates(True)
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    for model, optimizer in (
        (ours, kinds[name](ours.parameters(), lr=1e-3)),
        (twin, make_optimizer(twin, name, 1e-3)),
    ):
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
        for _ in range(3):
            step(model, optimizer)
            schedule.step()
    torch.testing.assert_close(list(ours.parameters()), list(twin.parameters()))


def test_whoever_sets_one_rate_for_all_groups_has_scaled_updates_still():
    model = network()
    model[0].set_scale_updates(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    assert rates_within(model, optimizer)[id(model[0].weight)] == 0.01 * math.sqrt(12 / 1.5)


def test_an_interrupted_step_leaves_the_owners_groups():
    model = network()
    model[0].set_scale_updates(True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.25)
    groups = optimizer.param_groups

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimizer.step(interrupted)
    assert [group["lr"] for group in optimizer.state_dict()["param_groups"]] == [0.25]
    with pytest.raises(KeyboardInterrupt):
        optimizer.step(interrupted)
    step(model, optimizer)
    assert optimizer.param_groups is groups


def test_what_an_optimizer_keeps_in_its_groups_and_groups_added_within_a_step_stay():
    class Counting(torch.optim.SGD):
        def step(self, closure=None):
            for group in self.param_groups:
                group["count"] = group.get("count", 0) + 1
            extra = {"params": [nn.Parameter(torch.zeros(1))]}
            if len(self.state) == 0 and not hasattr(self, "added"):
                self.added = True
                self.add_param_group(extra)
            return super().step(closure)

    model = network()
    model[0].set_scale_updates(True)
    optimizer = Counting(model.parameters(), lr=0.25)
    step(model, optimizer, count=2)
    assert [group["count"] for group in optimizer.param_groups] == [2, 1]


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, torch.optim.Rprop])
def test_an_optimizer_without_a_rate_to_scale_is_refused(kind):
    model = network()
    model[0].set_scale_updates(True)
    optimizer = kind(model.parameters())
    with pytest.raises(UserError, match=f"{kind.__name__} does not multiply updates"):
        optimizer.step(lambda: model(torch.ones(2, 4)).sum())


def test_every_parameter_is_in_one_group_within_a_step():
    model = network()
    model[0].set_scale_updates(True)
    groups = [{"params": [p]} for p in model.parameters()]
    optimizer = torch.optim.Adam(groups, lr=0.25)
    within = []
    optimizer.step(lambda: within.extend(optimizer.param_groups))
    everything = list(itertools.chain(*(group["params"] for group in within)))
    assert sorted(map(id, everything)) == sorted(map(id, model.parameters()))
