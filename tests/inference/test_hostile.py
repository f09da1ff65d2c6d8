"""Packed files of strangers, with checksums that match: one sentence, and nothing is run."""

import copy
import hashlib
import json
import math
import re
import struct
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bclightning.errors import UserError
from bclightning.formatting import printable
from bclightning.inference import DamagedFileError, PackedModel, PackedNetwork, load
from bclightning.inference.checksum import read_checked, with_checksum
from bclightning.inference.graph import Step
from bclightning.inference.kinds import KINDS
from bclightning.inference.limits import check_limits
from bclightning.models import MLP
from bclightning.nn import BinaryConv2d, BinaryLinear
from bclightning.preprocessing import Preprocessing

ZEROS = b"0" * 64

# Of the processor, for a refusal: it takes one at most, and more where coverage counts the lines.
MAX_SECONDS = 4


def sealed(header: bytes, data: bytes = b"") -> bytes:
    """A file with a header of our choice, in which ``ZEROS`` become the checksum that matches."""
    content = struct.pack("<Q", len(header)) + header + data
    return content.replace(ZEROS, hashlib.sha256(content).hexdigest().encode(), 1)


SEAL = b'"sha256":"' + ZEROS + b'"'


def small_model() -> PackedModel:
    torch.manual_seed(0)
    network = nn.Sequential(
        BinaryConv2d(1, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        BinaryLinear(8, 3),
        nn.BatchNorm1d(3),
        nn.Linear(3, 2),
    ).eval()
    centre = Preprocessing("centred", 255.0, {"mean": torch.rand(1, 4, 4)})
    return PackedModel.of(network, (1, 4, 4), ["no", "yes"], centre, {"run": "r", "seed": 3})


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The description, the other metadata and the tensors of a small packed model."""
    return parts_of(small_model(), tmp_path_factory)


@pytest.fixture(scope="module")
def parts_of_a_graph(tmp_path_factory, every_kind):
    """The same of a graph with every kind of step."""
    return parts_of(every_kind[1], tmp_path_factory)


def parts_of(model: PackedModel, tmp_path_factory):
    path = tmp_path_factory.mktemp("m") / "m.safetensors"
    model.write(path)
    metadata, tensors = read_checked(path)
    del metadata["sha256"]
    return json.loads(metadata.pop("content")), metadata, tensors


def refused(path, content: bytes, storage="bits") -> str:
    path.write_bytes(content)
    with pytest.raises(DamagedFileError) as error:
        load(path, storage)
    said = str(error.value)
    assert printable(said) == said
    assert len(said) < 1000
    return said


@pytest.mark.parametrize(
    "header",
    [
        SEAL + b"[" * 100_000,
        b"[" * 100_000 + SEAL,
        b"[{" + SEAL + b"}]",
        b"{" + SEAL + b"}",
        b'{"__metadata__":[{' + SEAL + b"}]}",
        b'{"__metadata__":{' + SEAL + b',"format":3}}',
        b'{"__metadata__":{' + SEAL + b',"format":"x\x1b[2J"}}',
        b'{"__metadata__":{' + SEAL + b',"a":' + b"[" * 100_000 + b"}}",
        b'{"__metadata__":{' + SEAL + b'},"__metadata__":3}',
        b'{"__metadata__":{' + SEAL + b'},"__metadata__":null}',
        b'{"__metadata__":{' + SEAL + b'},"\\u001b[2J":3}',
        *(
            b'{"__metadata__":{' + SEAL + b'},"a":{"dtype":"' + dtype + b'","shape":' + shape
            + b',"data_offsets":[0,0]}}'
            for dtype, shape in (
                (b"F32", b"[0,4611686018427387904,4]"),
                (b"F32", b"[0,9223372036854775808]"),
                (b"F32", b"[-1,0]"),
                (b"F32", b"[1e9]"),
                (b"F8_E8M0", b"[0]"),
                (b"F4", b"[0]"),
                (b"XX", b"[0]"),
                (b"F32", b"[]"),
            )
        ),
    ],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(tmp_path, header):
    refused(tmp_path / "m", sealed(header))


def packed(tensors, steps, image_shape, classes, version="1", **more) -> bytes:
    content = {"steps": steps, "image_shape": image_shape, "about": {}} | more
    content["class_names"] = [str(i) for i in range(classes)]
    metadata = {"format": "bclightning-packed", "format_version": version}
    return with_checksum(tensors, metadata | {"content": json.dumps(content)})


def pool(kernel: int, stride: int = 1, padding: int = 0) -> dict[str, object]:
    return {
        "kind": "max_pool2d",
        **{"kernel_size": [kernel] * 2, "stride": [stride] * 2, "padding": [padding] * 2},
    }


def convolution(kernel: int, name: str = "c", channels: int = 1, **more) -> dict[str, object]:
    sizes = {"in_channels": channels, "out_channels": channels, "groups": 1}
    pairs = {"stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    flags = {"name": name, "binary": True, "bias": False}
    return {"kind": "conv2d", "kernel_size": [kernel] * 2, **sizes, **pairs, **flags} | more


FLATTEN = {"kind": "flatten"}


def bits(rows: int, columns: int) -> torch.Tensor:
    return torch.zeros(rows, -(-columns // 8), dtype=torch.uint8)


UNREASONABLE = {
    # Of nothing but a header, an image of 14.4 GB.
    "image": ({}, [pool(60_000), FLATTEN], [1, 60_000, 60_000], 1),
    "image that overflows": ({}, [FLATTEN], [2**40, 2**40, 2**40], 1),
    # A megabyte that is used again and again, and half an hour for an image.
    "reused convolution": (
        {"c.bits": bits(1, 1999 * 1999)},
        [convolution(1999, padding=[999, 999])] * 200 + [pool(4000), FLATTEN],
        [1, 4000, 4000],
        1,
    ),
    "large window": (
        {"c.bits": bits(1, 2896 * 2896)},
        [convolution(2896), pool(1201), FLATTEN],
        [1, 4096, 4096],
        1,
    ),
    "groups": (
        {"c.bits": bits(2**18, 1), "last.bits": bits(1, 2**18)},
        [
            *[convolution(1, channels=2**18, groups=2**18)] * 200,
            convolution(1, "last", channels=2**18, out_channels=1),
            FLATTEN,
        ],
        [2**18, 1, 1],
        1,
    ),
    "pooling": ({}, [pool(2001, padding=1000)] * 9 + [pool(4001), FLATTEN], [1, 4001, 4001], 1),
    "many steps": ({}, [{"kind": "relu"}] * 30_000 + [pool(4000), FLATTEN], [1, 4000, 4000], 1),
    # Thin layers, which one storage pads to blocks of 32.
    "padded": (
        {f"{i}.bits": bits(1, 2**24 - 1) for i in range(3)}
        | {f"b{i}.bits": bits(2**24 - 1, 1) for i in range(3)},
        [
            FLATTEN,
            *(
                {
                    "kind": "linear", "name": name, "binary": True, "bias": False,
                    "in_features": sizes[0], "out_features": sizes[1],
                }
                for i in range(3)
                for name, sizes in ((f"b{i}", (1, 2**24 - 1)), (f"{i}", (2**24 - 1, 1)))
            ),
        ],
        [1, 1, 1],
        1,
    ),
}  # fmt: skip


def step(kind: str, *inputs: int, **settings) -> dict[str, object]:
    return {"kind": kind, **settings, **({"inputs": list(inputs)} if inputs else {})}


UNREASONABLE_GRAPHS = {
    "broadcast": (
        {},
        [
            step("reshape", shape=[-1, 4096, 1]),
            step("permute", axes=[0, 2, 1]),
            *[step("add", 1, 2), step("matmul", 3, 3)] * 3,
            step("mean", axes=[1, 2], keepdim=False),
        ],
        [1, 64, 64],
    ),
    "expansion": ({}, [step("expand", shape=[-1, 2**12, 2**13, 1]), FLATTEN], [1, 1, 1]),
    # 600 values of 8 million numbers, which the last step all takes.
    "memory at the same time": (
        {},
        [
            *[step("sigmoid", i) for i in range(30)],
            step("concat", *range(1, 31), axis=2),
            step("mean", axes=[2, 3], keepdim=False),
        ],
        [1, 2**9, 2**14],
    ),
    "small values that are kept": (
        {},
        [
            *[step("expand", 0, shape=[-1, 1, 2**11, 2**12]) for _ in range(40)],
            *[step("add", i, i + 1) for i in range(1, 40)],
            step("mean", axes=[2, 3], keepdim=False),
        ],
        [1, 1, 1],
    ),
    "matrices": (
        {},
        [
            step("expand", shape=[-1, 1, 2**11, 2**11]),
            *[step("matmul", i, i) for i in range(1, 40)],
            step("mean", axes=[2, 3], keepdim=False),
        ],
        [1, 1, 1],
    ),
    "attention": (
        {},
        [
            step("reshape", shape=[-1, 2**20, 4]),
            step("attention", 1, 1, 1, scale=1.0),
            step("mean", axes=[1, 2], keepdim=False),
        ],
        [4, 2**10, 2**10],
    ),
    "averages": (
        {},
        [
            *[
                step("avg_pool2d", **{k: v for k, v in pool(2001, padding=1000).items()
                                      if k != "kind"}, count_include_pad=True)
            ] * 9,
            step("mean", axes=[2, 3], keepdim=False),
        ],
        [1, 4001, 4001],
    ),
    "padding": ({}, [step("pad", pads=[[0, 0]] * 3 + [[2**22, 2**22]]), FLATTEN], [1, 4, 9]),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREASONABLE_GRAPHS)
def test_what_a_graph_asks_for_is_added_up_too(tmp_path, monkeypatch, name):
    def never(*_, **__):
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(PackedNetwork, "__init__", never)
    began = time.process_time()
    said = refused(tmp_path / "m", packed(*UNREASONABLE_GRAPHS[name], 1, version="2"))
    assert time.process_time() - began < MAX_SECONDS
    assert "2**" in said


@pytest.mark.parametrize(
    ("steps", "sentence"),
    [
        ([step("add", 0, 1)], "add: takes the value 1, and those before it are 0 to 0"),
        ([step("add", 0, 2), step("relu")], "takes the value 2, and those before it are 0 to 0"),
        ([step("relu", -1)], "relu: takes the value -1, and those before it are 0 to 0"),
        ([step("relu", 10**400)], "relu: takes the value 1000000000"),
        ([step("relu") | {"inputs": "0"}], "relu: inputs must be a list of integers, got '0'"),
        ([step("relu") | {"inputs": [0.0]}], "inputs must be a list of integers, got [0.0]"),
        ([step("relu") | {"inputs": [True]}], "inputs must be a list of integers, got [True]"),
        ([step("relu", 0, 0)], "relu: cannot take inputs of shapes (2, 3, 4), (2, 3, 4)"),
        ([step("add", 0)], "add: cannot take an input of shape (2, 3, 4)"),
        ([step("relu") | {"inputs": []}], "relu: cannot take no inputs"),
        ([step("concat", axis=1) | {"inputs": []}], "concat: cannot take no inputs"),
        ([step("scalar", 0, value=1)], "scalar: cannot take an input of shape (2, 3, 4)"),
        ([step("scalar", value=1e999)], "value must be a number in [-1e+30, 1e+30], got inf"),
        ([step("scalar", value=math.nan)], "value must be a number in [-1e+30, 1e+30], got nan"),
        ([step("reshape", shape=[2, 3, 4])], "reshape: cannot take an input of shape (2, 3, 4)"),
        ([step("reshape", shape=[-1, 5])], "reshape: cannot take an input of shape (2, 3, 4)"),
        ([step("reshape", shape=[-1, -1])], "shape must be a list of at most 8 sizes"),
        ([step("reshape", shape=[1] * 9)], "shape must be a list of at most 8 sizes"),
        ([step("permute", axes=[0, 1, 1, 2])], "axes must be a list of different integers"),
        ([step("permute", axes=[0, 1, 2])], "permute: cannot take an input of shape (2, 3, 4)"),
        ([step("slice", axis=1, start=1, stop=1, step=1)], "slice: cannot take"),
        ([step("slice", axis=1, start=0, stop=9, step=1)], "slice: cannot take"),
        ([step("slice", axis=0, start=0, stop=1, step=1)], "slice: cannot take"),
        ([step("mean", axes=[0], keepdim=True)], "mean: cannot take"),
        ([step("softmax", axis=0)], "softmax: cannot take"),
        ([step("softmax", axis=4)], "softmax: cannot take"),
        ([step("softmax", axis=-1)], "axis must be an integer in [0, 8), got -1"),
        ([step("concat", 0, axis=0)], "concat: cannot take"),
        ([step("pad", pads=[[1, 0], [0, 0], [0, 0], [0, 0]])], "pad: cannot take"),
        ([step("pad", pads=[[0, -1]])], "pads must be a list of at most 8 pairs"),
        ([step("clamp", low=1, high=0)], "clamp: low must not be above high, got 1 and 0"),
        ([step("gelu", approximate="x")], "approximate must be 'none' or 'tanh', got 'x'"),
        ([step("gelu", approximate=[])], "approximate must be 'none' or 'tanh', got []"),
        ([step("matmul", 0, 0)], "matmul: cannot take inputs of shapes (2, 3, 4), (2, 3, 4)"),
        ([step("attention", 0, 0, scale=1)], "attention: cannot take inputs"),
        ([step("layer_norm", shape=[1, 2, 3, 4], eps=0, affine=False)], "layer_norm: cannot take"),
        ([step("layer_norm", shape=[], eps=0, affine=False)], "layer_norm: cannot take"),
        ([step("layer_norm", shape=[4], eps=-1, affine=False)], "eps must be a number in [0"),
        ([step("layer_norm", shape=[4], eps=0, affine=True)], "missing tensors: ['.scale'"),
        ([step("expand_batch", 0, 0)], "expand_batch: cannot take"),
        ([step("expand", shape=[-1, 2, 3])], "expand: cannot take"),
        ([step("expand", shape=[1, 2, 3, 4])], "expand: cannot take"),
        ([FLATTEN], "1 class names need an output of shape (1,), got (24,)"),
        (
            [step("scalar", value=1) | {"inputs": []}, step("reshape", shape=[1, 1])],
            "1 class names need an output of shape (1,), got (1, 1)",
        ),
    ],
)  # fmt: skip
def test_a_graph_that_cannot_be_computed_is_refused(tmp_path, steps, sentence):
    content = packed({}, steps, [2, 3, 4], 1, version="2")
    assert sentence in refused(tmp_path / "m", content)


def test_a_step_without_a_name_has_no_tensors(tmp_path):
    """Else two of them would share tensors that only one of them was checked for."""
    layers = [{"kind": "affine", "channels": 2}, FLATTEN, {"kind": "affine", "channels": 2}]
    tensors = {".scale": torch.ones(2), ".shift": torch.ones(2)}
    said = refused(tmp_path / "m", packed(tensors, layers, [2, 1, 1], 2))
    assert "affine: has tensors, and no name that says which" in said


def test_a_file_of_version_1_has_no_steps_of_version_2(tmp_path):
    steps = [step("gelu", approximate="none"), FLATTEN]
    said = refused(tmp_path / "m", packed({}, steps, [1, 1, 1], 1))
    assert "its format version is 1, and its steps need version 2" in said


@pytest.mark.parametrize("name", UNREASONABLE)
@pytest.mark.parametrize("storage", ["bits", "fastest"])
def test_what_asks_for_unreasonable_memory_or_work_is_refused_before_it_gets_any(
    tmp_path, monkeypatch, name, storage
):
    def never(*_, **__):
        raise AssertionError("memory was asked for")

    monkeypatch.setattr(torch, "randn", never)
    monkeypatch.setattr(PackedNetwork, "__init__", never)
    began = time.process_time()
    said = refused(tmp_path / "m", packed(*UNREASONABLE[name]), storage)
    assert time.process_time() - began < MAX_SECONDS
    assert "2**" in said


@pytest.mark.parametrize(
    ("network", "sides"),
    [
        (MLP(), (1, 28, 28)),
        (MLP(3 * 64 * 64, [4096] * 4), (3, 64, 64)),
    ],
)
def test_the_largest_of_honest_models_are_far_from_the_limits(tmp_path, network, sides):
    PackedModel.of(network, sides, [str(i) for i in range(10)]).write(tmp_path / "m")
    assert load(tmp_path / "m").image_shape == sides


def test_vgg_19_fits_at_224_pixels():
    """The most expensive network that people know, described without its weights."""
    steps, channels = [], 3
    for width, count in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(count):
            sizes = {"in_channels": channels, "out_channels": width, "padding": [1, 1]}
            steps += [convolution(3, f"c{len(steps)}", **sizes), {"kind": "relu"}]
            channels = width
        steps.append(pool(2, stride=2))
    steps.append(FLATTEN)
    for index, (inputs, outputs) in enumerate(((512 * 49, 4096), (4096, 4096), (4096, 1000))):
        sizes = {"in_features": inputs, "out_features": outputs}
        steps.append({"kind": "linear", "name": f"l{index}", "binary": True, **sizes})
    found = check_limits([Step.parse(step) for step in steps], (3, 224, 224))
    assert str(found[-1]) == "(1000,)"


def test_steps_of_one_name_are_the_same_step(tmp_path):
    """Else one of them would read weights of another shape than it was checked for."""
    steps = [convolution(1, channels=2), convolution(2, channels=2), FLATTEN]
    tensors = {"c.bits": bits(2, 8)}
    said = refused(tmp_path / "m", packed(tensors, steps, [2, 2, 2], 2))
    assert "conv2d 'c': another step has the same name" in said


def test_a_layer_that_is_used_often_is_in_memory_once(tmp_path):
    steps = [convolution(1, channels=8)] * 50 + [{"kind": "flatten"}]
    path = tmp_path / "m"
    path.write_bytes(packed({"c.bits": bits(8, 8)}, steps, [8, 1, 1], 8))
    network = load(path)
    assert sum(parameter.numel() for parameter in network.parameters()) == 64
    assert network(torch.ones(1, 8, 1, 1)).shape == (1, 8)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"class_names": "ab"}, "class_names must be a list of strings, got 'ab'"),
        ({"class_names": [1, 2]}, "class_names must be a list of strings, got [1, 2]"),
        ({"class_names": {"a": 1, "b": 2}}, "class_names must be a list of strings"),
        ({"about": [["run", "r"]]}, "about must be a JSON object, got [['run', 'r']]"),
        ({"about": "\x1b[2J"}, "about must be a JSON object"),
        ({"preprocessing": "sha256"}, "preprocessing must be a JSON object, got 'sha256'"),
        ({"preprocessing": []}, "preprocessing must be a JSON object, got []"),
        ({"preprocessing": {"kind": "centred", "scale": "16"}}, "scale must be a number, got '16'"),
        ({"preprocessing": {"kind": "centred", "scale": True}}, "scale must be a number, got True"),
        ({"preprocessing": {"kind": "centred", "scale": 1e30}}, "scale must be between"),
        ({"preprocessing": {"kind": "centred", "scale": -1}}, "scale must be between"),
        ({"preprocessing": {"kind": ["centred"], "scale": 1}}, "unsupported preprocessing"),
        ({"preprocessing": {"kind": "centred", "scale": 1, "fit": "x"}}, "unsupported fit 'x'"),
        ({"preprocessing": {"kind": "standardized", "scale": 1}}, "need tensors of shapes"),
        ({"image_shape": [True, 4, 4]}, "image_shape must be one to three"),
        ({"image_shape": [1, 1, 4, 4]}, "image_shape must be one to three"),
        ({"steps": {}}, "steps must be a list, got {}"),
        ({"steps": None}, "steps must be a list, got None"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_is_refused(tmp_path, parts, change, sentence):
    content, metadata, tensors = parts
    changed = with_checksum(tensors, metadata | {"content": json.dumps(content | change)})
    assert sentence in refused(tmp_path / "m", changed)


@pytest.mark.parametrize("version", ["3\x1b[2J", "9" * 5000, ""])
def test_a_version_is_shown_as_text_and_not_all_of_it(tmp_path, parts, version):
    content, metadata, tensors = parts
    metadata = metadata | {"format_version": version, "content": json.dumps(content)}
    (tmp_path / "m").write_bytes(with_checksum(tensors, metadata))
    with pytest.raises(UserError, match="has format version") as error:
        load(tmp_path / "m")
    assert printable(str(error.value)) == str(error.value)
    assert len(str(error.value)) < 600


def test_a_file_beyond_any_model_s_size_is_not_read(tmp_path):
    path = tmp_path / "m"
    with path.open("wb") as file:
        file.write(sealed(b"{" + SEAL + b"}"))
        file.truncate(2**40)  # takes no space on the disk
    with pytest.raises(DamagedFileError, match=re.escape("2**33 bytes")):
        load(path)


HOSTILE = [
    None, True, False, -1, 0, 1, 3, 2**24 - 1, 2**24, 2**63, 10**400, 0.5, -0.0, 1e999, math.nan,
    "", "x", "\x1b[2J\n", "\ud800", "nan", [], {}, [1], [1, 1], [0, 0], [-1, 2**63], [[[]]],
    ["a", "b"], {"kind": "relu"}, "x" * 5000,
]  # fmt: skip


def places(value, path=()):
    """The path of each value in plain data."""
    yield path
    entries = value.items() if isinstance(value, dict) else []
    entries = enumerate(value) if isinstance(value, list) else entries
    for key, entry in entries:
        yield from places(entry, (*path, key))


def loaded(path) -> PackedNetwork | str:
    """The network in a file, or the sentence that refuses it."""
    try:
        return load(path)
    except UserError as error:
        return str(error)


def loaded_or_refused(path, content: bytes) -> None:
    """A file is refused in one sentence, or it is a network that computes something."""
    path.write_bytes(content)
    began = time.process_time()
    found = loaded(path)
    if isinstance(found, str):
        assert printable(found) == found
        assert len(found) < 2000
    else:
        for batch in (1, 2):
            scores = found(torch.zeros(batch, *found.image_shape))
            assert scores.shape == (batch, len(found.class_names))
        assert all(isinstance(name, str) for name in found.class_names)
        if found.preprocessing is not None:
            found.prepare(torch.zeros(1, *found.image_shape, dtype=torch.uint8))
    assert time.process_time() - began < 2


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_whatever_is_changed_in_a_description(tmp_path_factory, parts, data):
    change_and_load(tmp_path_factory, parts, data, lambda content: content)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_whatever_is_changed_in_a_graph(tmp_path_factory, parts_of_a_graph, data):
    """Its steps above all: settings, inputs, and kinds in the place of others."""
    change_and_load(tmp_path_factory, parts_of_a_graph, data, lambda content: content["steps"])


def change_and_load(tmp_path_factory, parts, data, part) -> None:
    content, metadata, tensors = copy.deepcopy(parts)
    whole, content = content, part(content)
    for _ in range(data.draw(st.integers(1, 3))):
        *outer, key = data.draw(st.sampled_from([p for p in places(content) if p]))
        holder = content
        for step in outer:
            holder = holder[step]
        match data.draw(
            st.sampled_from(["replace", "replace", "nudge", "kind", "delete", "repeat"])
        ):
            case "replace":
                holder[key] = copy.deepcopy(data.draw(st.sampled_from(HOSTILE)))
            case "nudge" if type(holder[key]) is int:
                holder[key] += data.draw(st.integers(-3, 3))
            case "kind" if key == "kind":
                holder[key] = data.draw(st.sampled_from(sorted(KINDS)))
            case "delete":
                del holder[key]
            case "repeat" if isinstance(holder, list):
                holder.insert(key, copy.deepcopy(holder[key]))
    for name in data.draw(st.lists(st.sampled_from(sorted(tensors)), max_size=2)):
        tensors[name] = data.draw(
            st.sampled_from(
                [
                    torch.full_like(tensors[name], 255 if name.endswith("bits") else torch.nan),
                    tensors[name].double(),
                    tensors[name][:0],
                    tensors[name].flatten(),
                    torch.zeros(3, 0, 5),
                    tensors[name].bool(),
                ]
            )
        )
    changed = with_checksum(tensors, metadata | {"content": json.dumps(whole)})
    loaded_or_refused(tmp_path_factory.mktemp("m") / "m", changed)


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_whatever_is_changed_in_the_bytes_of_a_header(tmp_path_factory, parts, data):
    content, metadata, tensors = parts
    whole = with_checksum(tensors, metadata | {"content": json.dumps(content)})
    (length,) = struct.unpack_from("<Q", whole)
    header = bytearray(re.sub(rb'"sha256":"\w{64}"', SEAL, whole[8 : 8 + length]))
    start = header.index(SEAL) + len(SEAL)
    for _ in range(data.draw(st.integers(1, 4))):
        # Half of them where the tensors are described, which has more of its characters outside of
        # texts than the metadata have.
        first = data.draw(st.sampled_from([start, header.index(b'"data_offsets"') - 60]))
        place = data.draw(st.integers(first, len(header) - 1))
        match data.draw(st.sampled_from(["byte", "delete", "insert"])):
            case "byte":
                header[place] = data.draw(st.sampled_from(b'0123456789-"[]{},:\\ex\x00\x1b\xff'))
            case "delete":
                del header[place : place + data.draw(st.integers(1, 40))]
            case "insert":
                header[place:place] = data.draw(
                    st.sampled_from([b"9" * 30, b"[" * 3000, b'"', b"-"])
                )
    loaded_or_refused(
        tmp_path_factory.mktemp("m") / "m", sealed(bytes(header), whole[8 + length :])
    )
