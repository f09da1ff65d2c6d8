"""Layers with binary weights: ordinary torch layers that binarize their weight when they use it."""

import math
from typing import Any, ClassVar, Literal, Self, cast, get_args

import torch
from torch import Tensor, nn
from torch.fx import Proxy
from torch.nn import functional

from bclightning.functional import (
    _torch_private,
    binarize_deterministic,
    binarize_stochastic,
    kernels,
    straight_through,
)
from bclightning.nn import draws, steps
from bclightning.vocabulary import Binarization, LayerWeights

STATE_KEY = "bclightning"
"""Where the metadata of a saved state say that a layer's weight is a latent one."""


class BinaryLayer(nn.Module):
    """The base class of binary layers, for `isinstance` checks; it is not instantiated itself.

    `weight` stays the latent weight, so that the keys of ``state_dict()`` equal the float layer's
    and checkpoints load both ways; a float layer that loads a latent weight warns of it. Every
    optimizer of torch that holds the weight clips it to [-1, 1] after each step (section 2.4).

    Attributes:
        weight: The latent weight, real-valued and kept in [-1, 1] by clipping.
        binarization: How the weight is binarized in training mode.
        eval_weights: The weights that evaluation mode uses. The paper's choice by default: the
            binary weights after deterministic training, the real ones after stochastic training
            (section 2.6).
        scale_updates: Whether every optimizer scales the learning rate of this layer's weight
            (section 2.5); `set_scale_updates` sets it.
    """

    real_class: ClassVar[type[nn.Module]]
    """Torch's layer that this one is a binary form of."""

    weight: Tensor
    binarization: Binarization
    eval_weights: LayerWeights
    scale_updates: bool = False
    # Whether a float layer becomes binary when it loads this layer's state, for a process that
    # started the one that trains.
    converts_loader: bool = False
    # The binary weights for the next forward pass, from an optimizer that binarizes as it updates,
    # and the version of the latent weight that they belong to.
    _precomputed: tuple[Tensor, int] | None = None
    # The dtype of the last product in training, which is likely that of the next one too.
    product_dtype: torch.dtype = torch.float32

    def effective_weight(self) -> Tensor:
        """The weight that the layer multiplies by now, in the latent weight's shape."""
        weights = self.eval_weights
        if self.training:
            weights = "binary" if self.binarization == "deterministic" else "sampled"
        match weights:
            case "real":
                return self.weight
            case "binary" | "sampled":
                return self._binarized(drawn=weights == "sampled")

    def set_precomputed_weight(self, binary: Tensor) -> None:
        """Set the binary weights that the next forward pass in training uses.

        They are used once, and only if the latent weight has not changed since; a change through
        ``weight.data``, which torch does not count, goes unnoticed. Random draws are not used under
        activation checkpointing, since its second forward pass would not have them: both passes
        then make the same draw, as long as the checkpoint restores torch's generator
        (``preserve_rng_state``, true by default).

        Args:
            binary: The present latent weight, binarized as this layer does it.
        """
        self._precomputed = (binary, _torch_private.version(self.weight))

    def clear_precomputed_weight(self) -> None:
        """Let the next forward pass binarize the latent weight itself."""
        self._precomputed = None

    def _binarized(self, drawn: bool) -> Tensor:
        weight = self.weight
        if isinstance(weight, Proxy):
            # `torch.fx.symbolic_trace` records what is done with a weight that has no values yet.
            return binarize_stochastic(weight) if drawn else binarize_deterministic(weight)
        dtype = weight.dtype
        if torch.is_autocast_enabled(weight.device.type):
            dtype = torch.get_autocast_dtype(weight.device.type)
        # A compiled graph always binarizes: it would be compiled again for each new tensor.
        if self.training and not torch.compiler.is_compiling():
            self.product_dtype = dtype
            precomputed, self._precomputed = self._precomputed, None
            if (
                precomputed is not None
                and precomputed[1] == _torch_private.version(weight)
                and precomputed[0].dtype == dtype
                and not (drawn and _may_be_repeated())
            ):
                return straight_through(weight, precomputed[0])
        if dtype in kernels.DTYPES and kernels.supports(weight):
            key = None
            if drawn:
                key = draws.next_key() if self.training else kernels.draw_key()
            return straight_through(weight, kernels.binarize(weight, dtype, key))
        if not drawn:
            return binarize_deterministic(weight)
        generator = None
        if self.training and draws.shares_draws():
            generator = torch.Generator(weight.device).manual_seed(draws.next_key() % 2**63)
        return binarize_stochastic(weight, generator)

    def set_scale_updates(self, scale: bool) -> None:
        """Let every optimizer scale the learning rate of this layer's weight (section 2.5).

        For optimizers that were not given scaled rates. Their parameter groups keep the rates that
        they were given, whoever sets those.

        Args:
            scale: Whether to scale: by `learning_rate_scale`, and by its square for stochastic
                gradient descent.
        """
        self.scale_updates = scale
        steps.watch(self)

    def learning_rate_scale(self) -> float:
        """The factor ``1 / sqrt(1.5 / (fan_in + fan_out))`` on this weight's updates (section 2.5).

        The fans of a convolution include its kernel's area. The factor is for Adam; stochastic
        gradient descent uses its square.
        """
        outputs, inputs, *kernel = self.weight.shape
        return math.sqrt((inputs + outputs) * math.prod(kernel) / 1.5)

    def extra_repr(self) -> str:
        """The float layer's description and the binarization."""
        return f"{super().extra_repr()}, binarization={self.binarization!r}"

    def _set_binarization(self, binarization: Binarization) -> None:
        check_binarization(binarization)
        self.eval_weights = "binary" if binarization == "deterministic" else "real"
        self.binarization = binarization
        steps.watch(self)

    @classmethod
    def from_float(cls, layer: nn.Module, binarization: Binarization) -> Self:
        """Make a float layer binary, in place: whoever holds a reference to it sees that.

        The object stays, with all that is attached to it: parameters, hooks, mode, attributes.

        Args:
            layer: A layer of exactly the class that this one is a binary form of.
            binarization: ``"deterministic"`` or ``"stochastic"``.

        Returns:
            The same object.

        Raises:
            TypeError: The layer is of another class, which may compute something else.

        Example:
            >>> layer = nn.Linear(3, 2)
            >>> BinaryLinear.from_float(layer, "deterministic") is layer
            True
        """
        if type(layer) is not cls.real_class:
            raise TypeError(
                f"{cls.__name__} is made of {cls.real_class.__name__}, not {type(layer).__name__}"
            )
        layer.__class__ = cls
        binary = cast(Self, layer)
        binary._set_binarization(binarization)
        return binary

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a copied or unpickled layer, whose weight is clipped like the original's."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        steps.watch(self)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        _torch_private.add_metadata(destination, prefix, STATE_KEY, self._state_note())

    def _state_note(self) -> dict[str, str | bool]:
        """What a saved state says of this layer, beside its parameters."""
        note: dict[str, str | bool] = {"binarization": self.binarization}
        return note | {"convert": True} if self.converts_loader else note


