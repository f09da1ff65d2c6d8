"""The packed model: what it computes, and what it refuses."""

import hashlib
import json
import re
import subprocess
import sys
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bclightning.errors import UserError
from bclightning.inference import PackedModel, PackedNetwork, load
from bclightning.inference.checksum import DamagedFileError, read_checked, write_checked
from bclightning.inference.graph import Step
from bclightning.inference.runtime import fastest
from bclightning.models import MLP, ConvNet
from bclightning.nn import (
    BinaryConv2d,
    BinaryLinear,
    binary_layers,
    convert_to_binary,
    evaluating_with,
)
from bclightning.preprocessing import Preprocessing

TEN = tuple("0123456789")


def trained(network: nn.Module, *shape: int) -> nn.Module:
    """A network whose batch normalizations have seen something and have gains of their own."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, -2, 2)
            nn.init.uniform_(module.bias, -1, 1)
    network.train()
    network(torch.randn(32, *shape))
    return network.eval()


def scores_with_signs(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad(), evaluating_with(network, "binary"):
        return network(images)


def convolutions(**settings) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["first"] = BinaryConv2d(2, 6, **settings)
    layers["norm"] = nn.BatchNorm2d(6)
    layers["relu"] = nn.ReLU()
    layers["flatten"] = nn.Flatten()
    layers["last"] = nn.LazyLinear(3)
    network = nn.Sequential(layers)
    network(torch.zeros(2, 2, 9, 11))
    return network


NETWORKS = {
    "mlp": (lambda: MLP(30, [17, 1, 9], 10, "stochastic"), (1, 5, 6)),
    "convnet": (lambda: ConvNet(8, 3, [5, 7], 11, 10, regularizer="deterministic"), (3, 8, 8)),
    "strided": (lambda: convolutions(kernel_size=(3, 2), stride=(2, 1), bias=False), (2, 9, 11)),
    "dilated": (lambda: convolutions(kernel_size=3, dilation=2, padding=(1, 0)), (2, 9, 11)),
    "grouped": (lambda: convolutions(kernel_size=3, groups=2), (2, 9, 11)),
    "users": (
        lambda: convert_to_binary(
            nn.Sequential(
                nn.Flatten(), nn.Linear(9, 8), nn.Dropout(), nn.ReLU(), nn.Linear(8, 4, bias=False)
            ),
            skip=["4"],
        ),
        (1, 3, 3),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("storage", ["bits", "float32", "bfloat16", "int8"])
def test_a_packed_network_computes_what_the_network_computes(tmp_path, name, storage):
    make, shape = NETWORKS[name]
    network = trained(make(), *shape)
    images = torch.randn(9, *shape)
    expected = scores_with_signs(network, images)
    classes = [f"class {i}" for i in range(expected.shape[1])]
    PackedModel.of(network, shape, classes).write(tmp_path / "m.safetensors")
    loaded = load(tmp_path / "m.safetensors", storage)
    exact = storage in ("bits", "float32")
    scale = float(expected.abs().max())
    torch.testing.assert_close(
        loaded(images), expected, rtol=1e-4, atol=scale * (1e-5 if exact else 0.05)
    )
    assert loaded.class_names == tuple(classes)
    assert loaded.image_shape == shape


@settings(deadline=None, max_examples=15)
@given(
    widths=st.lists(st.integers(1, 40), min_size=1, max_size=3),
    sides=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    seed=st.integers(0, 100),
)
def test_any_width_goes_into_a_file_and_comes_back(tmp_path_factory, widths, sides, seed):
    torch.manual_seed(seed)
    channels, height, width = sides
    network = MLP(channels * height * width, widths, 10, "stochastic").eval()
    path = tmp_path_factory.mktemp("m") / "m.safetensors"
    model = PackedModel.of(network, sides, TEN, about={"seed": seed})
    model.write(path)
    again = PackedModel.read(path)
    assert again.steps == model.steps
    assert again.about == {"seed": seed}
    assert all(torch.equal(again.tensors[k], v) for k, v in model.tensors.items())
    binary = sum(layer.weight.numel() for layer in binary_layers(network).values())
    assert again.nbytes < binary / 8 + 10 * sum(widths) + 200
    assert again.float_bytes == 4 * (binary + 2 * sum(widths) + 20)


def test_the_paper_s_networks_have_the_promised_sizes(tmp_path):
    for network, shape, megabytes in (
        (MLP(), (1, 28, 28), 0.39),
        (ConvNet(), (3, 32, 32), 1.79),
    ):
        path = tmp_path / "m.safetensors"
        PackedModel.of(network, shape, TEN).write(path)
        assert round(path.stat().st_size / 1e6, 2) == megabytes


@pytest.fixture
def small(tmp_path):
    """A small packed file with preprocessing."""
    network = trained(MLP(12, [3], 2, "deterministic"), 1, 3, 4)
    centre = Preprocessing("centred", 255.0, {"mean": torch.rand(1, 3, 4)})
    path = tmp_path / "small.safetensors"
    PackedModel.of(network, (1, 3, 4), ["no", "yes"], centre, {"run": "r"}).write(path)
    return path


def refused(path, content) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as error:
        load(path)
    assert "\n" not in str(error.value)


def test_every_truncation_is_refused(small, tmp_path):
    content = small.read_bytes()
    for length in range(len(content)):
        refused(tmp_path / "cut.safetensors", content[:length])
    refused(tmp_path / "long.safetensors", content + b"\0")


def test_every_flipped_bit_is_refused(small, tmp_path):
    content = small.read_bytes()
    for place in range(len(content)):
        for bit in range(8):
            damaged = bytearray(content)
            damaged[place] ^= 1 << bit
            refused(tmp_path / "flipped.safetensors", bytes(damaged))


@pytest.mark.slow
def test_ten_thousand_mutations_are_refused_and_cost_little_memory(small, tmp_path):
    rng = np.random.default_rng(0)
    content = small.read_bytes()
    path = tmp_path / "mutated.safetensors"
    refused(path, content[:-1])  # what is imported and compiled once is not the file's
    tracemalloc.start()
    for _ in range(10_000):
        damaged = bytearray(content)
        match rng.integers(4):
            case 0:
                for place in rng.integers(0, len(damaged), rng.integers(1, 20)):
                    damaged[place] ^= rng.integers(1, 256)
            case 1:
                a, b = sorted(rng.integers(0, len(damaged), 2))
                del damaged[a : b + 1]
            case 2:
                place = rng.integers(0, len(damaged))
                damaged[place:place] = rng.bytes(int(rng.integers(1, 50)))
            case _:
                damaged[:8] = rng.bytes(8)
        path.write_bytes(damaged)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        with pytest.raises(DamagedFileError):
            load(path)
        # Beside the file there are the interpreter's own few objects: an error and its sentence.
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < 2 * len(content) + 20_000
    tracemalloc.stop()


def rewritten(path, change) -> None:
    """Rewrite a file with other content and a checksum that matches it, as an attacker would."""
    metadata, tensors = read_checked(path)
    del metadata["sha256"]
    before = metadata["content"]
    content = json.loads(before)
    change(content, tensors, metadata)
    if metadata["content"] == before:
        metadata["content"] = json.dumps(content)
    write_checked(path, tensors, metadata)


POOLING = {"kind": "max_pool2d", "kernel_size": [2, 2], "stride": [1, 1], "padding": [0, 0]}
CONVOLUTION = Step(
    "conv2d",
    "more",
    {"in_channels": 1, "out_channels": 2, "groups": 1}
    | {"kernel_size": [1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]},
    binary=True,
).as_json()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c, t, m: c["steps"].append({"kind": "exec"}), "unsupported operation: 'exec'"),
        (
            lambda c, t, m: c["steps"].append({"kind": "relu", "name": 3}),
            "relu: name must be a string, got 3",
        ),
        (
            lambda c, t, m: c["steps"].append({"kind": "relu", "more": 3}),
            "relu: expected the settings [], got ['more']",
        ),
        (
            lambda c, t, m: c["steps"][1].update(in_features=2**40),
            "in_features must be an integer in [1, 2**24), got 1099511627776",
        ),
        (
            lambda c, t, m: c["steps"][1].update(in_features=-12),
            "in_features must be an integer in [1, 2**24), got -12",
        ),
        (
            lambda c, t, m: c["steps"][1].update(in_features=[12, 1]),
            "in_features must be an integer in [1, 2**24), got [12, 1]",
        ),
        (
            lambda c, t, m: c["steps"][1].update(in_features=24),
            "tensor of shape (3, 3), got torch.uint8 of shape (3, 2)",
        ),
        (lambda c, t, m: c["steps"].pop(1), "unexpected tensors: ['hidden.0.linear.bits']"),
        (
            lambda c, t, m: c["steps"].pop(),
            "unexpected tensors: ['output.norm.scale', 'output.norm.shift']",
        ),
        (
            lambda c, t, m: c["steps"].clear(),
            "unexpected tensors: ['hidden.0.linear.bits', 'hidden.0.norm.scale'",
        ),
        (lambda c, t, m: c.update(steps=3), "steps must be a list, got 3"),
        (
            lambda c, t, m: c.update(image_shape=[]),
            "image_shape must be one to three positive integers, got []",
        ),
        (
            lambda c, t, m: c.update(image_shape=[1, 3, "x"]),
            "image_shape must be one to three positive integers, got [1, 3, 'x']",
        ),
        (
            lambda c, t, m: c.update(class_names=["one"]),
            "1 class names need an output of shape (1,), got (2,)",
        ),
        (
            lambda c, t, m: c["preprocessing"].update(kind="pickled"),
            "unsupported preprocessing: 'pickled'",
        ),
        (lambda c, t, m: c.pop("about"), "'about' is missing"),
        (lambda c, t, m: t.pop("output.linear.bits"), "missing tensors: ['output.linear.bits']"),
        (
            lambda c, t, m: t.update({"output.linear.bits": torch.zeros(2, 2, dtype=torch.uint8)}),
            "tensor of shape (2, 1), got torch.uint8 of shape (2, 2)",
        ),
        (
            lambda c, t, m: t.update({"output.norm.scale": torch.full((2,), torch.nan)}),
            "'output.norm.scale' contains NaN or infinity",
        ),
        (
            lambda c, t, m: t.update({"preprocessing/mean": torch.zeros(1, 4, 4)}),
            "{'mean': (1, 3, 4)}, got {'mean': (1, 4, 4)}",
        ),
        (
            lambda c, t, m: c.update(image_shape=[-1, -3, 4]),
            "image_shape must be one to three positive integers, got [-1, -3, 4]",
        ),
        (
            lambda c, t, m: c.update(image_shape=[1, 3, 1e999]),
            "image_shape must be one to three positive integers, got [1, 3, inf]",
        ),
        (lambda c, t, m: c.update(class_names=["no", "\ud800"]), "surrogates not allowed"),
        (
            lambda c, t, m: c["preprocessing"].update(scale=0),
            "scale must be between 1e-09 and 1e+09, got 0.0",
        ),
        (
            lambda c, t, m: c["preprocessing"].update(scale="nan"),
            "scale must be a number, got 'nan'",
        ),
        (
            lambda c, t, m: c["preprocessing"].update(scale=10**400),
            "int too large to convert to float",
        ),
        (
            lambda c, t, m: c["steps"].insert(0, POOLING | {"padding": [2, 2]}),
            "max_pool2d: padding must be at most half",
        ),
        (
            lambda c, t, m: c["steps"].insert(0, CONVOLUTION | {"groups": 2}),
            "in_channels must be divisible by groups, got 1 and 2",
        ),
        (
            lambda c, t, m: c["steps"].insert(0, CONVOLUTION | {"padding": [2000, 2000]}),
            "conv2d 'more': padding must be at most half",
        ),
        (
            lambda c, t, m: t.update({"preprocessing/mean": torch.full((1, 3, 4), torch.nan)}),
            "mean contains NaN or infinity",
        ),
        (
            lambda c, t, m: t.update({"preprocessing/mean": torch.zeros(1, 3, 4).double()}),
            "mean must be float32, got torch.float64",
        ),
        (lambda c, t, m: m.update(format="another"), "is not a packed model"),
        (lambda c, t, m: m.update(content="[" * 100_000), "describes no valid network"),
        (lambda c, t, m: m.update(content="{"), "line 1 column 2"),
    ],
)
def test_a_file_that_is_whole_but_makes_no_sense_is_refused(small, change, sentence):
    rewritten(small, change)
    with pytest.raises(DamagedFileError, match=re.escape(sentence)):
        load(small)


def exact_network() -> nn.Module:
    """Each kind of step, with numbers that no machine rounds."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = BinaryConv2d(2, 3, (2, 1), stride=(1, 2), padding=(1, 0))
    layers["norm"] = nn.BatchNorm2d(3, eps=0.0)
    layers["relu"] = nn.ReLU()
    layers["pool"] = nn.MaxPool2d(2)
    layers["drop"] = nn.Dropout()
    layers["flatten"] = nn.Flatten()
    layers["hidden"] = BinaryLinear(6, 4, bias=False)
    layers["last"] = nn.Linear(4, 2)
    network = nn.Sequential(layers).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            places = torch.arange(parameter.numel()).reshape(parameter.shape)
            parameter.copy_((places * 5 % 7 - 3) / 4)
        network.norm.running_mean.copy_(torch.tensor([0.5, -1.0, 2.0]))
        network.norm.running_var.copy_(torch.tensor([4.0, 0.25, 1.0]))
    return network


