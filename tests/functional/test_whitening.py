"""Preprocessing against independent computations in NumPy and SciPy."""

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bclightning.functional.whitening import (
    ZCA,
    global_contrast_normalize,
    local_contrast_normalize,
)

seeds = st.integers(0, 2**31)


def images(seed: int, count: int = 3, channels: int = 3, side: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (count, channels, side, side))


@settings(max_examples=25, deadline=None)
@given(seeds, st.floats(0.5, 60))
def test_global_contrast_normalization_is_mean_and_norm_over_all_channels(seed, scale):
    x = images(seed)
    flat = x.reshape(3, -1)
    flat = flat - flat.mean(1, keepdims=True)
    expected = scale * flat / np.sqrt((flat**2).sum(1, keepdims=True))
    ours = global_contrast_normalize(torch.tensor(x), scale).numpy()
    np.testing.assert_allclose(ours.reshape(3, -1), expected, rtol=1e-9, atol=1e-12)


def test_an_image_of_one_colour_becomes_zero_and_not_nan():
    assert torch.equal(
        global_contrast_normalize(torch.full((1, 3, 4, 4), 7.0)), torch.zeros(1, 3, 4, 4)
    )


def locally(x: np.ndarray) -> np.ndarray:
    """The definition, channel by channel, with the full two-dimensional window."""
    line = np.arange(7) - 3
    window = np.exp(-(line[:, None] ** 2 + line[None] ** 2) / (2 * 2.0**2))
    window /= window.sum()
    result = np.empty_like(x)
    for index in np.ndindex(x.shape[:2]):
        plane = x[index]
        centred = plane - scipy.ndimage.convolve(plane, window, mode="constant")
        deviation = np.sqrt(scipy.ndimage.convolve(centred**2, window, mode="constant"))
        result[index] = centred / np.maximum(np.maximum(deviation, deviation.mean()), 1e-4)
    return result


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_local_contrast_normalization_follows_its_definition_in_all_channels(seed):
    x = images(seed)
    np.testing.assert_allclose(
        local_contrast_normalize(torch.tensor(x)).numpy(), locally(x), rtol=1e-6, atol=1e-8
    )


def test_a_window_without_a_middle_is_refused():
    with pytest.raises(ValueError, match="kernel_size must be odd, got 6"):
        local_contrast_normalize(torch.zeros(1, 1, 8, 8), kernel_size=6)


@settings(max_examples=10, deadline=None)
@given(seeds, st.floats(0.01, 1.0))
def test_zca_is_the_inverse_root_of_the_covariance(seed, bias):
    x = np.random.default_rng(seed).normal(size=(40, 6)) @ np.diag([5, 3, 2, 1, 0.5, 0.1])
    covariance = np.cov(x.T, bias=True) + bias * np.eye(6)
    u, s, vt = np.linalg.svd(covariance)
    expected = (x - x.mean(0)) @ (u / np.sqrt(s)) @ vt
    ours = ZCA.fit(torch.tensor(x, dtype=torch.float32), bias).apply(torch.tensor(x).float())
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-4)


def test_zca_in_parts_is_zca_at_once(monkeypatch):
    x = torch.randn(50, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    whole = ZCA.fit(x).apply(x)
    monkeypatch.setattr("bclightning.functional.whitening.CHUNK", 7)
    out = torch.empty_like(x)
    ZCA.fit(x).apply(x, out=out)
    assert torch.allclose(out, whole, atol=1e-5)
