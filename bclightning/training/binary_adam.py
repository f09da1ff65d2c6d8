"""Adam for networks with binary weights: update, clip and binarize while the weight is at hand."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.optim import Adam
from torch.optim.adam import adam
from torch.utils.hooks import RemovableHandle

from bclightning.functional import kernels
from bclightning.nn import BinaryLayer

# Options of Adam's groups that would change the update, and that the kernels do not know.
_UNKNOWN_OPTIONS = ("weight_decay", "amsgrad", "maximize", "differentiable")


class BinaryAdam(Adam):
    """Adam that clips latent weights to [-1, 1] and binarizes them for the next forward pass.

    It computes what `torch.optim.Adam`, a clip after the step and a binarization in the layer do,
    in one pass over memory instead of five where the kernels can (float32 on a CPU), and by
    exactly those three elsewhere. Its state is Adam's.

    After a step the gradients of latent weights are gone: their memory holds the binary weights.

    Args:
        params: Parameters or groups, which may have an ``lr``, ``betas`` and ``eps`` of their own.
        layers: The binary layers that the latent weights belong to.
        lr: The learning rate of groups that give none.

    Raises:
        ValueError: A group asks for weight decay, AMSGrad, maximization or a differentiable step;
            also in `step`, of groups that came with a state or were changed.

    Example:
        >>> from bclightning.nn import BinaryLinear
        >>> layer = BinaryLinear(2, 1, bias=False)
        >>> optimizer = BinaryAdam(layer.parameters(), [layer], lr=5.0)
        >>> layer(torch.ones(1, 2)).sum().backward()
        >>> optimizer.step()
        >>> layer.weight
        Parameter containing:
        tensor([[-1., -1.]], requires_grad=True)
    """

    def __init__(self, params: Any, layers: Iterable[BinaryLayer], lr: float = 1e-3) -> None:
        super().__init__(params, lr=lr, fused=True)
        leave_unscaling_to_the_scaler(self)
        self._layers: dict[int, BinaryLayer] = {}
        for layer in layers:
            # Of layers that share a weight, one is made ready; the others binarize by themselves.
            self._layers.setdefault(id(layer.weight), layer)
        self._hooks: dict[int, RemovableHandle] = {}
        weights = [layer.weight for layer in self._layers.values()]
        weakref.finalize(self, _leave_to_others, weights, self._hooks).atexit = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with or without latent weights.

        Args:
            param_group: As of the constructor.
        """
        _refuse_unknown_options(param_group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: Computes the loss anew, and its gradients.

        Returns:
            What the closure returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _refuse_unknown_options(group)
            others = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                layer = self._layers.get(id(parameter))
                state = self._state_of(parameter)
                moments = (state["exp_avg"], state["exp_avg_sq"])
                if (
                    layer is not None
                    and kernels.supports(parameter, *moments)
                    and kernels.supports(parameter.grad, dtypes=kernels.DTYPES)
                ):
                    self._update_latent(parameter, layer, state, group)
                else:
                    others.append(parameter)
            self._update_others(others, group)
        return loss

    def _state_of(self, parameter: Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return state

    def _update_latent(
        self, weight: Tensor, layer: BinaryLayer, state: dict[str, Any], group: dict[str, Any]
    ) -> None:
        gradient = weight.grad
        if gradient is None:
            return
        if gradient._is_view():
            # Distributed training may keep gradients in a buffer of its own.
            gradient = gradient.clone()
        state["step"] += 1
        binary = kernels.adam_update_(
            weight,
            gradient,
            state["exp_avg"],
            state["exp_avg_sq"],
            step=int(state["step"]),
            learning_rate=float(group["lr"]),
            betas=group["betas"],
            eps=group["eps"],
            key=kernels.draw_key() if layer.binarization == "stochastic" else None,
        )
        weight.grad = None
        dtype = layer.product_dtype
        if dtype == torch.bfloat16 and weight.requires_grad and not _distributed():
            # Products in bfloat16 give gradients in bfloat16. To widen them would be a pass more,
            # and their memory would not serve the next product's weights. Distributed training
            # wants them in the weight's dtype.
            weight.grad_dtype = None
            if id(weight) not in self._hooks:
                hook = weight.register_hook(_summing_in_full(weight))  # type: ignore[no-untyped-call]
                self._hooks[id(weight)] = hook
        layer.make_ready(binary.to(dtype))

    def _update_others(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if not parameters:
            return
        states = [self.state[parameter] for parameter in parameters]
        adam(
            parameters,
            [p.grad.to(p.dtype) for p in parameters if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )
        for parameter in parameters:
            if id(parameter) in self._layers:
                parameter.clamp_(-1.0, 1.0)


def leave_unscaling_to_the_scaler(optimizer: Adam) -> None:
    """Let mixed precision scale gradients back before the step, not a fused Adam within it.

    Only then can they be clipped in between: Lightning refuses to clip for an optimizer that scales
    back by itself, even where nothing is scaled, as in bfloat16.

    Example:
        >>> optimizer = Adam([torch.zeros(1)], fused=True)
        >>> leave_unscaling_to_the_scaler(optimizer)
    """
    optimizer._step_supports_amp_scaling = False


def _refuse_unknown_options(group: dict[str, Any]) -> None:
    for option in _UNKNOWN_OPTIONS:
        if group.get(option):
            raise ValueError(
                f"BinaryAdam does not know {option}, and a group sets it to {group[option]}; leave "
                "it out, or use torch.optim.Adam and clip with ClipWeights or clip_latent_weights_"
            )


def _summing_in_full(weight: Tensor) -> Callable[[Tensor], None]:
    """A hook for gradients that arrive in 16 bits, where a sum of several would lose much."""

    def widen(gradient: Tensor) -> None:
        if weight.grad is not None:
            weight.grad = weight.grad.to(weight.dtype)

    return widen


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _leave_to_others(weights: list[Tensor], hooks: dict[int, RemovableHandle]) -> None:
    """Leave weights as other optimizers expect them."""
    for hook in hooks.values():
        hook.remove()
    for weight in weights:
        gradient, weight.grad = weight.grad, None
        weight.grad_dtype = weight.dtype
        weight.grad = None if gradient is None else gradient.to(weight.dtype)
