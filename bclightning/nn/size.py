"""How many weights of a model are binary, and what they take to store."""

from dataclasses import dataclass

from torch import nn

from bclightning.nn.latent import binary_layers


@dataclass(frozen=True)
class ModelSize:
    """How many weights of a model are binary and real, and what they take to store.

    Attributes:
        binary_weights: Number of latent weights, one bit each when packed.
        real_weights: Number of all other parameters, 4 bytes each.
    """

    binary_weights: int
    real_weights: int

    @property
    def float_bytes(self) -> int:
        """Bytes with every parameter in 32 bits."""
        return 4 * (self.binary_weights + self.real_weights)

    @property
    def packed_bytes(self) -> int:
        """Bytes with the binary weights packed, 8 to a byte, and the rest in 32 bits."""
        return (self.binary_weights + 7) // 8 + 4 * self.real_weights


def model_size(model: nn.Module) -> ModelSize:
    """Count binary and real parameters; a parameter used in several places counts once.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> model_size(nn.Sequential(BinaryLinear(8, 4), nn.BatchNorm1d(4)))
        ModelSize(binary_weights=32, real_weights=12)
    """
    latent = {id(layer.weight): layer.weight for layer in binary_layers(model).values()}
    total = sum(parameter.numel() for parameter in model.parameters())
    binary = sum(weight.numel() for weight in latent.values())
    return ModelSize(binary_weights=binary, real_weights=total - binary)
