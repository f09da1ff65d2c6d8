"""The fast path computes what the readable definitions say."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bclightning.functional import binarize_deterministic, kernels

SPECIAL = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 1.0, -1.0, 3.0, -3.0, math.inf, -math.inf])

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


@BOTH
def test_signs_are_those_of_the_definition(dtype):
    noise = torch.randn(10_001, generator=torch.Generator().manual_seed(0))
    weight = torch.cat([SPECIAL, noise])
    expected = binarize_deterministic(weight)
    result = kernels.binarize(weight, dtype)
    assert result.dtype == dtype
    assert torch.equal(result.float(), expected)
    assert kernels.binarize(torch.tensor([math.nan]), dtype).isnan().all()
    assert kernels.binarize(torch.tensor([math.nan]), dtype, key=1).isnan().all()


@BOTH
def test_draws_are_plus_one_with_the_probability_of_the_hard_sigmoid(dtype):
    torch.manual_seed(0)
    for value in (-0.999, -0.5, -0.01, 0.0, 0.3, 0.95):
        weight = torch.full((1_000_000,), value)
        mean = kernels.binarize(weight, dtype, kernels.draw_key()).float().mean().item()
        deviation = math.sqrt(1 - value**2) / 1000
        assert abs(mean - value) < 5 * deviation, value
    # At the bounds and beyond there is no chance.
    for value in (1.0, 1.5, -1.0, -1.5):
        draws = kernels.binarize(torch.full((1_000_000,), value), dtype, kernels.draw_key())
        assert (draws == math.copysign(1, value)).all()


def uniforms(key: int, count: int = 1 << 20) -> np.ndarray:
    """The draws behind a key, found by bisection: the greatest weight that is still -1."""
    low, high = torch.full((count,), -1.0), torch.full((count,), 1.0)
    for _ in range(16):
        middle = (low + high) / 2
        up = kernels.binarize(middle, key=key) > 0
        low, high = torch.where(up, low, middle), torch.where(up, middle, high)
    return ((low + high) / 2).numpy()


def test_draws_are_uniform_and_independent_of_their_neighbours_and_of_other_keys():
    rng = np.random.default_rng(0)
    keys = [int(key) for key in rng.integers(0, 2**63, 4)]
    # Keys that differ least, in either half.
    keys += [keys[0] ^ 1, keys[0] ^ (1 << 32)]
    draws = [uniforms(key) for key in keys]
    count = draws[0].size
    for values in draws:
        # Chi-square over 1,000 cells: 999 ± 45.
        cells, _ = np.histogram(values, 1000, (-1, 1))
        chi = ((cells - count / 1000) ** 2 / (count / 1000)).sum()
        assert abs(chi - 999) < 6 * math.sqrt(2 * 999)
        for lag in (1, 2, 3, 16, 784, 1024):
            correlation = np.corrcoef(values[:-lag], values[lag:])[0, 1]
            assert abs(correlation) < 6 / math.sqrt(count), lag
    for one in range(len(draws)):
        for other in range(one):
            for lag in (0, 1, 2, 1024):
                a, b = draws[one][lag:], draws[other][: count - lag]
                assert abs(np.corrcoef(a, b)[0, 1]) < 6 / math.sqrt(count), (one, other, lag)


def test_a_draw_depends_on_its_key_alone_and_not_on_the_number_of_threads():
    weight = torch.rand(100_003, generator=torch.Generator().manual_seed(0)) * 2 - 1
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(kernels.binarize(weight, key=7))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)
    assert not torch.equal(results[0], kernels.binarize(weight, key=8))


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 9000),
    seed=st.integers(0, 1000),
    rate=st.floats(1e-6, 10),
    step=st.integers(1, 3),
    dtype=st.sampled_from(kernels.DTYPES),
    key=st.one_of(st.none(), st.integers(0, 2**64 - 1)),
)
def test_the_one_pass_is_adam_then_clip_then_binarize(size, seed, rate, step, dtype, key):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.rand(size, generator=generator) * 2 - 1
    gradient = torch.randn(size, generator=generator).to(dtype)
    mean = 0.1 * torch.randn(size, generator=generator)
    square = torch.rand(size, generator=generator)
    ours = [tensor.clone() for tensor in (weight, gradient, mean, square)]
    binary = kernels.adam_update_(*ours, step=step, learning_rate=rate, key=key)

    exact = [tensor.double() for tensor in (weight, gradient, mean, square)]
    w, g, m, v = exact
    m = 0.9 * m + 0.1 * g
    v = 0.999 * v + 0.001 * g * g
    root = v.sqrt() / math.sqrt(1 - 0.999**step) + 1e-8
    w = (w - rate / (1 - 0.9**step) * m / root).clamp(-1, 1)
    torch.testing.assert_close(ours[2].double(), m, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours[3].double(), v, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(ours[0].double(), w, rtol=1e-5, atol=1e-5 * max(1, rate))
    assert ours[0].abs().max() <= 1
    assert torch.equal(binary, kernels.binarize(ours[0], dtype, key))
    assert binary.data_ptr() == ours[1].data_ptr()


def test_nan_is_not_hidden_by_the_update():
    tensors = [
        torch.tensor([0.5, 0.5]),
        torch.tensor([math.nan, 1.0]),
        torch.zeros(2),
        torch.zeros(2),
    ]
    binary = kernels.adam_update_(*tensors, step=1, learning_rate=0.1)
    assert tensors[0].isnan().tolist() == [True, False]
    assert binary.isnan().tolist() == [True, False]


def test_what_the_kernels_do_not_support():
    weight = torch.zeros(4, 4)
    assert kernels.supports(weight)
    assert kernels.supports(weight.bfloat16(), dtypes=kernels.DTYPES)
    others = [
        weight.double(),
        weight.bfloat16(),
        weight.T[:2],
        weight[:0],
        weight.to_sparse(),
        weight.to("meta"),
    ]
    assert not any(kernels.supports(tensor) for tensor in others)
    seen = []
    torch.func.vmap(lambda row: seen.append(kernels.supports(row)) or row)(weight)
    assert seen == [False]


def test_no_compiler_is_needed(tmp_path):
    """With an empty cache of its own and nothing on the search path."""
    code = (
        "import torch; from bclightning.functional import kernels; "
        "print(kernels.binarize(torch.tensor([-0.5, 0.5])).tolist())"
    )
    environment = {**os.environ, "PATH": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[-1.0, 1.0]"
