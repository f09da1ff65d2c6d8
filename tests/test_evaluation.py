"""The test-time methods: one draw for a block, weights put back, averages that converge."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from bclightning.evaluation import ensemble_errors, errors_by_weights, sampled, scores_of
from bclightning.models import MLP
from bclightning.nn import BinaryLinear, binary_layers, evaluating_with


def network() -> nn.Module:
    torch.manual_seed(0)
    made = MLP(12, [8], 3, "stochastic")
    for layer in binary_layers(made).values():
        nn.init.uniform_(layer.weight, -0.5, 0.5)
    return made


def batches(count: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(20, 1, 3, 4, generator=generator),
            torch.randint(0, 3, (20,), generator=generator),
        )
        for _ in range(count)
    ]


def test_one_draw_serves_a_block_and_the_latent_weights_come_back():
    made = network().eval()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    images = batches()[0][0]
    with sampled(made, 3):
        first, second = made(images), made(images)
        signs = [layer.weight for layer in binary_layers(made).values()]
        assert all(bool((weight.abs() == 1).all()) for weight in signs)
    with sampled(made, 4):
        other = made(images)
    with sampled(made, 3):
        again = made(images)
    assert torch.equal(first, second)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())


def test_the_latent_weights_come_back_after_an_error_too():
    made = network()
    before = made.state_dict()["hidden.0.linear.weight"].clone()
    with pytest.raises(RuntimeError, match="in the middle"), sampled(made, 0):
        raise RuntimeError("in the middle")
    assert torch.equal(made.state_dict()["hidden.0.linear.weight"], before)


def test_the_mean_of_many_draws_of_a_linear_layer_is_its_real_weights_result():
    torch.manual_seed(0)
    layer = BinaryLinear(30, 4, bias=False, binarization="stochastic").eval()
    nn.init.uniform_(layer.weight, -1, 1)
    inputs = torch.randn(5, 30)
    total = torch.zeros(5, 4)
    for seed in range(4000):
        with sampled(layer, seed):
            total += layer(inputs)
    with evaluating_with(layer, "real"), torch.no_grad():
        exact = layer(inputs)
    # The standard error of a mean of draws: sqrt(sum x^2 (1 - w^2) / n) < 0.1.
    assert (total / 4000 - exact).abs().max() < 0.4
    with evaluating_with(layer, "binary"), torch.no_grad():
        assert (layer(inputs) - exact).abs().max() > 1


def test_an_ensemble_s_error_is_that_of_the_averaged_scores():
    from bclightning.seeds import derive_seed

    made, data = network(), batches()
    before = {key: value.clone() for key, value in made.state_dict().items()}
    as_trained, again = ensemble_errors(made, data, data, size=5, seed=7)
    total = torch.zeros(60, 3)
    for member in range(5):
        with sampled(made, derive_seed(7, member)):
            total += scores_of(made, data)
    labels = torch.cat([labels for _, labels in data])
    assert as_trained.value == 100 * int((total.argmax(1) != labels).sum()) / len(labels)
    assert (as_trained.batch_norm, again.batch_norm) == ("as trained", "re-estimated")
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
    assert made.training


def test_an_ensemble_of_weights_at_the_edge_is_the_binary_network():
    made, data = network(), batches()
    with torch.no_grad():
        for layer in binary_layers(made).values():
            layer.weight.copy_(layer.weight.sign())
    wanted = errors_by_weights(made, data, data, ["binary"])
    given = ensemble_errors(made, data, data, size=2)
    assert [(e.batch_norm, e.value) for e in given] == [(e.batch_norm, e.value) for e in wanted]


def test_an_error_has_the_digits_of_its_count():
    """119 of 10,000 are 1.19, which 100 times their share is not."""
    layer = BinaryLinear(1, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    data = [(torch.ones(10_000, 1), (torch.arange(10_000) < 119).long())]
    given = ensemble_errors(layer, data, data, size=1) + errors_by_weights(layer, data, data)
    assert [method.value for method in given] == [1.19] * 6


def test_an_ensemble_of_none_or_without_binary_weights_is_refused():
    with pytest.raises(ValueError, match="at least one network"):
        ensemble_errors(network(), batches(), batches(), size=0)
    with pytest.raises(ValueError, match="has none"):
        ensemble_errors(MLP(12, [8], 3, "none"), batches(), batches(), size=2)
    with pytest.raises(ValueError, match="no images"):
        scores_of(network(), [])


class Headed(nn.Module):
    """A network with a normalization that its forward does not pass."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.head = network(), nn.BatchNorm1d(3)

    def forward(self, images):
        return self.network(images)


def test_statistics_leave_random_numbers_and_unused_normalizations_alone():
    made, data, shuffled = Headed(), batches(), DataLoader(batches(), None, shuffle=True)
    made.head(torch.randn(8, 3))
    before = {key: value.clone() for key, value in made.state_dict().items()}
    forward = made.head.running_mean.clone()
    seen = []
    made.network.register_forward_hook(lambda *_: seen.append(made.head.running_mean.clone()))
    state = torch.get_rng_state()
    ensemble_errors(made, data, shuffled, size=2)
    errors_by_weights(made, data, shuffled)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(seen[-1], forward)
    assert all(torch.equal(value, before[key]) for key, value in made.state_dict().items())
