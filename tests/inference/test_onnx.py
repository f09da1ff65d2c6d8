"""Packed models as ONNX graphs: the same scores in another runtime, and as few bytes."""

import json
from collections import OrderedDict
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bclightning.errors import UserError
from bclightning.functional.whitening import WINDOW
from bclightning.inference import DamagedFileError, PackedModel, PackedNetwork
from bclightning.inference.onnx import add_metadata, as_onnx, onnx_scores, write_onnx
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


def preprocessed(kind: str, sides: tuple[int, int, int], scale: float = 55.0) -> Preprocessing:
    """Preprocessing with tensors as a data set would give them."""
    features = sides[0] * sides[1] * sides[2]
    tensors = {
        "centred": {"mean": torch.rand(*sides)},
        "whitened": {
            "mean": torch.randn(features),
            "matrix": torch.eye(features) + 0.1 * torch.randn(features, features),
        },
        "contrast-normalized": {},
    }
    return Preprocessing(kind, scale, tensors[kind])


def packed_with(preprocessing: Preprocessing | None, sides: tuple[int, int, int]) -> PackedModel:
    network = settled(MLP(sides[0] * sides[1] * sides[2], [9], 3, "deterministic"), *sides)
    return PackedModel.of(network, sides, ["a", "b, c", "d"], preprocessing, {"run": "r"})


@pytest.mark.parametrize("kind", ["centred", "whitened", "contrast-normalized"])
@pytest.mark.parametrize("count", [1, 6])
def test_raw_pixels_go_in_and_the_scores_of_prepared_images_come_out(tmp_path, kind, count):
    sides = (3, 9, 8)
    model = packed_with(preprocessed(kind, sides), sides)
    path = tmp_path / "m.onnx"
    path.write_bytes(as_onnx(model))
    pixels = torch.randint(0, 256, (count, *sides), dtype=torch.uint8)
    pixels[0] = 200  # an image of one colour, whose contrast is nothing to divide by
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()
    assert (wanted.name, wanted.type, wanted.shape) == (
        "pixels",
        "tensor(uint8)",
        ["batch", *sides],
    )
    (scores,) = session.run(["scores"], {"pixels": pixels.numpy()})
    network = PackedNetwork(model, "float32")
    expected = network(network.prepare(pixels))
    torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0
    assert torch.equal(onnx_scores(path, pixels), torch.from_numpy(scores))


@settings(deadline=None, max_examples=20)
@given(
    sides=st.tuples(st.integers(1, 3), st.integers(1, WINDOW + 2), st.integers(1, WINDOW + 2)),
    kind=st.sampled_from(["centred", "whitened", "contrast-normalized"]),
    scale=st.sampled_from([1.0, 16.0, 55.0, 255.0]),
)
def test_preprocessing_in_the_graph_is_that_of_torch(tmp_path_factory, sides, kind, scale):
    torch.manual_seed(0)
    model = packed_with(preprocessed(kind, sides, scale), sides)
    path = tmp_path_factory.mktemp("m") / "m.onnx"
    path.write_bytes(as_onnx(model, torch.float32))
    pixels = torch.randint(0, 256, (3, *sides)).float()
    network = PackedNetwork(model, "float32")
    ours = network(network.prepare(pixels))
    atol = 1e-4 * max(1.0, float(ours.abs().max()))
    torch.testing.assert_close(onnx_scores(path, pixels), ours, rtol=1e-3, atol=atol)


def test_batches_are_of_any_size_and_join(tmp_path):
    model = packed_with(preprocessed("centred", (1, 2, 2)), (1, 2, 2))
    path = tmp_path / "m.onnx"
    path.write_bytes(as_onnx(model))
    pixels = torch.randint(0, 256, (7, 1, 2, 2), dtype=torch.uint8)
    torch.testing.assert_close(onnx_scores(path, pixels, 3), onnx_scores(path, pixels))


@pytest.fixture
def whitened(tmp_path):
    """A model whose whitening matrix has a file of its own, and that model's files."""
    sides = (3, 14, 14)
    model = packed_with(preprocessed("whitened", sides), sides)
    return model, write_onnx(model, tmp_path / "m.onnx")


def test_a_large_whitening_matrix_has_a_file_of_its_own(whitened, tmp_path):
    model, files = whitened
    path, beside = files
    assert path == tmp_path / "m.onnx"
    assert beside.name.startswith("m.onnx.")
    assert beside.name.endswith(".data")
    assert sorted(tmp_path.iterdir()) == sorted(files)
    assert path.stat().st_size < 20_000
    assert beside.stat().st_size == 4 * (588 * 588 + 588)
    pixels = torch.randint(0, 256, (4, 3, 14, 14), dtype=torch.uint8)
    network = PackedNetwork(model, "float32")
    expected = network(network.prepare(pixels))
    torch.testing.assert_close(onnx_scores(path, pixels), expected, rtol=1e-3, atol=1e-3)
    # As one file, from the same model: the same graph.
    (tmp_path / "one.onnx").write_bytes(as_onnx(model))
    assert torch.equal(onnx_scores(tmp_path / "one.onnx", pixels), onnx_scores(path, pixels))


