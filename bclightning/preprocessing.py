"""How raw pixels become a network's inputs, as settings and tensors that a file can hold."""

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bclightning.functional.whitening import (
    ZCA,
    global_contrast_normalize,
    local_contrast_normalize,
)
from bclightning.image_files import Fit

Kind = Literal["centred", "whitened", "contrast-normalized", "standardized"]


MAX_SCALE = 1e9
"""Scales beyond it, or below its inverse, are no pixels', and would overflow float32."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done with raw pixels before a network sees them (section 3).

    Attributes:
        kind: ``centred``: pixels are divided by `scale`, and the mean training image is subtracted.
            ``whitened``: each image's contrast is normalized to `scale`, then ZCA is applied.
            ``contrast-normalized``: each image's contrast is normalized to `scale`, then locally.
            ``standardized``: values are divided by `scale`, and each channel's, or feature's, mean
            and standard deviation become 0 and 1.
        scale: Divisor of the pixels, or contrast after normalization; see `kind`. Standardized
            values that are no pixels, and may be any numbers, have a scale of 1.
        tensors: For ``centred``, ``mean`` of shape (channels, height, width); for ``whitened``, the
            ZCA's ``mean`` of shape (features,) and ``matrix`` of shape (features, features); for
            ``standardized``, ``mean`` and ``deviation`` of shape (channels, 1, ...), or (features,)
            for vectors.
        fit: How images of other sizes are resized (`bclightning.image_files.decode`); ``None`` if
            all have the size that the network takes.

    Example:
        >>> centre = Preprocessing("centred", 255.0, {"mean": torch.full((1, 1, 1), 0.5)})
        >>> centre.apply(torch.tensor([[[[255]]]], dtype=torch.uint8)).item()
        0.5
    """

    kind: Kind
    scale: float
    tensors: dict[str, Tensor] = field(default_factory=dict)
    fit: Fit | None = None

    def apply(self, pixels: Tensor) -> Tensor:
        """Prepare raw pixels of shape (batch, channels, height, width), of any number type.

        Standardized ones may have other axes after the first.
        """
        images = pixels.float()
        match self.kind:
            case "centred":
                return images / self.scale - self.tensors["mean"]
            case "whitened":
                whiten = ZCA(self.tensors["mean"], self.tensors["matrix"])
                return whiten.apply(global_contrast_normalize(images, self.scale))
            case "contrast-normalized":
                return local_contrast_normalize(global_contrast_normalize(images, self.scale))
            case "standardized":
                return (images / self.scale - self.tensors["mean"]) / self.tensors["deviation"]

    @property
    def max_pixel(self) -> float:
        """The largest pixel of the data set's files; infinity for values that are no pixels."""
        match self.kind:
            case "centred":
                return self.scale
            case "standardized":
                return self.scale if self.scale != 1 else math.inf
        return 255.0

    def check(self, image: tuple[int, ...]) -> None:
        """Check that the scale and the tensors are valid for images of a size.

        Args:
            image: Shape of an image: channels, height and width; for signals channels and length,
                for vectors the number of features.

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
            if name == "deviation" and not (tensor > 0).all():
                raise ValueError("preprocessing: a standard deviation must be positive")
        if self.fit is not None and (len(image) != 3 or image[0] not in (1, 3)):
            raise ValueError(f"preprocessing: images of shape {image} cannot be resized")

    def shapes(self, image: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        """The shapes that the tensors must have, for images of shape (channels, height, width)."""
        features = math.prod(image)
        match self.kind:
            case "centred":
                return {"mean": image}
            case "whitened":
                return {"mean": (features,), "matrix": (features, features)}
            case "contrast-normalized":
                return {}
            case "standardized":
                each = (image[0], *[1] * (len(image) - 1))
                return {"mean": each, "deviation": each}

    def as_json(self) -> dict[str, Any]:
        """Kind, scale and fit as plain data; the tensors are kept elsewhere."""
        content: dict[str, Any] = {"kind": self.kind, "scale": self.scale}
        # Only where there is one: a file of before has none.
        return content if self.fit is None else content | {"fit": self.fit}

    @classmethod
    def parse(cls, content: Mapping[str, Any], tensors: dict[str, Tensor]) -> "Preprocessing":
        """Make it from plain data, as a file has them.

        Args:
            content: What `as_json` returned.
            tensors: The tensors.

        Raises:
            KeyError: The kind or the scale is missing.
            ValueError: A value is unknown, or of another type.
        """
        kind, scale, fit = content["kind"], content["scale"], content.get("fit")
        if kind not in get_args(Kind):
            raise ValueError(f"unsupported preprocessing: {reprlib.repr(kind)}")
        if type(scale) not in (int, float):
            raise ValueError(f"preprocessing: scale must be a number, got {reprlib.repr(scale)}")
        if fit is not None and fit not in get_args(Fit):
            raise ValueError(f"preprocessing: unsupported fit {reprlib.repr(fit)}")
        return cls(kind, float(scale), tensors, fit)
