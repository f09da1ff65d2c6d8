"""From a network to the steps of a packed model: tracing, and folding of batch normalization."""

import contextlib
import inspect
import io
import logging
import operator
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from bclightning.errors import UserError
from bclightning.formatting import printable
from bclightning.inference.aten import (
    OPERATIONS,
    as_constants,
    constants_in,
    is_constant,
    tensors_in,
)
from bclightning.inference.builder import Builder, Constant, Made, Traced, UnsupportedError, place
from bclightning.inference.checksum import first_line
from bclightning.nn import evaluating_with
from bclightning.nn.latent import in_evaluation_mode

# Images in the batch that a network is exported with: a number that is not 1, for which torch would
# make another graph, and that divides no usual size.
_BATCH = 7


def trace(network: nn.Module, image_shape: Sequence[int]) -> list[Traced]:
    """The steps of a network at test time, each with the tensors that it computes with.

    The network is followed by `torch.export` rather than by torch.fx: it runs the network's own
    code, with conditions and shapes as they are for its images, while torch.fx stops at the first
    ``if`` or ``len``; in-place operations, hooks and parametrizations come out as what they
    compute; and what it writes down are torch's own operations, a few hundred with fixed arguments,
    where torch.fx leaves any function and method that a network may call. It keeps the size of the
    batch open, and refuses a network that does not.

    What does nothing at test time, as dropout, is left out. What depends on no image, as a
    normalized weight, is computed here.

    Args:
        network: The network: one input, one output.
        image_shape: Channels, height and width of an image.

    Raises:
        UserError: The network computes what no step can; the message names the operation and the
            module that it is in.

    Example:
        >>> from bclightning.models import MLP
        >>> traced = trace(MLP(64, [8], regularizer="stochastic"), (1, 8, 8))
        >>> [each.step.kind for each in traced]
        ['flatten', 'linear', 'affine', 'relu', 'linear', 'affine']
    """
    # Binary layers take their latent weights here, so that a product is binary if it takes one.
    with in_evaluation_mode(network), evaluating_with(network, "real"), _quiet():
        like = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
        images = torch.zeros(_BATCH, *image_shape, dtype=like.dtype, device=like.device)
        try:
            program = _exported(network, images)
        except Exception as error:  # whatever a network's code does to a traced tensor
            raise _unsupported(network, _untraced(network, images, error)) from error
        build = Builder(network, image_shape, _BATCH)
        _know_inputs(build, program)
        for node in program.graph.nodes:
            try:
                if node.op == "output":
                    return build.finished(_result(build, node))
                _add(build, node)
            except UnsupportedError as error:
                raise _unsupported(network, _described(network, node, str(error))) from error
    raise _unsupported(network, "it has no output")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch.export tells its own developers, and without fused transformer layers."""
    fused, disabled = torch.backends.mha.get_fastpath_enabled(), logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    # It prints and logs hundreds of lines for a network that it cannot follow, before it raises.
    logging.disable()
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        torch.backends.mha.set_fastpath_enabled(fused)


def _untraced(network: nn.Module, images: Tensor, error: Exception) -> str:
    """Why a network cannot be traced, in words that its author knows where there are some."""
    try:
        network(images)
    except Exception as own:  # the network fails without torch.export too, and says why
        shape = tuple(images.shape[1:])
        return f"it cannot take images of shape {shape} ({first_line(own)})"
    if "data-dependent" in str(error):
        return (
            "what it computes depends on the values of a tensor, as with `if x.sum() > 0`, and "
            "not on shapes alone"
        )
    return f"torch.export cannot trace it ({first_line(error)})"


def _exported(network: nn.Module, images: Tensor) -> ExportedProgram:
    program = _followed(network, images)
    if _all_known(program):
        return program
    # In-place operations become ordinary ones.
    program = program.run_decompositions({})
    if _all_known(program):
        return program
    # What has no step is taken apart.
    table = torch.export.default_decompositions()
    for operation in OPERATIONS.keys() - {operator.getitem}:
        table.pop(operation, None)  # type: ignore[no-untyped-call]
    return program.run_decompositions(table)


def _followed(network: nn.Module, images: Tensor) -> ExportedProgram:
    sizes = ({0: Dim.DYNAMIC},)
    try:
        return torch.export.export(network, (images,), dynamic_shapes=sizes, strict=False)
    except Exception as error:
        # Slower, and it follows fewer networks, but among them those that ask for `len(images)`.
        with contextlib.suppress(Exception):
            return torch.export.export(network, (images,), dynamic_shapes=sizes, strict=True)
        raise error


def _all_known(program: ExportedProgram) -> bool:
    return all(
        node.op != "call_function" or node.target in OPERATIONS or not _makes_tensors(node)
        for node in program.graph.nodes
    )


def _makes_tensors(node: fx.Node) -> bool:
    made = node.meta.get("val")
    return isinstance(made, Tensor | list | tuple)


def _know_inputs(build: Builder, program: ExportedProgram) -> None:
    """Tell the builder what the graph's inputs are: parameters, buffers and the images."""
    signature = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    for node in program.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = signature[node.name]
        target = spec.target or node.name
        match spec.kind:
            case InputKind.USER_INPUT:
                build.known[node] = Made(0)
            case InputKind.PARAMETER:
                build.known[node] = Constant(build.network.get_parameter(target), target)
            case InputKind.BUFFER:
                build.known[node] = Constant(build.network.get_buffer(target), target)
            case InputKind.CONSTANT_TENSOR:
                build.known[node] = Constant(program.constants[target], target)