def check_binarization(binarization: str) -> None:
    """Make sure that a binarization is one of the two.

    Raises:
        ValueError: It is not.

    Example:
        >>> check_binarization("sign")
        Traceback (most recent call last):
        ValueError: binarization must be 'deterministic' or 'stochastic', not 'sign'
    """
    if binarization not in get_args(Binarization):
        raise ValueError(
            f"binarization must be 'deterministic' or 'stochastic', not {binarization!r}"
        )


def _may_be_repeated() -> bool:
    """Whether activation checkpointing may repeat this forward pass in the backward pass."""
    # Its reentrant form first runs without gradients, the other one under hooks for saved tensors.
    # Where something else does so, a new draw is not wrong: it only costs a pass over the weight.
    return _torch_private.saved_tensor_hooks_active() or not torch.is_grad_enabled()


class BinaryLinear(BinaryLayer, nn.Linear):
    """A linear layer whose weight is binarized to ±1 at each forward pass.

    Latent weights are initialized uniformly in [-1, 1], the paper's choice with H = 1 for networks
    with batch normalization; a bias stays real. Shapes are those of `torch.nn.Linear`.

    Args:
        in_features: Size of each input vector.
        out_features: Size of each output vector.
        bias: Whether to add a real bias; superfluous before batch normalization.
        device: Device of the parameters.
        dtype: Floating dtype of the parameters.
        binarization: ``"deterministic"`` or ``"stochastic"``.

    Raises:
        ValueError: The binarization is neither of the two.

    Example:
        >>> layer = BinaryLinear(3, 2, bias=False)
        >>> latent = torch.tensor([[0.2, -0.7, 0.0], [-1.0, 0.1, 0.4]])
        >>> _ = layer.load_state_dict({"weight": latent})
        >>> layer(torch.ones(1, 3))
        tensor([[1., 1.]], grad_fn=<MmBackward0>)
    """

    real_class = nn.Linear

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

    def reset_parameters(self) -> None:
        """Draw latent weights uniformly from [-1, 1] and the bias as `torch.nn.Linear` does."""
        super().reset_parameters()
        nn.init.uniform_(self.weight, -1.0, 1.0)

    def forward(self, input: Tensor) -> Tensor:
        """Multiply inputs of shape (..., in_features) by the effective weight."""
        return functional.linear(input, self.effective_weight(), self.bias)


class BinaryConv2d(BinaryLayer, nn.Conv2d):
    """A two-dimensional convolution whose weight is binarized to ±1 at each forward pass.

    Latent weights are initialized uniformly in [-1, 1]; a bias stays real. Shapes and arguments are
    those of `torch.nn.Conv2d`, with `binarization` (``"deterministic"`` or ``"stochastic"``) added.

    Raises:
        ValueError: The binarization is neither of the two.

    Example:
        >>> layer = BinaryConv2d(3, 8, kernel_size=3, padding=1, binarization="stochastic")
        >>> layer(torch.zeros(1, 3, 5, 5)).shape
        torch.Size([1, 8, 5, 5])
    """

    real_class = nn.Conv2d

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

    def reset_parameters(self) -> None:
        """Draw latent weights uniformly from [-1, 1] and the bias as `torch.nn.Conv2d` does."""
        super().reset_parameters()
        nn.init.uniform_(self.weight, -1.0, 1.0)

    def forward(self, input: Tensor) -> Tensor:
        """Convolve inputs of shape (batch, in_channels, height, width)."""
        return _torch_private.convolve(self, input, self.effective_weight())
