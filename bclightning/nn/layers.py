"""Layers with binary weights: ordinary torch layers that binarize their weight as they use it."""

import math
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from bclightning.functional import (
    binarize_deterministic,
    binarize_stochastic,
    kernels,
    straight_through,
)

Binarization = Literal["deterministic", "stochastic"]
"""How a layer binarizes its latent weight in training (section 2.2)."""

LayerWeights = Literal["binary", "real", "sampled"]
"""What a layer multiplies by in evaluation: the signs, the latent weights, or a fresh draw."""


class BinaryLayer(nn.Module):
    """What binary layers share; the base to test with `isinstance`, not to instantiate.

    `weight` stays the latent weight, so that the keys of ``state_dict()`` equal the float layer's
    and checkpoints load both ways.

    Attributes:
        weight: The latent weight, real-valued and kept in [-1, 1] by clipping.
        binarization: The rule in training mode.
        eval_weights: What evaluation mode uses. The paper's choice by default: the binary weights
            after deterministic training, the real ones after stochastic training (section 2.6).
    """

    weight: Tensor
    binarization: Binarization
    eval_weights: LayerWeights
    # What an optimizer that binarizes as it updates has made for the next forward pass, with the
    # version of the weight that it was made of.
    _ready: tuple[Tensor, int] | None = None
    # The dtype of the last product in training, which the next one will want too.
    product_dtype: torch.dtype = torch.float32

    def effective_weight(self) -> Tensor:
        """The weight that the layer's product uses now, in the latent weight's shape and dtype."""
        weights = self.eval_weights
        if self.training:
            weights = "binary" if self.binarization == "deterministic" else "sampled"
        match weights:
            case "real":
                return self.weight
            case "binary" | "sampled":
                return self._binarized(drawn=weights == "sampled")

    def make_ready(self, binary: Tensor) -> None:
        """Give the binary weights for the next forward pass in training, which takes them.

        They serve once, and only if the latent weight has not changed since; a change through
        ``weight.data``, which torch does not count, goes unseen. Drawn ones do not serve under
        activation checkpointing, whose second forward pass could not have them: both passes then
        draw the same, as long as the checkpoint restores torch's generator (its
        ``preserve_rng_state``, true by default).

        Args:
            binary: Of the present latent weight, by the layer's own rule, in its shape.
        """
        self._ready = (binary, self.weight._version)

    def forget_ready(self) -> None:
        """Let the next forward pass binarize anew."""
        self._ready = None

    def _binarized(self, drawn: bool) -> Tensor:
        dtype = self.weight.dtype
        if torch.is_autocast_enabled(self.weight.device.type):
            dtype = torch.get_autocast_dtype(self.weight.device.type)
        # A compiled graph binarizes by itself: a tensor that is another one at each step would have
        # it compiled anew at each.
        if self.training and not torch.compiler.is_compiling():
            self.product_dtype = dtype
            ready, self._ready = self._ready, None
            if (
                ready is not None
                and ready[1] == self.weight._version
                and ready[0].dtype == dtype
                and not (drawn and _may_be_repeated())
            ):
                return straight_through(self.weight, ready[0])
        if dtype in kernels.DTYPES and kernels.supports(self.weight):
            key = kernels.draw_key() if drawn else None
            return straight_through(self.weight, kernels.binarize(self.weight, dtype, key))
        return binarize_stochastic(self.weight) if drawn else binarize_deterministic(self.weight)

    def learning_rate_scale(self) -> float:
        """The factor ``1 / sqrt(1.5 / (fan_in + fan_out))`` on this weight's updates (section 2.5).

        Fans include a kernel's area. It is meant for Adam; stochastic gradient descent takes its
        square.
        """
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(self.weight)
        return math.sqrt((fan_in + fan_out) / 1.5)

    def extra_repr(self) -> str:
        """The float layer's description and the binarization."""
        return f"{super().extra_repr()}, binarization={self.binarization!r}"

    def _set_binarization(self, binarization: Binarization) -> None:
        match binarization:
            case "deterministic":
                self.eval_weights = "binary"
            case "stochastic":
                self.eval_weights = "real"
            case _:
                raise ValueError(
                    f"binarization is 'deterministic' or 'stochastic', not {binarization!r}"
                )
        self.binarization = binarization

    def _adopt(self, layer: nn.Module, binarization: Binarization) -> Self:
        # Everything that torch and the user hung on the float layer (parameters, hooks, mode,
        # attributes of their own) comes along; the parameters are shared, not copied.
        self.__dict__.update(layer.__dict__)
        self._set_binarization(binarization)
        return self