def test_another_matrix_has_another_file_so_that_none_takes_its_place(whitened, tmp_path):
    """Killed between its two files, an export must not change the model that was there."""
    model, files = whitened
    pixels = torch.randint(0, 256, (2, 3, 14, 14), dtype=torch.uint8)
    before = onnx_scores(files[0], pixels)
    tensors = {name: 2 * tensor for name, tensor in model.preprocessing.tensors.items()}
    other = replace(model, preprocessing=replace(model.preprocessing, tensors=tensors))
    (tmp_path / "new").mkdir()
    _, beside = write_onnx(other, tmp_path / "new" / "m.onnx")
    beside.rename(tmp_path / beside.name)
    assert torch.equal(onnx_scores(files[0], pixels), before)


@pytest.mark.parametrize("damage", ["missing", "short", "other", "empty"])
def test_a_second_file_that_is_not_the_model_s_is_refused(whitened, damage):
    _, (path, beside) = whitened
    content = bytearray(beside.read_bytes())
    content[5000] ^= 1
    match damage:
        case "missing":
            beside.unlink()
        case "short":
            beside.write_bytes(content[:-1])
        case "other":
            beside.write_bytes(content)
        case "empty":
            beside.write_bytes(b"")
    pixels = torch.zeros(1, 3, 14, 14, dtype=torch.uint8)
    with pytest.raises(DamagedFileError, match=r"m\.onnx") as error:
        onnx_scores(path, pixels)
    assert "\n" not in str(error.value)
    assert beside.name in str(error.value)


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(DamagedFileError, match="cannot be loaded by onnxruntime") as error:
        onnx_scores(tmp_path / "m.onnx", torch.zeros(1, 1, 2, 2))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"there is no file .*none\.onnx"):
        onnx_scores(tmp_path / "none.onnx", torch.zeros(1, 1, 2, 2))


def metadata(path) -> dict[str, str]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.get_modelmeta().custom_metadata_map


def test_the_graph_says_what_it_is_and_what_goes_into_it(tmp_path):
    model = packed_with(preprocessed("centred", (3, 2, 2), 255.0), (3, 2, 2))
    write_onnx(model, tmp_path / "m.onnx")
    said = metadata(tmp_path / "m.onnx")
    assert json.loads(said["class_names"]) == ["a", "b, c", "d"]
    assert json.loads(said["preprocessing"])["kind"] == "centred"
    assert said["run"] == "r"
    assert said["input_dtype"] == "uint8"
    assert said["input_layout"] == "batch, channels, height, width"
    assert json.loads(said["input_shape"]) == ["batch", 3, 2, 2]
    assert said["input_channels"] == "RGB"
    assert said["input_range"] == "0 to 255"
    assert "raw pixels" in said["input"]


def test_metadata_are_added_and_the_graph_stays(whitened):
    _, (path, _) = whitened
    before = onnx.load(path, load_external_data=False).graph
    add_metadata(path, {"test_error": 1.25})
    assert metadata(path)["test_error"] == "1.25"
    assert metadata(path)["run"] == "r"
    assert onnx.load(path, load_external_data=False).graph == before


def test_without_preprocessing_the_graph_takes_prepared_images_and_says_so(tmp_path):
    model = packed_with(preprocessed("centred", (1, 2, 2)), (1, 2, 2))
    path = tmp_path / "m.onnx"
    path.write_bytes(as_onnx(replace(model, preprocessing=None)))
    graph = onnx.load(path).graph
    assert [value.name for value in graph.input] == ["images"]
    images = torch.randn(4, 1, 2, 2)
    ours = PackedNetwork(model, "float32")(images)
    torch.testing.assert_close(onnx_scores(path, images), ours, rtol=1e-4, atol=1e-4)
    assert metadata(path)["input_dtype"] == "float32"
    assert "prepared images" in metadata(path)["input"]
    assert "input_range" not in metadata(path)


def test_pixels_of_another_type_or_size_are_one_sentence(tmp_path):
    model = packed_with(preprocessed("centred", (1, 2, 2)), (1, 2, 2))
    path = tmp_path / "m.onnx"
    path.write_bytes(as_onnx(model))
    for wrong in (torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 3, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="onnxruntime cannot take") as error:
            onnx_scores(path, wrong)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="uint8 or float32"):
        as_onnx(model, torch.int64)


def test_an_affine_step_knows_whether_it_follows_images(tmp_path):
    """The same scale and shift, after a convolution and after flattening."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = BinaryConv2d(1, 2, 1)
    layers["norm"] = nn.BatchNorm2d(2)
    layers["flatten"] = nn.Flatten()
    layers["hidden"] = BinaryLinear(8, 2)
    layers["last"] = nn.BatchNorm1d(2)
    network = settled(nn.Sequential(layers), 1, 2, 2)
    theirs, ours = both(network, (1, 2, 2), 2, tmp_path / "m.onnx")
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-4)
    assert np.isfinite(theirs.numpy()).all()
