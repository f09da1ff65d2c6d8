"""From networks to steps: what is folded, and what cannot be packed."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.utils.parametrizations import weight_norm

from bclightning.errors import UserError
from bclightning.inference import PackedModel, PackedNetwork
from bclightning.inference.tracing import folded, trace
from bclightning.models import MLP
from bclightning.nn import BinaryConv2d, BinaryLinear


def test_a_normalization_on_another_device_is_folded_on_the_cpu():
    with FakeTensorMode():  # which knows devices that are not there
        norm = nn.BatchNorm1d(3, device="cuda")
        assert norm.running_var.device.type == "cuda"
        scale_and_shift = folded(norm.running_mean, norm.running_var, norm.weight, norm.bias)
        assert [tensor.device.type for tensor in scale_and_shift] == ["cpu", "cpu"]


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = BinaryLinear(4, 2)

    def forward(self, x):
        return torch.relu(self.linear(torch.flatten(x, 1).contiguous()))


def test_functions_are_steps_too_and_what_does_nothing_is_left_out():
    network = nn.Sequential(nn.Identity(), Functional(), nn.Dropout())
    steps = [each.step for each in trace(network, (1, 2, 2))]
    assert [(step.kind, step.name) for step in steps] == [
        ("flatten", ""),
        ("linear", "1.linear"),
        ("relu", ""),
    ]


class TwoInputs(nn.Module):
    def forward(self, x, y):
        return x


class Branches(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Calls(nn.Module):
    """A binary layer, and then whatever a function makes of its result and of the layer."""

    def __init__(self, function):
        super().__init__()
        self.linear = BinaryLinear(4, 2)
        self.function = function

    def forward(self, x):
        return self.function(self.linear(x.flatten(1)), self.linear)


def calls(function):
    return lambda: nn.Sequential(OrderedDict(body=Calls(function)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (TwoInputs, r"TwoInputs cannot be packed: it cannot take images of shape .*: 'y'\)$"),
        (
            Branches,
            r"Branches cannot be packed: what it computes depends on the values of a tensor",
        ),
        (
            calls(lambda x, _: torch.erfinv(x)),
            r"Sequential cannot be packed: unsupported operation: erfinv in body \(Calls\)$",
        ),
        (
            lambda: Calls(lambda x, _: torch.erfinv(x)),
            r"unsupported operation: erfinv in the network itself$",
        ),
        (
            lambda: nn.Sequential(BinaryConv2d(1, 2, 1, padding=1, padding_mode="reflect")),
            r"unsupported operation: pad in 0 \(BinaryConv2d\): it pads with reflect, not zeros$",
        ),
        (
            calls(lambda x, _: x / x.shape[0]),
            r"operation: div in body \(Calls\): it computes with the size of the batch$",
        ),
        (calls(lambda x, _: x[:1]), "in body .*: it takes some images of a batch$"),
        (
            calls(lambda x, _: x - x.mean(0)),
            r"unsupported operation: mean in body \(Calls\): mean: ",
        ),
        (
            calls(lambda x, layer: x @ layer.weight[:, :2]),
            r"in body \(Calls\): it computes with the latent weight of body\.linear, which only",
        ),
        (
            calls(lambda x, _: nn.functional.adaptive_max_pool1d(x[:, None], 1, True)[1]),
            "its result number 2 is used",
        ),
        (calls(lambda x, _: (x, x)), "it must return one tensor, which depends on the image$"),
        (calls(lambda x, layer: layer.bias), "it must return one tensor"),
        (
            lambda: nn.Sequential(
                nn.Flatten(), BinaryLinear(4, 2), nn.BatchNorm1d(2, track_running_stats=False)
            ),
            r"batch_norm in 2 \(BatchNorm1d\): it has no running statistics$",
        ),
        (lambda: MLP(4, [3], 2, "none"), "there are no binary weights to pack"),
        (
            lambda: nn.Sequential(BinaryLinear(5, 2)),
            r"it cannot take images of shape \(1, 2, 2\) \(mat1 and mat2 shapes cannot",
        ),
        (
            lambda: nn.Sequential(nn.Flatten(), BinaryLinear(4, 3)),
            r"2 class names need an output of shape \(2,\), got \(3,\)",
        ),
    ],
)
def test_what_cannot_be_packed_says_why_and_where(make, sentence, capfd):
    with pytest.raises(UserError, match=sentence) as error:
        PackedModel.of(make(), (1, 2, 2), ["a", "b"])
    assert "\n" not in str(error.value)
    assert "".join(capfd.readouterr()) == ""  # torch.export has a page to say about some of them


def test_the_network_stays_as_it_was():
    network = nn.Sequential(nn.Flatten(), BinaryLinear(4, 2, binarization="stochastic"))
    network.train()
    network[0].eval()
    trace(network, (1, 2, 2))
    assert [module.training for module in network.modules()] == [True, False, True]
    assert network[1].eval_weights == "real"
    with pytest.raises(UserError):
        trace(Branches(), (1, 2, 2))
    assert torch.backends.mha.get_fastpath_enabled()


def packed_and_expected(network: nn.Module, *shape: int):
    """What a packed network computes, and what the network does, of the same images."""
    network.eval()
    images = torch.randn(3, *shape)
    with torch.no_grad():
        expected = network(images)
    names = [str(i) for i in range(expected.shape[1])]
    return PackedNetwork(PackedModel.of(network, shape, names), "float32")(images), expected


def test_hooks_and_parametrizations_are_what_they_compute():
    layer = BinaryLinear(4, 3)
    layer.register_forward_hook(lambda module, inputs, output: 2 * output)
    network = nn.Sequential(nn.Flatten(), layer, weight_norm(nn.Linear(3, 2)))
    torch.testing.assert_close(*packed_and_expected(network, 1, 2, 2))


def test_the_size_of_the_batch_may_be_asked_for_in_any_way():
    """Python's ``len`` must be a number, and one form of torch.export fixes the batch for it."""
    network = Calls(lambda x, _: x.reshape(len(x), 1, x.size(0) // x.shape[0] * 2).flatten(1))
    torch.testing.assert_close(*packed_and_expected(network, 1, 2, 2))


def test_what_no_output_needs_is_left_out():
    network = Calls(lambda x, _: (torch.relu(x), x.exp())[0])
    assert [each.step.kind for each in trace(network, (1, 2, 2))] == ["flatten", "linear", "relu"]
