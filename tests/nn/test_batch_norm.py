"""Batch-norm statistics against means and variances computed directly."""

import copy

import pytest
import torch
from torch import nn

from bclightning.nn import (
    BinaryLinear,
    evaluating_with,
    preserving_batch_norm,
    reestimate_batch_norm_,
)
from bclightning.nn.batch_norm import tracking_batch_norms


@pytest.mark.parametrize(
    "norm",
    [nn.BatchNorm1d(2), nn.BatchNorm2d(2), nn.BatchNorm3d(2), nn.SyncBatchNorm(2)],
)
def test_every_kind_of_batch_normalization_is_found(norm):
    assert tracking_batch_norms(nn.Sequential(nn.Linear(2, 2), norm)) == [norm]


@pytest.mark.parametrize("norm", [nn.LazyBatchNorm1d, nn.LazyBatchNorm2d, nn.LazyBatchNorm3d])
def test_statistics_of_a_lazy_normalization_are_not_estimated_before_its_first_batch(norm):
    with pytest.raises(ValueError, match="uninitialized parameter"):
        reestimate_batch_norm_(norm(), [torch.ones(2, 3)])


def test_statistics_are_those_of_the_weights_in_use():
    torch.manual_seed(0)
    network = nn.Sequential(BinaryLinear(5, 3, bias=False), nn.BatchNorm1d(3))
    x = torch.randn(4, 100, 5)
    for weights in ("binary", "real"):
        with evaluating_with(network, weights):
            reestimate_batch_norm_(network, x)
            weight = network.eval()[0].effective_weight().detach()
        products = x @ weight.T
        assert torch.allclose(network[1].running_mean, products.mean((0, 1)), atol=1e-5)
        assert torch.allclose(network[1].running_var, products.var(1).mean(0), atol=1e-4)


def test_an_image_counts_the_same_in_a_small_batch_and_in_a_large_one():
    torch.manual_seed(0)
    for norm, shape in ((nn.BatchNorm1d(3), (23, 3)), (nn.BatchNorm2d(3), (23, 3, 4, 5))):
        images = torch.randn(shape)
        images[20:] += 5
        batches = images.split(20)
        reestimate_batch_norm_(norm, batches)
        others = [i for i in range(images.dim()) if i != 1]
        variances = torch.stack([batch.var(others) for batch in batches])
        torch.testing.assert_close(norm.running_mean, images.mean(others))
        expected = (20 * variances[0] + 3 * variances[1]) / 23
        torch.testing.assert_close(norm.running_var, expected)


def test_batches_of_one_size_are_averaged_as_torch_does_to_the_bit():
    torch.manual_seed(0)
    ours, theirs = nn.BatchNorm2d(3), nn.BatchNorm2d(3, momentum=None)
    batches = torch.randn(50, 7, 3, 4, 4)
    reestimate_batch_norm_(ours, batches)
    for batch in batches:
        theirs(batch)
    assert all(torch.equal(value, theirs.state_dict()[k]) for k, value in ours.state_dict().items())


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_batch_of_one_image_is_left_out(place):
    torch.manual_seed(0)
    norm, twin = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    batches = [torch.randn(8, 3), torch.randn(5, 3)]
    reestimate_batch_norm_(twin, batches)
    batches.insert(place, torch.full((1, 3), 9.0))
    reestimate_batch_norm_(norm, batches)
    assert torch.equal(norm.running_mean, twin.running_mean)
    assert torch.equal(norm.running_var, twin.running_var)


def test_images_can_come_one_by_one_if_all_do():
    torch.manual_seed(0)
    norm, images = nn.BatchNorm2d(2), torch.randn(6, 2, 4, 4)
    reestimate_batch_norm_(norm, images.split(1))
    torch.testing.assert_close(norm.running_mean, images.mean((0, 2, 3)))


def test_a_normalization_that_is_used_twice_has_the_mean_of_both_uses():
    norm = nn.BatchNorm1d(1, affine=False)
    reestimate_batch_norm_(nn.Sequential(norm, norm), [torch.tensor([[1.0], [3.0]])])
    torch.testing.assert_close(norm.running_mean, torch.tensor([1.0]))


class Headed(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.BatchNorm1d(3), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.backbone(x)


def test_a_normalization_that_forward_does_not_pass_keeps_its_statistics_and_is_named():
    network = Headed()
    network.head(torch.randn(8, 3))
    before = copy.deepcopy(network.head.state_dict())
    with pytest.warns(UserWarning, match="no batch passed through head, so .* give .* a step"):
        reestimate_batch_norm_(network, [torch.randn(8, 3)])
    after = network.head.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert network.head.momentum == 0.1


def test_a_step_runs_what_forward_does_not_and_takes_any_batch():
    network, images = Headed(), torch.randn(24, 3)

    def step(batch):
        network.head(network(batch["images"]) + 2)

    batches = [{"names": ["a"] * len(part), "images": part} for part in images.split([20, 1, 3])]
    reestimate_batch_norm_(network, batches, step)
    # The batch of one image is left out, whatever it is in.
    kept = torch.cat([images[:20], images[21:]])
    torch.testing.assert_close(network.backbone.running_mean, kept.mean(0))
    torch.testing.assert_close(network.head.running_mean, torch.full((3,), 2.0))


class Normalized(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.norm(input=x) + 1


def test_a_compiled_network_gets_the_statistics_of_a_plain_one_each_time():
    torch.manual_seed(0)
    compiled, plain = Normalized(), Normalized()
    compiled.compile(backend="eager")
    batches = torch.randn(23, 3).split(20)
    for network in (compiled, plain):
        for _ in range(3):
            network(batches[0])
            with torch.no_grad():
                network(batches[0])
            reestimate_batch_norm_(network, batches)
    assert torch.equal(compiled.norm.running_mean, plain.norm.running_mean)
    assert torch.equal(compiled.norm.running_var, plain.norm.running_var)


def test_nothing_else_of_the_network_changes():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.15), nn.Linear(3, 2))
    network[0].eval()
    x = torch.ones(2, 8, 3)
    reestimate_batch_norm_(network, x)
    assert [m.training for m in network] == [False, True, True]
    assert network[1].momentum == 0.15
    # Dropout was off although the network as a whole was in training mode.
    assert torch.equal(network[1].running_mean, torch.ones(3))


def test_statistics_are_restored_to_the_bit_even_after_an_error():
    torch.manual_seed(0)
    network = nn.BatchNorm1d(3)
    network(torch.randn(8, 3))
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def broken():
        with preserving_batch_norm(network):
            reestimate_batch_norm_(network, [torch.randn(8, 3)])
            assert not torch.equal(network.running_mean, before["running_mean"])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        broken()
    assert all(torch.equal(network.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "no batches"),
        ([torch.ones(1, 3)], "more than 1 value per channel"),
        ([torch.ones(2, 3), torch.ones(2, 4)], "4 elements not 3"),
    ],
)
def test_an_error_leaves_the_statistics_as_they_were(batches, message):
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(3)
    norm(torch.randn(8, 3))
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    with pytest.raises((ValueError, RuntimeError), match=message):
        reestimate_batch_norm_(norm, batches)
    assert all(torch.equal(norm.state_dict()[name], value) for name, value in before.items())
    assert norm.training
    assert norm.momentum == 0.1
