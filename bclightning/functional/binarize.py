"""Binarization of weights with straight-through gradients (BinaryConnect, sections 2.2 to 2.4)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.fx import Proxy

from bclightning.functional import _torch_private


def binarize_deterministic(weight: Tensor) -> Tensor:
    """Binarize to ±1 by sign, with sign(±0) = +1 (section 2.2, equation 1).

    The gradient passes to `weight` unchanged, also where ``|weight| > 1`` (algorithm 1; masking it
    there came later, with BinaryNet). NaN stays NaN, so that a broken weight is not hidden behind a
    valid sign.

    Args:
        weight: Latent weights of any shape and floating dtype.

    Returns:
        A new tensor of the same shape and dtype, with values in {-1, +1}.

    Example:
        >>> binarize_deterministic(torch.tensor([-0.3, -0.0, 0.0, 0.7]))
        tensor([-1.,  1.,  1.,  1.])
    """
    return straight_through(weight, _signs(weight))


def binarize_stochastic(weight: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Binarize to +1 with probability hard_sigmoid(weight), else to -1 (section 2.2, equation 2).

    ``hard_sigmoid(w) = clip((w + 1) / 2, 0, 1)`` (equation 3), so the mean over many draws is
    ``w.clamp(-1, 1)``; weights at or beyond ±1 are certain. Each call is a new draw. The gradient
    passes to `weight` unchanged; NaN stays NaN.

    Args:
        weight: Latent weights of any shape and floating dtype.
        generator: Source of the draws, on the weight's device; `None` for torch's global one.

    Returns:
        A new tensor of the same shape and dtype, with values in {-1, +1}.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> weight = torch.tensor([-1.0, 0.5])
        >>> draws = torch.stack([binarize_stochastic(weight) for _ in range(999)])
        >>> draws.mean(0).round(decimals=1)
        tensor([-1.0000,  0.5000])
    """
    # u < (w + 1) / 2 with u uniform in [0, 1), as the sign of one difference. The resolution is
    # that of torch.rand in float32, 2**-24, whatever the weight's dtype.
    uniform = torch.rand(weight.shape, generator=generator, device=weight.device)
    # A tie, 2u - 1 == w, must give -1: at w = -1, even the draw u = 0 must not give +1.
    binary = -_signs(uniform.mul_(2).sub_(1) - weight)
    return straight_through(weight, binary.to(weight.dtype))


def _signs(values: Tensor) -> Tensor:
    # floor maps [-1, 0) to -1, both zeros to zero and NaN to NaN, as torch.sign and a comparison do
    # not; torch.where takes ten times as long on a CPU, and torch.copysign would map -0.0 to -1.
    return values.detach().clamp(-1.0, 0.0).floor_().mul_(2.0).add_(1.0)


def straight_through(weight: Tensor, binary: Tensor) -> Tensor:
    """Return `binary`, and pass its gradient on to `weight` unchanged in the backward pass.

    Args:
        weight: Latent weights.
        binary: Their binarized values, in any floating dtype.

    Example:
        >>> weight = torch.tensor([0.3], requires_grad=True)
        >>> straight_through(weight, torch.ones(1)).mul(7).backward()
        >>> weight.grad
        tensor([7.])
    """
    if isinstance(weight, Proxy) or _torch_private.tracing():
        # These record operators alone, of which this is the same: the gradient of what is added is
        # one, and its value zero.
        return binary + (weight - weight.detach())
    # Two forms, since the one that torch.func needs takes four times as long to call.
    transformed = _torch_private.transforms_active()
    function = _TransformedStraightThrough if transformed else _StraightThrough
    result: Tensor = function.apply(weight, binary)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    """The straight-through gradient, in the form that is fastest to call."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, binary: Tensor) -> Tensor:
        return binary

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _TransformedStraightThrough(torch.autograd.Function):
    """The same in the form that the transforms of `torch.func` need (grad, jvp, vmap, ...)."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, binary: Tensor) -> Tensor:
        return binary

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        return tangent
