"""Batch-norm statistics against means and variances computed directly."""

import pytest
import torch
from torch import nn

from bclightning.nn import (
    BinaryLinear,
    evaluating_with,
    preserving_batch_norm,
    reestimate_batch_norm_,
)


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


def test_nothing_else_of_the_network_changes():
    network = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3, momentum=0.15), nn.Linear(3, 2))
    network[0].eval()
    x = torch.ones(2, 8, 3)
    reestimate_batch_norm_(network, x)
    assert [m.training for m in network] == [False, True, True]
    assert network[1].momentum == 0.15
    # Dropout was off although the network as a whole was in training mode.
    assert torch.equal(network[1].running_mean, torch.ones(3))


def test_statistics_are_put_back_to_the_bit_even_after_an_error():
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


def test_no_batches_is_an_error():
    with pytest.raises(ValueError, match="no batches"):
        reestimate_batch_norm_(nn.BatchNorm1d(3), [])