def _add(build: Builder, node: fx.Node) -> None:
    """Add the steps of a node, or compute it if it depends on no image."""
    if node.op != "call_function" or not node.users or not _makes_tensors(node):
        return
    args = [build.resolved(argument) for argument in node.args]
    kwargs = {key: build.resolved(argument) for key, argument in node.kwargs.items()}
    everything = [*args, *kwargs.values()]
    if is_constant(everything):
        for constant in constants_in(everything):
            build.refuse_latent(constant)
        named = {key: tensors_in(argument) for key, argument in kwargs.items()}
        result = node.target(*map(tensors_in, args), **named)  # type: ignore[operator]
        build.known[node] = as_constants(result, node.name)
        return
    convert = OPERATIONS.get(node.target)
    if convert is None:
        raise UnsupportedError("")
    try:
        bound = inspect.signature(convert).bind(build, node, *args, **kwargs)
    except TypeError as error:
        raise UnsupportedError(f"it has arguments that no step has ({error})") from error
    made = convert(*bound.args, **bound.kwargs)
    if isinstance(made, Made) and isinstance(node.meta["val"], Tensor):
        build.check_shape(node, made)
    build.known[node] = made


def _result(build: Builder, node: fx.Node) -> Made:
    results = build.resolved(node.args[0])
    if len(results) != 1 or not isinstance(results[0], Made):
        raise UnsupportedError("it must return one tensor, which depends on the image")
    return results[0]


def _unsupported(network: nn.Module, reason: str) -> UserError:
    return UserError(f"{type(network).__name__} cannot be packed: {reason}")


def _described(network: nn.Module, node: fx.Node, reason: str) -> str:
    if node.op == "output":
        return reason
    path = place(node)
    module = network.get_submodule(path)
    operation = str(node.target).removeprefix("aten.").partition(".")[0]
    where = f"{path} ({type(module).__name__})" if path else "the network itself"
    return printable(f"unsupported operation: {operation} in {where}{reason and f': {reason}'}")


def folded(
    mean: Tensor,
    variance: Tensor,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Batch normalization at test time, as one scale and one shift for each channel.

    ``y = gain * (x - mean) / sqrt(variance + eps) + bias``, computed in double precision, on the
    CPU wherever the network is.

    Args:
        mean: Running mean of each channel.
        variance: Running variance of each channel.
        gain: Factor of each channel, or ``None`` for 1.
        bias: Summand of each channel, or ``None`` for 0.
        eps: Number that is added to the variance.

    Example:
        >>> folded(torch.tensor([3.0]), torch.tensor([4.0]))
        (tensor([0.5000]), tensor([-1.5000]))
    """
    scale = (_exact(variance) + eps).rsqrt()
    if gain is not None:
        scale = scale * _exact(gain)
    shift = -_exact(mean) * scale
    if bias is not None:
        shift = shift + _exact(bias)
    return scale.float(), shift.float()


def _exact(tensor: Tensor) -> Tensor:
    # To the CPU first: not every device has double precision.
    return tensor.detach().cpu().double()
