"""Binarization of weights with straight-through gradients (BinaryConnect, sections 2.2 to 2.4)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def binarize_deterministic(weight: Tensor) -> Tensor:
    """Binarize to ±1 by sign, with sign(±0) = +1 (section 2.2, equation 1).

    The gradient passes to `weight` unchanged, also where ``|weight| > 1`` (algorithm 1; the mask of
    BinaryNet is a later paper's). NaN stays NaN, so that a broken weight is seen and not hidden
    behind a valid sign.

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
    ``w.clamp(-1, 1)``; weights at or beyond ±1 are certain. Each call makes a fresh draw. The
    gradient passes to `weight` unchanged; NaN stays NaN.

    Args:
        weight: Latent weights of any shape and floating dtype.
        generator: Source of the draws, on the weight's device; torch's global one when ``None``.

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
    # A tie, 2u - 1 == w, must give -1: at w = -1 the draw u = 0 has no right to a +1.
    binary = -_signs(uniform.mul_(2).sub_(1) - weight)
    return straight_through(weight, binary.to(weight.dtype))


def _signs(values: Tensor) -> Tensor:
    # floor sends [-1, 0) to -1 and both zeros to zero, and lets NaN through, where torch.sign and
    # a comparison do not; torch.where needs ten times as long on a CPU, and torch.copysign would
    # send -0.0 to -1.
    return values.detach().clamp(-1.0, 0.0).floor_().mul_(2.0).add_(1.0)


def straight_through(weight: Tensor, binary: Tensor) -> Tensor:
    """Hand `binary` forward, and the gradient taken with respect to it back to `weight` unchanged.

    Args:
        weight: Latent weights.
        binary: What they were binarized to, in any floating dtype.

    Example:
        >>> weight = torch.tensor([0.3], requires_grad=True)
        >>> straight_through(weight, torch.ones(1)).mul(7).backward()
        >>> weight.grad
        tensor([7.])
    """
    # A form of its own, since the one that torch.func asks for takes three times as long to call.
    transformed = torch._C._are_functorch_transforms_active()
    function = _TransformedStraightThrough if transformed else _StraightThrough
    result: Tensor = function.apply(weight, binary)  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    """What `straight_through` says."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, binary: Tensor) -> Tensor:
        return binary

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


class _TransformedStraightThrough(torch.autograd.Function):
    """The same under the transforms of `torch.func`: gradients, Jacobians, maps over a batch."""

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