def _may_be_repeated() -> bool:
    """Whether activation checkpointing may repeat this forward pass in the backward pass."""
    # Of its two kinds, one computes without gradients at first, the other under hooks for saved
    # tensors. Others may do so too: a draw is never wrong, it only costs a pass over the weight.
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return hooks is not None or not torch.is_grad_enabled()


class BinaryLinear(BinaryLayer, nn.Linear):
    """A linear layer whose weight is binarized to ±1 at each forward pass.

    Fresh latent weights are uniform in [-1, 1], the paper's choice with H = 1 for networks with
    batch normalization; a bias stays real. Shapes as in `torch.nn.Linear`.

    Args:
        in_features: Size of each input vector.
        out_features: Size of each output vector.
        bias: Whether to add a real bias; superfluous before batch normalization.
        device: Device of the parameters.
        dtype: Floating dtype of the parameters.
        binarization: ``"deterministic"`` or ``"stochastic"``.

    Raises:
        ValueError: The binarization is neither.

    Example:
        >>> layer = BinaryLinear(3, 2, bias=False)
        >>> latent = torch.tensor([[0.2, -0.7, 0.0], [-1.0, 0.1, 0.4]])
        >>> _ = layer.load_state_dict({"weight": latent})
        >>> layer(torch.ones(1, 3))
        tensor([[1., 1.]], grad_fn=<MmBackward0>)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        binarization: Binarization = "deterministic",
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self._set_binarization(binarization)

    @classmethod
    def from_float(cls, layer: nn.Linear, binarization: Binarization) -> Self:
        """Turn a float layer into a binary one that shares its parameters."""
        return cls.__new__(cls)._adopt(layer, binarization)

    def reset_parameters(self) -> None:
        """Draw latent weights uniformly from [-1, 1] and the bias as `torch.nn.Linear` does."""
        super().reset_parameters()
        nn.init.uniform_(self.weight, -1.0, 1.0)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply inputs of shape (..., in_features) by the effective weight."""
        return functional.linear(input, self.effective_weight(), self.bias)


class BinaryConv2d(BinaryLayer, nn.Conv2d):
    """A two-dimensional convolution whose weight is binarized to ±1 at each forward pass.

    Fresh latent weights are uniform in [-1, 1]; a bias stays real. Arguments and shapes are those
    of `torch.nn.Conv2d`, and `binarization`.

    Raises:
        ValueError: The binarization is neither ``"deterministic"`` nor ``"stochastic"``.

    Example:
        >>> layer = BinaryConv2d(3, 8, kernel_size=3, padding=1, binarization="stochastic")
        >>> layer(torch.zeros(1, 3, 5, 5)).shape
        torch.Size([1, 8, 5, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        binarization: Binarization = "deterministic",
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            padding_mode,
            device=device,
            dtype=dtype,
        )
        self._set_binarization(binarization)

    @classmethod
    def from_float(cls, layer: nn.Conv2d, binarization: Binarization) -> Self:
        """Turn a float layer into a binary one that shares its parameters."""
        return cls.__new__(cls)._adopt(layer, binarization)

    def reset_parameters(self) -> None:
        """Draw latent weights uniformly from [-1, 1] and the bias as `torch.nn.Conv2d` does."""
        super().reset_parameters()
        nn.init.uniform_(self.weight, -1.0, 1.0)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve inputs of shape (batch, in_channels, height, width)."""
        return self._conv_forward(input, self.effective_weight(), self.bias)
