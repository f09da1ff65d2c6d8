"""From a network to the steps of a packed model: tracing, and folding of batch normalization."""

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.parametrize import is_parametrized

from bclightning.errors import UserError
from bclightning.inference.graph import Step
from bclightning.nn import BinaryLayer


class _Tracer(fx.Tracer):
    """Follows a network down to the modules that steps are made of."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BinaryLayer) or super().is_leaf_module(m, module_qualified_name)


def trace(network: nn.Module) -> list[tuple[Step, nn.Module | None]]:
    """The steps of a network, each with the module that it comes from.

    Dropout and identities, which do nothing at test time, are left out.

    Args:
        network: A chain of `Linear`, `Conv2d`, batch normalizations, ReLU, max pooling, flattening
            and dropout, however nested.

    Raises:
        UserError: The network is not such a chain; the message names the operation.

    Example:
        >>> from bclightning.models import MLP
        >>> [step.kind for step, _ in trace(MLP(64, [8], regularizer="stochastic"))]
        ['flatten', 'linear', 'affine', 'relu', 'linear', 'affine']
    """
    try:
        graph = _Tracer().trace(network)
    except Exception as error:  # whatever a network's code does to a traced tensor
        raise _unsupported(network, f"torch.fx cannot trace it ({error})") from error
    steps: list[tuple[Step, nn.Module | None]] = []
    last: fx.Node | None = None
    for node in graph.nodes:
        inputs = [argument for argument in node.args if isinstance(argument, fx.Node)]
        if node.op == "placeholder" and last is not None:
            raise _unsupported(network, "only networks with one input are supported")
        if node.op != "placeholder" and inputs != [last]:
            raise _unsupported(
                network, f"only chains of layers are supported: {node} must take {last} alone"
            )
        if node.op == "call_module":
            module = network.get_submodule(str(node.target))
            if module._forward_hooks or module._forward_pre_hooks or is_parametrized(module):
                raise _unsupported(network, f"{node.target} has hooks or parametrizations")
            step = _step_of_module(str(node.target), module)
        else:
            module, step = None, _step_of_call(node)
        if step is None and node.op not in ("placeholder", "output"):
            raise _unsupported(network, f"unsupported operation: {_described(node, module)}")
        if step is not None and step.kind != "nothing":
            steps.append((step, module))
        last = node
    return steps


def _unsupported(network: nn.Module, reason: str) -> UserError:
    return UserError(f"{type(network).__name__} cannot be packed: {reason}")


def _described(node: fx.Node, module: nn.Module | None) -> str:
    if module is None:
        return f"{node} ({node.target})"
    # A supported layer may have unsupported settings, as padding_mode="reflect".
    settings = module.extra_repr()
    return f"{node} ({type(module).__name__})" + (f": {settings}" if settings else "")


_NOTHING = Step("nothing")


def _step_of_module(name: str, module: nn.Module) -> Step | None:
    settings: dict[str, Any]
    match module:
        case nn.Linear():
            settings = {"in_features": module.in_features, "out_features": module.out_features}
        case nn.Conv2d() if module.padding_mode == "zeros" and not isinstance(module.padding, str):
            settings = {
                "in_channels": module.in_channels,
                "out_channels": module.out_channels,
                "kernel_size": list(module.kernel_size),
                "stride": list(module.stride),
                "padding": list(module.padding),
                "dilation": list(module.dilation),
                "groups": module.groups,
            }
        case nn.BatchNorm1d() | nn.BatchNorm2d() if module.track_running_stats:
            return Step("affine", name, {"channels": module.num_features})
        case nn.ReLU():
            return Step("relu")
        case nn.MaxPool2d() if not module.ceil_mode and _pair(module.dilation) == [1, 1]:
            pairs = (module.kernel_size, module.stride, module.padding)
            keys = ("kernel_size", "stride", "padding")
            return Step("max_pool2d", "", dict(zip(keys, map(_pair, pairs), strict=True)))
        case nn.Flatten() if (module.start_dim, module.end_dim) == (1, -1):
            return Step("flatten")
        case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d() | nn.Identity():
            return _NOTHING
        case _:
            return None
    kind = "linear" if isinstance(module, nn.Linear) else "conv2d"
    return Step(kind, name, settings, isinstance(module, BinaryLayer), module.bias is not None)


def _step_of_call(node: fx.Node) -> Step | None:
    rest = [argument for argument in node.args if not isinstance(argument, fx.Node)]
    if node.target in ("flatten", torch.flatten) and (rest or node.kwargs.get("start_dim")) in (
        [1],
        [1, -1],
        1,
    ):
        return Step("flatten")
    if node.target == "contiguous":
        return _NOTHING
    if node.target in ("relu", torch.relu, functional.relu):
        return Step("relu")
    return None


def _pair(value: Any) -> list[int]:
    return list(value) if isinstance(value, tuple | list) else [int(value)] * 2


def folded(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Batch normalization at test time, as one scale and one shift for each channel.

    ``y = gamma * (x - mean) / sqrt(var + eps) + beta``, computed in double precision, on the CPU
    wherever the network is.

    Raises:
        ValueError: The batch normalization tracks no running statistics.

    Example:
        >>> norm = nn.BatchNorm1d(1, eps=0.0)
        >>> _ = norm.running_mean.fill_(3.0), norm.running_var.fill_(4.0)
        >>> folded(norm)
        (tensor([0.5000]), tensor([-1.5000]))
    """
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch normalization without running statistics cannot be folded")
    scale = (_exact(norm.running_var) + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * _exact(norm.weight)
    shift = -_exact(norm.running_mean) * scale
    if norm.bias is not None:
        shift = shift + _exact(norm.bias)
    return scale.float(), shift.float()


def _exact(tensor: Tensor) -> Tensor:
    # To the CPU first: not every device has double precision.
    return tensor.detach().cpu().double()
