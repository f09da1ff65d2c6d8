"""Binarization against the definitions of section 2.2, and what a plain sigmoid would give."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from bclightning.functional import binarize_deterministic, binarize_stochastic

finite = st.floats(-4, 4, width=32)


def plainly(weight: np.ndarray) -> np.ndarray:
    return np.array([1.0 if value >= 0 else -1.0 for value in weight], dtype=np.float32)


@given(arrays(np.float32, st.integers(1, 50), elements=finite))
def test_deterministic_is_plus_one_exactly_where_the_weight_is_not_negative(weight):
    binary = binarize_deterministic(torch.from_numpy(weight))
    np.testing.assert_array_equal(binary.numpy(), plainly(weight))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_zeros_of_both_signs_go_to_plus_one_and_the_smallest_negative_to_minus_one(dtype):
    smallest = -torch.finfo(dtype).smallest_normal
    binary = binarize_deterministic(torch.tensor([0.0, -0.0, smallest, math.inf], dtype=dtype))
    assert binary.tolist() == [1, 1, -1, 1]
    assert binary.dtype == dtype


@pytest.mark.parametrize("binarize", [binarize_deterministic, binarize_stochastic])
def test_nan_stays_nan(binarize):
    torch.manual_seed(0)
    assert binarize(torch.tensor([math.nan])).isnan().all()


@pytest.mark.parametrize("binarize", [binarize_deterministic, binarize_stochastic])
def test_the_gradient_reaches_the_latent_weight_unchanged_even_beyond_the_bounds(binarize):
    torch.manual_seed(0)
    weight = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0], requires_grad=True)
    gradient = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0])
    binarize(weight).backward(gradient)
    assert torch.equal(weight.grad, gradient)


@pytest.mark.parametrize("binarize", [binarize_deterministic, binarize_stochastic])
def test_the_latent_weight_is_not_changed(binarize):
    torch.manual_seed(0)
    weight = torch.linspace(-1, 1, 11)
    before = weight.clone()
    binarize(weight)
    assert torch.equal(weight, before)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own
def test_the_transforms_of_torch_func_see_the_same_gradient():
    weight, factors = torch.tensor([-3.0, -0.5, 0.5, 3.0]), torch.tensor([1.0, -2.0, 3.0, -4.0])

    def product(latent):
        return (factors * binarize_deterministic(latent)).sum()

    assert torch.equal(torch.func.grad(product)(weight), factors)
    _, forward = torch.func.jvp(product, (weight,), (torch.ones(4),))
    assert forward == factors.sum()
    several = torch.func.vmap(torch.func.grad(product))(torch.stack([weight, -weight]))
    assert torch.equal(several, torch.stack([factors, factors]))


def test_each_map_of_torch_func_can_have_a_draw_of_its_own():
    torch.manual_seed(0)
    weights = torch.zeros(2, 100)
    draws = torch.func.vmap(binarize_stochastic, randomness="different")(weights)
    assert set(draws.unique().tolist()) == {-1.0, 1.0}
    assert not torch.equal(*draws)


def p_value(probability_of, draws: int = 4000) -> float:
    """Chi-squared over many weights: do the counts of +1 follow `probability_of`?"""
    weights = np.linspace(-0.95, 0.95, 39)
    generator = torch.Generator().manual_seed(1)
    stacked = torch.tensor(weights).expand(draws, -1).contiguous()
    ups = (binarize_stochastic(stacked, generator) > 0).sum(0).numpy()
    expected = np.array([probability_of(w) for w in weights])
    z = (ups - draws * expected) / np.sqrt(draws * expected * (1 - expected))
    return float(stats.chi2.sf((z**2).sum(), len(weights)))


def test_draws_follow_the_hard_sigmoid():
    assert p_value(lambda w: (w + 1) / 2) > 0.001


def test_the_test_of_draws_refuses_a_plain_sigmoid():
    assert p_value(lambda w: 1 / (1 + math.exp(-w))) < 1e-12


@given(st.floats(1, 100, width=32), st.integers(0, 2**32))
def test_weights_at_or_beyond_the_bounds_are_certain(size, seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.tensor([size, -size]).repeat(100)
    assert torch.equal(binarize_stochastic(weight, generator), weight.sign())


def test_each_call_is_a_fresh_draw_of_signs():
    torch.manual_seed(0)
    weight = torch.zeros(1000)
    first, second = binarize_stochastic(weight), binarize_stochastic(weight)
    assert set(first.tolist()) == {-1.0, 1.0}
    assert not torch.equal(first, second)


def test_a_draw_is_a_function_of_the_generators_state():
    weight = torch.linspace(-1, 1, 101)
    draws = [binarize_stochastic(weight, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*draws)


def test_stochastic_keeps_the_dtype():
    torch.manual_seed(0)
    assert binarize_stochastic(torch.zeros(3, dtype=torch.bfloat16)).dtype == torch.bfloat16