def test_the_bytes_of_a_packed_file_are_those_of_format_version_1(tmp_path):
    """Pinned: a file that differs in one byte is another format, and needs another version."""
    path = tmp_path / "m.safetensors"
    centre = Preprocessing("centred", 255.0, {"mean": torch.arange(24.0).reshape(2, 3, 4) / 8})
    about = {"run": "r", "test_error": 1.25}
    PackedModel.of(exact_network(), (2, 3, 4), ["no", "yes"], centre, about).write(path)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == (
        "87acf905273f2503f2183b8946651ebfdb7c2081a7666bdb2adf53437972d508"
    )
    scores = load(path)(torch.arange(24.0).reshape(1, 2, 3, 4) / 8 - 1)
    torch.testing.assert_close(scores, torch.tensor([[0.1797, 0.9375]]), rtol=0, atol=1e-4)


def test_a_later_version_says_so(small):
    rewritten(small, lambda c, t, m: m.update(format_version="3"))
    with pytest.raises(
        UserError, match="has format version 3, and this bclightning reads versions up to 2"
    ):
        load(small)


def test_large_preprocessing_lies_beside_and_belongs_to_its_model(tmp_path):
    sides = (3, 14, 14)
    features = 3 * 14 * 14
    network = trained(MLP(features, [3], 10), *sides)
    path = tmp_path / "m.safetensors"
    whiten = {"mean": torch.randn(features), "matrix": torch.randn(features, features)}
    model = PackedModel.of(network, sides, TEN, Preprocessing("whitened", 55.0, whiten))
    files = model.write(path)
    assert [file.name for file in files] == ["m.safetensors", "m.preprocessing.safetensors"]
    assert path.stat().st_size < 10_000
    pixels = torch.randint(0, 256, (2, *sides), dtype=torch.uint8)
    expected = model.preprocessing.apply(pixels)
    assert torch.equal(load(path).prepare(pixels), expected)
    files[1].rename(tmp_path / "elsewhere")
    alone = load(path)
    assert alone(expected).shape == (2, 10)
    with pytest.raises(UserError, match="in a file of its own that is missing"):
        alone.prepare(pixels)
    whiten["mean"] += 1
    PackedModel.of(network, sides, TEN, Preprocessing("whitened", 55.0, whiten)).write(
        tmp_path / "other.safetensors"
    )
    (tmp_path / "other.preprocessing.safetensors").rename(files[1])
    with pytest.raises(DamagedFileError, match="is the preprocessing of another model"):
        load(path)


