"""From the pixels of a file to what a network was trained on, as settings that a file can hold."""

import math
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


@dataclass(frozen=True)
class Preprocessing:
    """What is done with raw pixels before a network sees them (section 3).

    Attributes:
        kind: ``centred``: divided by `scale`, less the mean training image. ``whitened``: each
            image's contrast normalized to `scale`, then ZCA. ``contrast-normalized``: each image's
            contrast normalized to `scale`, then locally.
        scale: See `kind`.
        tensors: ``mean`` of a centred image (channels, height, width); ``mean`` and ``matrix`` of a
            ZCA.

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
    def white(self) -> float:
        """The largest pixel of the data set's files."""
        return self.scale if self.kind == "centred" else 255.0

    def check(self, image: tuple[int, ...]) -> None:
        """See that the tensors and the scale are what the preprocessing of such images needs.

        Args:
            image: Channels, height and width.

        Raises:
            ValueError: They are not.
        """
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ValueError("the scale of its preprocessing is no positive number")
        given = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        if given != self.shapes(image):
            raise ValueError("the tensors of its preprocessing do not fit its images")
        for name, tensor in self.tensors.items():
            if tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise ValueError(f"the {name} of its preprocessing holds numbers that are none")

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
