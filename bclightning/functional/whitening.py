"""Preprocessing of images: contrast normalization and ZCA whitening (sections 3.2 and 3.3)."""

from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

# Number of images to whiten at once, which bounds the memory whatever the size of the data set.
CHUNK = 5000

SMALLEST_NORM = 1e-8
"""Norm below which an image is of a single colour, and is not divided by it."""

WINDOW, SIGMA, SMALLEST_DEVIATION = 7, 2.0, 1e-4
"""Local contrast: width of the window and deviation of the Gaussian, and the smallest divisor."""


def global_contrast_normalize(
    images: Tensor, scale: float = 1.0, floor: float = SMALLEST_NORM
) -> Tensor:
    """Subtract each image's mean, and divide by its L2 norm over all pixels and channels.

    Args:
        images: Images of shape (batch, ...), floating.
        scale: Norm of the results (55 for CIFAR-10, 1 for SVHN).
        floor: Smallest norm to divide by; an image below it, one of a single colour, is only
            centred.

    Returns:
        A new tensor of the same shape.

    Example:
        >>> global_contrast_normalize(torch.tensor([[1.0, 7.0]]), scale=10.0)
        tensor([[-7.0711,  7.0711]])
    """
    flat = images.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    norm = centred.norm(dim=1, keepdim=True)
    norm = torch.where(norm < floor, 1.0, norm)
    return (centred * (scale / norm)).reshape(images.shape)


def local_contrast_normalize(
    images: Tensor,
    kernel_size: int = WINDOW,
    sigma: float = SIGMA,
    threshold: float = SMALLEST_DEVIATION,
) -> Tensor:
    """Normalize each pixel by the Gaussian-weighted mean and deviation around it, in each channel.

    After Jarrett et al., *What is the best multi-stage architecture for object recognition?* (ICCV
    2009), section 2.1, with zeros beyond the border: subtract the weighted mean, then divide by the
    weighted deviation, its mean over the channel, or `threshold`, whichever is largest.

    Args:
        images: Images of shape (batch, channels, height, width), floating.
        kernel_size: Width of the Gaussian window in pixels, odd.
        sigma: Standard deviation of the Gaussian in pixels.
        threshold: Smallest divisor.

    Returns:
        A new tensor of the same shape.

    Raises:
        ValueError: The kernel size is even.

    Example:
        >>> local_contrast_normalize(torch.zeros(1, 1, 8, 8)).abs().sum()
        tensor(0.)
    """
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd, got {kernel_size}")
    line = gaussian_window(kernel_size, sigma, images.dtype, images.device)

    def blur(values: Tensor) -> Tensor:
        # A Gaussian window is separable: two one-dimensional convolutions are the same and cheaper.
        half = kernel_size // 2
        flat = values.reshape(-1, 1, *values.shape[-2:])
        flat = functional.conv2d(flat, line.reshape(1, 1, -1, 1), padding=(half, 0))
        flat = functional.conv2d(flat, line.reshape(1, 1, 1, -1), padding=(0, half))
        return flat.reshape(values.shape)

    centred = images - blur(images)
    deviation = blur(centred.square()).clamp_min(0).sqrt()
    divisor = torch.maximum(deviation, deviation.mean((-2, -1), keepdim=True))
    return centred / divisor.clamp_min(threshold)


def gaussian_window(
    kernel_size: int = WINDOW,
    sigma: float = SIGMA,
    dtype: torch.dtype = torch.float32,
    device: torch.device | None = None,
) -> Tensor:
    """The weights of a Gaussian window in one dimension, which sum to 1, of shape (kernel_size,).

    Args:
        kernel_size: Width of the window in pixels.
        sigma: Standard deviation in pixels.
        dtype: Dtype of the weights.
        device: Device of the weights; the CPU if `None`.

    Example:
        >>> gaussian_window(3, 1.0)
        tensor([0.2741, 0.4519, 0.2741])
    """
    offsets = torch.arange(kernel_size, dtype=dtype, device=device)
    line = torch.exp(-((offsets - kernel_size // 2) ** 2) / (2 * sigma**2))
    return line / line.sum()


class ZCA:
    """ZCA whitening, which decorrelates pixels but keeps images recognizable (section 3.2).

    Args:
        mean: Mean of the training images, of shape (features,).
        matrix: Whitening matrix, symmetric, of shape (features, features).

    Example:
        >>> images = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) * 3
        >>> white = ZCA.fit(images, bias=0.0).apply(images)
        >>> torch.allclose(white.T @ white / 500, torch.eye(4), atol=1e-4)
        True
    """

    def __init__(self, mean: Tensor, matrix: Tensor) -> None:
        self.mean = mean
        self.matrix = matrix

    @classmethod
    def fit(cls, images: Tensor, bias: float = 0.1) -> Self:
        """Estimate mean and whitening matrix, in double precision.

        Args:
            images: Training images of shape (batch, ...).
            bias: Number added to each eigenvalue of the covariance, against the noise in small
                ones.
        """
        flat = images.flatten(1)
        features = flat.shape[1]
        mean = torch.zeros(features, dtype=torch.float64)
        for part in torch.split(flat, CHUNK):
            mean += part.double().sum(0)
        mean /= len(flat)
        covariance = torch.zeros(features, features, dtype=torch.float64)
        for part in torch.split(flat, CHUNK):
            centred = part.double() - mean
            covariance.addmm_(centred.T, centred)
        covariance /= len(flat)
        values, vectors = torch.linalg.eigh(covariance)
        matrix = (vectors * (values + bias).rsqrt()) @ vectors.T
        return cls(mean.float(), matrix.float())

    def apply(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Whiten images of shape (batch, ...), into `out` if it is given (of the same shape)."""
        result = torch.empty_like(images, dtype=torch.float32) if out is None else out
        for part, place in zip(torch.split(images, CHUNK), torch.split(result, CHUNK), strict=True):
            white = (part.flatten(1) - self.mean) @ self.matrix
            place.copy_(white.reshape(part.shape))
        return result
