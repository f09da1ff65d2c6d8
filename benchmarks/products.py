"""One product with ±1 weights, with every library that is installed, and the packed network."""

import functools
import importlib.util
from collections.abc import Callable

import numpy as np
import torch
from harness import interleave, show
from torch import Tensor
from torch.nn import functional

from bclightning.functional.bit_product import bit_linear, by_groups
from bclightning.functional.packing import pack_signs
from bclightning.inference import PackedModel, PackedNetwork
from bclightning.models import MLP

Product = Callable[[], object]


def products() -> None:
    """A 4096 x 4096 layer and the paper's MNIST network, for one image and for batches."""
    torch.manual_seed(0)
    for batch in (1, 8, 256):
        ways = layer(4096, 4096, batch)
        show(
            f"4096 x 4096, batch {batch} / torch in float32",
            interleave(ways, "torch float32", 15, max(1, 16 // batch)),
            {"ours, bits": 1.0} if batch == 1 else {},
        )
    for batch in (1, 8, 256):
        show(
            f"MNIST network, batch {batch} / in float32",
            interleave(networks(batch), "float32", 15, max(1, 16 // batch)),
            {"bits": 1.0} if batch == 1 else {},
        )


def layer(features: int, outputs: int, batch: int) -> dict[str, Product]:
    """The ways to compute one product, each compared with float32 before it is timed."""
    weight = torch.randint(0, 2, (outputs, features)).float() * 2 - 1
    inputs = torch.randn(batch, features)
    narrow = inputs.bfloat16()
    bits = by_groups(pack_signs(weight))
    in_bf16, in_int8 = weight.bfloat16(), weight.to(torch.int8)
    ones = torch.ones(outputs, dtype=torch.bfloat16)
    ways: dict[str, Callable[[], Tensor]] = {
        "torch float32": lambda: functional.linear(inputs, weight),
        "torch bfloat16": lambda: functional.linear(narrow, in_bf16),
        "torch int8 weights": lambda: torch._weight_int8pack_mm(narrow, in_int8, ones),
        "torch int4 weights": _int4(narrow, weight),
        "ours, bits": lambda: bit_linear(inputs, bits),
    }
    if importlib.util.find_spec("onnxruntime"):
        for width in (8, 4, 2):
            ways[f"onnxruntime, {width} bits"] = _onnxruntime(inputs, weight, width)
    if importlib.util.find_spec("openvino"):
        for kind in ("f32", "i8"):
            ways[f"OpenVINO, {kind}"] = _openvino(inputs, weight, kind)
    if importlib.util.find_spec("torchao"):
        ways["torchao, int8 weights"] = _torchao(inputs, weight)
    exact = functional.linear(inputs, weight)
    usable: dict[str, Product] = {}
    for name, way in ways.items():
        try:
            result = way().float()
        except Exception as error:  # each library has its own errors for what it does not support
            print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0][:100]}")
            continue
        off = float((result - exact).abs().max() / exact.abs().max())
        if off > 0.05:
            print(f"  {name}: off by {off:.2f}")
            continue
        usable[name] = way
    return usable


def networks(batch: int) -> dict[str, Product]:
    """The packed MNIST network with each storage of its weights."""
    model = PackedModel.of(MLP(), (1, 28, 28), [str(digit) for digit in range(10)])
    images = torch.randn(batch, 1, 28, 28)
    return {
        storage: functools.partial(PackedNetwork(model, storage), images)
        for storage in ("float32", "bits", "bfloat16", "int8")
    }


def _int4(inputs: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    # The zero point is 8: -1 is stored as 7 and +1 as 9.
    outputs, features = weight.shape
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu((8 + weight).int(), 1)
    groups = torch.ones(features // 128, outputs, 2, dtype=torch.bfloat16)
    groups[..., 1] = 0
    return lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(inputs, packed, 128, groups)


def _onnxruntime(inputs: Tensor, weight: Tensor, width: int) -> Callable[[], Tensor]:
    import onnx
    import onnxruntime

    outputs, features = weight.shape
    middle = 1 << (width - 1)
    numbers = (weight.numpy() + middle).astype(np.uint8)
    each = 8 // width
    blob = np.zeros((outputs, features // each), np.uint8)
    for place in range(each):
        blob |= numbers[:, place::each] << (width * place)
    blob = blob.reshape(outputs, features // 128, -1)
    make = onnx.helper
    node = make.make_node(
        "MatMulNBits",
        ["x", "b", "s"],
        ["y"],
        domain="com.microsoft",
        K=features,
        N=outputs,
        bits=width,
        block_size=128,
        accuracy_level=4,
    )
    constants = [
        onnx.numpy_helper.from_array(blob, "b"),
        onnx.numpy_helper.from_array(np.ones((outputs, features // 128), np.float32), "s"),
    ]
    value = make.make_tensor_value_info
    graph = make.make_graph(
        [node],
        "product",
        [value("x", 1, list(inputs.shape))],
        [value("y", 1, [len(inputs), outputs])],
        constants,
    )
    domains = [make.make_opsetid("", 18), make.make_opsetid("com.microsoft", 1)]
    model = make.make_model(graph, opset_imports=domains, ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Otherwise, its idle threads would spin during the turns of the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    given = inputs.numpy()
    return lambda: torch.from_numpy(session.run(None, {"x": given})[0])


def _openvino(inputs: Tensor, weight: Tensor, kind: str) -> Callable[[], Tensor]:
    import openvino as ov
    from openvino import opset13 as ops

    given = ops.parameter(list(inputs.shape), ov.Type.f32)
    stored = weight.numpy().astype(np.int8 if kind == "i8" else np.float32)
    signs = ops.convert(ops.constant(stored), ov.Type.f32)
    product = ops.matmul(given, signs, False, True)
    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
    compiled = ov.Core().compile_model(ov.Model([product], [given]), "CPU", settings)
    request = compiled.create_infer_request()
    array = inputs.numpy()
    return lambda: torch.from_numpy(np.array(request.infer([array])[0]))


def _torchao(inputs: Tensor, weight: Tensor) -> Callable[[], Tensor]:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    module = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    module.weight.data = weight
    module = module.bfloat16()
    quantize_(module, Int8WeightOnlyConfig())
    narrow = inputs.bfloat16()
    return lambda: module(narrow).detach()
