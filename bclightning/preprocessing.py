"""How raw pixels become a network's inputs, as settings and tensors that a file can hold."""

import reprlib
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from bclightning.functional.whitening import (
    ZCA,
    global_contrast_normalize,
    local_contrast_normalize,
)

Kind = Literal["centred", "whitened", "contrast-normalized"]


MAX_SCALE = 1e9
"""Scales beyond it, or below its inverse, are no pixels', and would overflow float32."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done with raw pixels before a network sees them (section 3).

    Attributes:
        kind: ``centred``: pixels are divided by `scale`, and the mean training image is subtracted.
            ``whitened``: each image's contrast is normalized to `scale`, then ZCA is applied.
            ``contrast-normalized``: each image's contrast is normalized to `scale`, then locally.
        scale: Divisor of the pixels, or contrast after normalization; see `kind`.
        tensors: For ``centred``, ``mean`` of shape (channels, height, width); for ``whitened``, the
            ZCA's ``mean`` of shape (features,) and ``matrix`` of shape (features, features).

    Example:
        >>> centre = Preprocessing("centred", 255.0, {"mean": torch.full((1, 1, 1), 0.5)})
        >>> centre.apply(torch.tensor([[[[255]]]], dtype=torch.uint8)).item()
        0.5
    """

    kind: Kind
    scale: float
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def apply(self, pixels: Tensor) -> Tensor:
        """Prepare raw pixels of shape (batch, channels, height, width), of any number type."""
        images = pixels.float()
        match self.kind:
            case "centred":
                return images / self.scale - self.tensors["mean"]
            case "whitened":
                whiten = ZCA(self.tensors["mean"], self.tensors["matrix"])
                return whiten.apply(global_contrast_normalize(images, self.scale))
            case "contrast-normalized":
                return local_contrast_normalize(global_contrast_normalize(images, self.scale))

    @property
    def max_pixel(self) -> float:
        """The largest pixel of the data set's files."""
        return self.scale if self.kind == "centred" else 255.0

    def check(self, image: tuple[int, ...]) -> None:
        """Check that the scale and the tensors are valid for images of a size.

        Args:
            image: Channels, height and width of an image.

        Raises:
            ValueError: They are not; the message says what was expected.

        Example:
            >>> centre = Preprocessing("centred", 255.0, {"mean": torch.full((1, 1, 1), torch.nan)})
            >>> centre.check((1, 1, 1))
            Traceback (most recent call last):
            ValueError: preprocessing: mean contains NaN or infinity
        """
        if not 1 / MAX_SCALE <= self.scale <= MAX_SCALE:
            raise ValueError(
                f"preprocessing: scale must be between {1 / MAX_SCALE:g} and {MAX_SCALE:g}, "
                f"got {self.scale}"
            )
        given = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        if given != self.shapes(image):
            raise ValueError(
                f"preprocessing: {self.kind} images of shape {image} need tensors of shapes "
                f"{self.shapes(image)}, got {reprlib.repr(given)}"
            )
        for name, tensor in self.tensors.items():
            if tensor.dtype != torch.float32:
                raise ValueError(f"preprocessing: {name} must be float32, got {tensor.dtype}")
            if not tensor.isfinite().all():
                raise ValueError(f"preprocessing: {name} contains NaN or infinity")

    def shapes(self, image: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shapes that the tensors must have, for images of shape (channels, height, width)."""
        features = image[0] * image[1] * image[2]
        match self.kind:
            case "centred":
                return {"mean": image}
            case "whitened":
                return {"mean": (features,), "matrix": (features, features)}
            case "contrast-normalized":
                return {}

    def as_json(self) -> dict[str, Any]:
        """Kind and scale as plain data; the tensors are kept elsewhere."""
        return {"kind": self.kind, "scale": self.scale}