def test_pixels_of_another_size_are_refused(small):
    network = load(small)
    assert network.prepare(torch.zeros(2, 1, 3, 4)).shape == (2, 1, 3, 4)
    with pytest.raises(UserError, match="images of 1 x 4 x 3 do not fit a network for 1 x 3 x 4"):
        network.prepare(torch.zeros(2, 1, 4, 3))


def test_the_fastest_storage_is_one_of_them(small):
    assert fastest(PackedModel.read(small), 4, rounds=1).storage in (
        "bits",
        "float32",
        "bfloat16",
        "int8",
    )
    assert load(small, "fastest")(torch.zeros(1, 1, 3, 4)).shape == (1, 2)
    with pytest.raises(UserError, match="storage must be bits, float32"):
        load(small, "float16")


def test_equal_models_make_equal_files_and_a_loaded_one_needs_its_file_no_more(small, tmp_path):
    model = PackedModel.read(small)
    model.write(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == small.read_bytes()
    network, images = load(small), torch.randn(2, 1, 3, 4)
    before = network(images)
    small.write_bytes(b"")
    assert torch.equal(network(images), before)
    assert torch.equal(network.preprocessing.tensors["mean"], model.preprocessing.tensors["mean"])


def test_a_packed_model_is_not_changed_by_training_on(tmp_path):
    network = nn.Sequential(nn.Flatten(), BinaryLinear(4, 3), nn.Linear(3, 2))
    model = PackedModel.of(network, (1, 2, 2), ["a", "b"])
    before = {name: tensor.clone() for name, tensor in model.tensors.items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.neg_()
    assert all(torch.equal(model.tensors[name], tensor) for name, tensor in before.items())


def test_a_layer_that_is_used_twice_is_stored_once(tmp_path):
    layer, shared = BinaryLinear(4, 4), nn.Linear(4, 4)
    tied = nn.Linear(4, 4)
    tied.weight = shared.weight
    network = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, shared, tied).eval()
    model = PackedModel.of(network, (1, 2, 2), list("abcd"))
    model.write(tmp_path / "m.safetensors")
    images = torch.randn(3, 1, 2, 2)
    expected = scores_with_signs(network, images)
    torch.testing.assert_close(load(tmp_path / "m.safetensors")(images), expected)
    assert model.float_bytes == 4 * 3 * (16 + 4)


def printed_by(code: str) -> list[str]:
    """The lines that a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_forked_process_can_compute_on_the_bits_too():
    code = (
        "import os, torch\n"
        "from bclightning.functional.bit_product import bit_linear\n"
        "from bclightning.functional._numba import threads_for\n"
        "bits, inputs = torch.ones(512, 4096, dtype=torch.uint8), torch.ones(1, 4096)\n"
        "torch.set_num_threads(2)\n"
        "before = bit_linear(inputs, bits)\n"
        "assert threads_for(bits.numel()) == 2\n"
        "child = os.fork()\n"
        "if not child: os._exit(7 if torch.equal(bit_linear(inputs, bits), before) else 1)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    assert printed_by(code) == ["7"]


def test_where_nothing_can_be_written_code_is_compiled_again():
    """Without a folder for compiled code, as in a container whose disk is read-only."""
    code = (
        "import numba.core.caching as c\n"
        "for locator in c.CacheImpl._locator_classes: locator.from_function = lambda *_: None\n"
        "import torch\n"
        "from bclightning.functional.bit_product import bit_linear\n"
        "print(bit_linear(torch.ones(1, 8), torch.full((1, 1), 255, dtype=torch.uint8)).item())"
    )
    assert printed_by(code) == ["8.0"]


def test_weights_that_are_not_numbers_are_not_packed():
    network = MLP(4, [3], 2)
    with torch.no_grad():
        network.output.linear.weight[0, 0] = torch.nan
    with pytest.raises(UserError, match=r"output\.linear cannot be packed: NaN has no sign"):
        PackedModel.of(network, (1, 2, 2), ["a", "b"])


def test_running_a_packed_model_imports_neither_lightning_nor_wandb(small):
    code = (
        "import sys, torch; from bclightning.inference import load; "
        f"print(load({str(small)!r})(torch.zeros(1, 1, 3, 4)).shape); "
        "print([m for m in sys.modules if m.split('.')[0] in "
        "('lightning', 'wandb', 'torchmetrics', 'jsonargparse', 'optuna')])"
    )
    assert printed_by(code) == ["torch.Size([1, 2])", "[]"]


def test_a_module_of_the_file_can_be_saved_and_moved_as_any_other(small):
    network = PackedNetwork(PackedModel.read(small), "float32")
    assert sum(buffer.numel() for buffer in network.buffers()) == 12 * 3 + 3 * 2 + 2 * 3 + 2 * 2
    assert not list(network.parameters())


def test_a_file_below_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=f"there is no file {tmp_path}/none"):
        load("~/none")
