"""Adam for networks with binary weights: update, clip and binarize in one pass over a weight."""

import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any

import torch
import torch.distributed
from torch import Tensor
from torch.optim import Adam
from torch.optim.adam import adam
from torch.utils.hooks import RemovableHandle

from bclightning.functional import _torch_private, kernels
from bclightning.nn import BinaryLayer, draws

# Options of Adam's parameter groups that would change the update.
_UNSUPPORTED_OPTIONS = ("weight_decay", "amsgrad", "maximize", "differentiable")


class BinaryAdam(Adam):
    """Adam that clips latent weights to [-1, 1] and binarizes them for the next forward pass.

    It computes the same as `torch.optim.Adam` followed by a clip and by the binarization in the
    layer: in one pass over memory instead of five where the kernels support it (float32 on a CPU),
    and as these three separate operations elsewhere. Its state is that of Adam.

    A step sets the gradients of latent weights to `None`: their memory holds the binary weights.

    Args:
        params: Parameters or groups, which may set their own ``lr``, ``betas`` and ``eps``.
        layers: Binary layers that the latent weights belong to.
        lr: Learning rate of groups that do not set one.

    Raises:
        ValueError: A group sets weight decay, AMSGrad, maximization or a differentiable step; also
            raised by `step` if a loaded state or a later change sets one of them.

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
        super().__init__(params, lr=lr)
        self._layers: dict[int, BinaryLayer] = {}
        for layer in layers:
            # Of the layers that share a weight, the first gets it precomputed; others binarize it.
            self._layers.setdefault(id(layer.weight), layer)
        self._hooks: dict[int, RemovableHandle] = {}
        weights = [layer.weight for layer in self._layers.values()]
        weakref.finalize(self, _restore_for_other_optimizers, weights, self._hooks).atexit = False

    @property
    def clipped_weights(self) -> Collection[int]:
        """Identities of the weights that a step clips itself (`bclightning.nn.steps`)."""
        return self._layers.keys()

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, with or without latent weights.

        Args:
            param_group: Parameters and options, as for the constructor.
        """
        _refuse_unsupported_options(param_group)
        super().add_param_group(fused_group(param_group))

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update all parameters that have a gradient.

        Args:
            closure: Function that recomputes the loss and its gradients, and returns the loss.

        Returns:
            The loss that the closure returns; `None` without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _refuse_unsupported_options(group)
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
        if _torch_private.is_view(gradient):
            # Distributed training may keep gradients in its own buffer.
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
            key=draws.next_key() if layer.binarization == "stochastic" else None,
        )
        weight.grad = None
        dtype = layer.product_dtype
        if dtype == torch.bfloat16 and weight.requires_grad and not _distributed():
            # Products in bfloat16 give gradients in bfloat16. Converting them would be one more
            # pass, and their memory could not hold the next product's weights. Distributed training
            # needs them in the weight's dtype.
            weight.grad_dtype = None
            if id(weight) not in self._hooks:
                hook = weight.register_hook(_accumulating_in_full_precision(weight))  # type: ignore[no-untyped-call]
                self._hooks[id(weight)] = hook
        layer.set_precomputed_weight(binary.to(dtype))

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


def fused_group(group: dict[str, Any]) -> dict[str, Any]:
    """A parameter group for the fused implementation of Adam, in one pass over each weight.

    Chosen for a group, and not by the constructor's ``fused=True``, it leaves the unscaling of
    gradients in mixed precision to the gradient scaler, before the step. Otherwise Lightning
    refuses to clip gradients, even in bfloat16, where nothing is scaled.

    Example:
        >>> group = fused_group({"params": [torch.zeros(1)]})
        >>> Adam([group]).param_groups[0]["fused"]
        True
    """
    return {**group, "fused": True}


def _refuse_unsupported_options(group: dict[str, Any]) -> None:
    for option in _UNSUPPORTED_OPTIONS:
        if group.get(option):
            raise ValueError(
                f"BinaryAdam does not support {option}={group[option]}, which a parameter group "
                "sets; remove it, or use torch.optim.Adam and clip with ClipWeights or "
                "clip_latent_weights_"
            )


def _accumulating_in_full_precision(weight: Tensor) -> Callable[[Tensor], None]:
    """A hook for gradients in 16 bits, in which a sum of several would lose precision."""

    def widen(gradient: Tensor) -> None:
        if weight.grad is not None:
            weight.grad = weight.grad.to(weight.dtype)

    return widen


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _restore_for_other_optimizers(weights: list[Tensor], hooks: dict[int, RemovableHandle]) -> None:
    """Restore gradients to the dtype of their weights, as other optimizers expect them."""
    for hook in hooks.values():
        hook.remove()
    for weight in weights:
        gradient, weight.grad = weight.grad, None
        weight.grad_dtype = weight.dtype
        weight.grad = None if gradient is None else gradient.to(weight.dtype)
