"""From networks to steps: what is folded, and what cannot be packed."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.utils.parametrizations import weight_norm

from bclightning.errors import UserError
from bclightning.inference import PackedModel
from bclightning.inference.tracing import folded, trace
from bclightning.models import MLP
from bclightning.nn import BinaryConv2d, BinaryLinear


def test_a_normalization_on_another_device_is_folded_on_the_cpu():
    with FakeTensorMode():  # which knows devices that are not there
        norm = nn.BatchNorm1d(3, device="cuda")
        assert norm.running_var.device.type == "cuda"
        assert [tensor.device.type for tensor in folded(norm)] == ["cpu", "cpu"]


def test_a_normalization_without_running_statistics_cannot_be_folded():
    with pytest.raises(ValueError, match="without running statistics cannot be folded"):
        folded(nn.BatchNorm1d(3, track_running_stats=False))


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = BinaryLinear(4, 2)

    def forward(self, x):
        return torch.relu(self.linear(torch.flatten(x, 1).contiguous()))


def test_functions_are_steps_too_and_what_does_nothing_is_left_out():
    network = nn.Sequential(nn.Identity(), Functional(), nn.Dropout())
    steps = [step for step, _ in trace(network)]
    assert [(step.kind, step.name) for step in steps] == [
        ("flatten", ""),
        ("linear", "1.linear"),
        ("relu", ""),
    ]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = BinaryLinear(4, 4)

    def forward(self, x):
        return x + self.linear(x)


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x


def hooked() -> nn.Module:
    layer = BinaryLinear(4, 2)
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    return nn.Sequential(layer)


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            Residual,
            "Residual cannot be packed: only chains of layers are supported: add must take linear "
            "alone",
        ),
        (TwoInputs, "TwoInputs cannot be packed: only networks with one input are supported"),
        (Branches, "torch.fx cannot trace it"),
        (
            lambda: nn.Sequential(BinaryLinear(4, 2), nn.GELU()),
            r"Sequential cannot be packed: unsupported operation: _1 \(GELU\)",
        ),
        (
            lambda: nn.Sequential(BinaryConv2d(1, 2, 1, padding_mode="reflect")),
            r"unsupported operation: _0 \(BinaryConv2d\): 1, 2, .*padding_mode=reflect",
        ),
        (lambda: MLP(4, [3], 2, "none"), "there are no binary weights to pack"),
        (lambda: nn.Sequential(BinaryLinear(5, 2)), "linear '0': cannot take an input of shape"),
        (
            lambda: nn.Sequential(nn.Flatten(), BinaryLinear(4, 3)),
            r"2 class names need an output of shape \(2,\), got \(3,\)",
        ),
        (hooked, "0 has hooks or parametrizations"),
        (
            lambda: nn.Sequential(weight_norm(nn.Linear(4, 2))),
            "0 has hooks or parametrizations",
        ),
    ],
)
def test_what_cannot_be_packed_says_why(make, sentence):
    with pytest.raises(UserError, match=sentence):
        PackedModel.of(make(), (1, 2, 2), ["a", "b"])
