"""Packed models as ONNX graphs: the same scores in another runtime, and as few bytes."""

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bclightning.inference import PackedModel, PackedNetwork
from bclightning.inference.onnx import as_onnx, onnx_scores
from bclightning.models import MLP, ConvNet
from bclightning.nn import BinaryConv2d, BinaryLinear
from bclightning.preprocessing import Preprocessing


def mixed() -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["first"] = BinaryConv2d(2, 6, (3, 2), stride=(2, 1), padding=(1, 0), groups=2)
    layers["norm"] = nn.BatchNorm2d(6)
    layers["relu"] = nn.ReLU()
    layers["real"] = nn.Conv2d(6, 5, 2, dilation=2, bias=False)
    layers["pool"] = nn.MaxPool2d((2, 1), stride=1, padding=(1, 0))
    layers["flatten"] = nn.Flatten()
    layers["last"] = BinaryLinear(160, 3)
    return nn.Sequential(layers)


def settled(network: nn.Module, *shape: int) -> nn.Module:
    """With batch-norm statistics of its own, in evaluation mode."""
    for _ in range(20):
        network(torch.randn(32, *shape))
    return network.eval()


def both(network: nn.Module, shape: tuple[int, int, int], classes: int, path, count: int = 7):
    model = PackedModel.of(network, shape, [str(i) for i in range(classes)], about={"run": "r"})
    path.write_bytes(as_onnx(model))
    images = torch.randn(count, *shape)
    return onnx_scores(path, images), PackedNetwork(model, "float32")(images)


@pytest.mark.parametrize(
    ("make", "shape", "classes"),
    [
        (lambda: MLP(30, [17, 1, 9], 10, "stochastic"), (1, 5, 6), 10),
        (lambda: ConvNet(8, 3, [5, 7], 11, 10, regularizer="deterministic"), (3, 8, 8), 10),
        (mixed, (2, 9, 11), 3),
    ],
)
@pytest.mark.parametrize("count", [1, 7])
def test_onnxruntime_gives_the_same_scores(tmp_path, make, shape, classes, count):
    theirs, ours = both(settled(make(), *shape), shape, classes, tmp_path / "m.onnx", count)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4 * float(ours.abs().max()))
    assert theirs.std() > 0


def test_a_layer_that_is_used_twice(tmp_path):
    layer = BinaryLinear(4, 4)
    network = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer).eval()
    theirs, ours = both(network, (1, 2, 2), 4, tmp_path / "m.onnx")
    torch.testing.assert_close(theirs, ours)


@settings(deadline=None, max_examples=15)
@given(widths=st.lists(st.integers(1, 40), min_size=1, max_size=3), features=st.integers(1, 30))
def test_any_width(tmp_path_factory, widths, features):
    torch.manual_seed(0)
    network = settled(MLP(features, widths, 4), 1, 1, features)
    theirs, ours = both(network, (1, 1, features), 4, tmp_path_factory.mktemp("m") / "m.onnx")
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4 * float(ours.abs().max()))


def test_a_binary_weight_takes_a_bit_of_the_file():
    model = PackedModel.of(MLP(), (1, 28, 28), [str(i) for i in range(10)])
    assert len(as_onnx(model)) < model.nbytes + 10_000


def test_the_graph_says_what_it_is():
    import onnx

    model = PackedModel.of(
        MLP(4, [3], 2),
        (1, 2, 2),
        ["no", "yes"],
        Preprocessing("centred", 255.0, {"mean": torch.zeros(1, 2, 2)}),
        {"run": "r", "test_error": 1.25},
    )
    graph = onnx.load_from_string(as_onnx(model))
    said = {entry.key: entry.value for entry in graph.metadata_props}
    assert said["class_names"] == "no, yes"
    assert said["test_error"] == "1.25"
    assert "centred" in said["preprocessing"]
