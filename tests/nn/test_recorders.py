"""Whatever records what a binary layer does sees operators, and computes the same."""

import io

import onnxruntime
import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.flop_counter import FlopCounterMode

from bclightning.nn import BinaryConv2d, BinaryLinear


def traced(network, x):
    return torch.jit.trace(network, x)


def onnx(network, x):
    file = io.BytesIO()
    torch.onnx.export(network, (x,), file, dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue())
    (name,) = [entry.name for entry in session.get_inputs()]
    return lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


def exported(network, x):
    return torch.export.export(network, (x,)).module()


RECORDERS = [
    traced,
    lambda network, x: torch.jit.freeze(torch.jit.trace(network, x)),
    onnx,
    exported,
    lambda network, x: torch.fx.symbolic_trace(network),
    lambda network, x: make_fx(network)(x),
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("record", RECORDERS)
@pytest.mark.parametrize("binarization", ["deterministic", "stochastic"])
def test_a_recorded_network_computes_with_the_weights_of_evaluation(record, binarization):
    torch.manual_seed(0)
    network = nn.Sequential(
        BinaryConv2d(1, 2, 2, binarization=binarization),
        nn.Flatten(),
        BinaryLinear(8, 3, bias=False, binarization=binarization),
    ).eval()
    recorded = record(network, torch.randn(2, 1, 3, 3))
    x = torch.randn(2, 1, 3, 3)
    torch.testing.assert_close(recorded(x), network(x))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("record", [traced, lambda network, x: torch.fx.symbolic_trace(network)])
def test_what_a_trace_trains_is_the_latent_weight(record):
    torch.manual_seed(0)
    layer, x = BinaryLinear(4, 3, bias=False), torch.randn(2, 4)
    record(layer, x)(x).square().sum().backward()
    recorded = layer.weight.grad.clone()
    layer.zero_grad()
    layer(x).square().sum().backward()
    torch.testing.assert_close(recorded, layer.weight.grad)


def test_a_counter_of_operations_changes_nothing():
    torch.manual_seed(0)
    layer, x = BinaryLinear(64, 32, bias=False), torch.randn(2, 64)
    with FlopCounterMode(display=False) as counter:
        product = layer(x)
    assert torch.equal(product, layer(x))
    assert counter.get_total_flops() == 2 * 2 * 64 * 32
