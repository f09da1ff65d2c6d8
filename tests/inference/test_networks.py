"""Networks as people bring them: trained, packed, read again, and compared in two runtimes."""

import copy
import pickle
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional

from bclightning.inference import PackedModel, PackedNetwork, load, operations
from bclightning.inference.checksum import read_checked
from bclightning.inference.graph import values
from bclightning.inference.kinds import KINDS
from bclightning.inference.onnx import onnx_scores, write_onnx
from bclightning.nn import binary_layers, convert_to_binary, reestimate_batch_norm_


class Residual(nn.Module):
    """A residual block with a shortcut of its own, and in-place activations."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8))
        self.first = nn.Conv2d(8, 12, 3, stride=2, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(12)
        self.second = nn.Conv2d(12, 12, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(12)
        self.shortcut = nn.Sequential(nn.Conv2d(8, 12, 1, stride=2, bias=False), nn.BatchNorm2d(12))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.relu(self.stem(x))
        y = self.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        y += self.shortcut(x)
        y = functional.adaptive_avg_pool2d(self.relu(y), 1)
        return self.head(torch.flatten(y, 1))


class InvertedResidual(nn.Module):
    """A block of MobileNet: expansion, depthwise, squeeze-and-excitation, projection."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, stride=2, padding="valid", bias=False)
        self.expand = nn.Sequential(nn.Conv2d(6, 12, 1), nn.BatchNorm2d(12), nn.Hardswish())
        self.depthwise = nn.Conv2d(12, 12, 5, padding="same", groups=12)
        self.squeeze = nn.Conv2d(12, 4, 1)
        self.excite = nn.Conv2d(4, 12, 1)
        self.project = nn.Sequential(nn.Conv2d(12, 6, 1), nn.BatchNorm2d(6))
        self.grouped = nn.Conv2d(6, 9, 2, groups=3, padding="same")
        self.head = nn.Linear(9, 5)

    def forward(self, x):
        x = functional.relu6(self.stem(x))
        y = nn.functional.silu(self.depthwise(self.expand(x)))
        scale = functional.relu(self.squeeze(y.mean((2, 3), keepdim=True)))
        y = y * functional.hardsigmoid(self.excite(scale))
        x = x + self.project(y)
        x = functional.avg_pool2d(self.grouped(x), 3, stride=2, padding=1)
        return self.head(functional.adaptive_max_pool2d(x, 1).flatten(1) / 2 - 0.5)


class ChannelsFirst(nn.LayerNorm):
    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    """A block of ConvNeXt: depthwise, layer norm, linear layers on channels-last, layer scale."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), ChannelsFirst(8, eps=1e-6))
        self.depthwise = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.norm = nn.LayerNorm(8)
        self.expand = nn.Linear(8, 32)
        self.reduce = nn.Linear(32, 8)
        self.gamma = nn.Parameter(torch.full((8,), 0.1))
        self.pool = nn.AdaptiveAvgPool2d((2, 3))
        self.groups = nn.GroupNorm(2, 8)
        self.head = nn.Linear(48, 5)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.gamma * self.reduce(functional.gelu(self.expand(y)))
        x = x + y.permute(0, 3, 1, 2)
        return self.head(self.groups(self.pool(x)).flatten(1))


class Transformer(nn.Module):
    """A block of a vision transformer: patches, class token, positions, attention, MLP."""

    def __init__(self, fused: bool = True):
        super().__init__()
        self.fused = fused
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.positions = nn.Parameter(torch.randn(1, 10, 8))
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.project = nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU("tanh"), nn.Dropout(), nn.Linear(16, 8))
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        batch = x.shape[0]
        x = self.patches(x)[:, :, :3].flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(batch, -1, -1), x], dim=1) + self.positions
        count, channels = x.shape[1:]
        qkv = self.qkv(self.norm(x)).reshape(batch, count, 3, 2, 4).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        if self.fused:
            y = functional.scaled_dot_product_attention(q, k, v)
        else:
            y = ((q * 4**-0.5) @ k.transpose(-2, -1)).softmax(-1) @ v
        x = x + self.project(y.transpose(1, 2).reshape(batch, count, channels))
        first, second = self.mlp(x).chunk(2, dim=1)
        return self.head(torch.cat([x[:, 0] + first[:, -1], second.mean(1)], 1))


class Sequence(nn.Module):
    """Rows of an image as a sequence: 1-D convolutions, and linear layers at each place."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(36, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm1d(8)
        self.second = nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=2)
        self.places = nn.Linear(8, 6)
        self.slopes = nn.PReLU(6)
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = functional.leaky_relu(self.norm(self.first(x.flatten(1, 2))), 0.2)
        x = functional.max_pool1d(functional.pad(self.second(x), (1, 0)), 3, 1)
        x = self.slopes(self.places(x.transpose(1, 2)).transpose(1, 2)).transpose(1, 2)
        x = torch.stack([x.amax(1), x.tanh().mean(1)], 1)
        return self.head(torch.sigmoid(x).view(-1, 12))


def unfused():
    return Transformer(fused=False)


def layer():
    """Torch's own layer, whose attention has the batch behind the places."""
    encoder = nn.TransformerEncoderLayer(12, 3, 16, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Flatten(2), encoder, nn.Flatten(), nn.Linear(36, 5))


NETWORKS = {
    "residual": (Residual, (3, 8, 8), ["stem.0", "head"]),
    "inverted residual": (InvertedResidual, (3, 13, 12), ["head"]),
    "convnext": (ConvNeXt, (3, 12, 10), ["head"]),
    "transformer": (Transformer, (3, 16, 12), ["head"]),
    "unfused transformer": (unfused, (3, 16, 12), ["head"]),
    "sequence": (Sequence, (3, 12, 15), ["*.norm", "first", "second"]),
    "torch's transformer layer": (layer, (3, 4, 3), ["1.self_attn"]),
}


def trained(make, shape, skip) -> nn.Module:
    """A binary network after two steps of training, in evaluation mode."""
    torch.manual_seed(0)
    network = make()
    names = [name for name, _ in network.named_modules()]
    convert_to_binary(network, skip=[name for name in skip if name in names])
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    for _ in range(2):
        loss = functional.cross_entropy(network(torch.randn(6, *shape)), torch.arange(6) % 5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reestimate_batch_norm_(network, [torch.randn(32, *shape)])
    return network.eval()


# Torch's, about the network's own even kernel.
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_the_same_in_a_file_and_in_onnxruntime(tmp_path, name):
    make, shape, skip = NETWORKS[name]
    network = trained(make, shape, skip)
    model = PackedModel.of(network, shape, list("abcde"))
    model.write(tmp_path / "m.safetensors")
    write_onnx(model, tmp_path / "m.onnx")
    assert PackedModel.read(tmp_path / "m.safetensors").same_as(model)
    for batch in (1, 3):
        images = torch.randn(batch, *shape)
        with torch.no_grad():
            expected = network(images)
        scale = max(1.0, float(expected.abs().max()))
        found = [
            load(tmp_path / "m.safetensors", storage)(images) for storage in ("bits", "float32")
        ]
        for scores in (*found, onnx_scores(tmp_path / "m.onnx", images)):
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4 * scale)
        assert batch == 1 or expected.std(0).min() > 1e-3  # the scores depend on the image
    binary = [layer.weight for layer in binary_layers(network).values()]
    count = sum(weight.numel() for weight in binary)
    rows = sum(len(weight) for weight in binary)
    packed = sum(t.numel() for key, t in model.tensors.items() if key.endswith(".bits"))
    assert count / 8 <= packed < count / 8 + rows
    real = sum(parameter.numel() for parameter in network.parameters()) - count
    assert model.nbytes < packed + 4 * real + 1000


def test_a_graph_is_of_version_2_and_a_chain_of_version_1(tmp_path):
    for make, shape, version in (
        (Residual, (3, 8, 8), "2"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.GELU()), (1, 2, 2), "2"),
        (lambda: nn.Sequential(nn.Linear(2, 5), nn.Flatten(), nn.Linear(10, 5)), (1, 2, 2), "2"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU()), (1, 2, 2), "1"),
    ):
        model = PackedModel.of(convert_to_binary(make()).eval(), shape, list("abcde"))
        model.write(tmp_path / "m")
        assert read_checked(tmp_path / "m")[0]["format_version"] == version


@pytest.mark.parametrize("storage", ["bits", "float32", "bfloat16", "int8"])
def test_each_storage_computes_linear_layers_on_sequences(storage):
    network = convert_to_binary(
        nn.Sequential(nn.Linear(9, 7), nn.Tanh(), nn.Flatten(), nn.Linear(42, 5)), skip=["3"]
    ).eval()
    images = torch.randint(-3, 4, (2, 2, 3, 9)).float()
    with torch.no_grad():
        expected = network(images)
    found = PackedNetwork(PackedModel.of(network, (2, 3, 9), list("abcde")), storage)(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)


def test_values_are_freed_after_their_last_use(monkeypatch):
    """Each value of a chain of additions is needed once more; no more than three live at a time."""
    alive = weakref.WeakSet()
    most = 0

    def count(s, a, b):
        nonlocal most
        made = a + b
        alive.add(made)
        most = max(most, len(alive))
        return made

    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(4, 5)

        def forward(self, x):
            a = b = x.flatten(1)
            for _ in range(20):
                a, b = b, a + b
            return self.last(b / 1e5)

    network = convert_to_binary(Sums()).eval()
    model = PackedModel.of(network, (1, 2, 2), list("abcde"))
    images = torch.randn(2, 1, 2, 2)
    with torch.no_grad():
        expected = network(images)
    monkeypatch.setitem(operations.FUNCTIONS, "add", count)
    torch.testing.assert_close(PackedNetwork(model)(images), expected)
    assert most == 3


def test_every_kind_of_step_is_the_same_in_a_file_and_in_onnxruntime(tmp_path, every_kind):
    network, model = every_kind
    assert {step.kind for step in model.steps} == set(KINDS)
    model.write(tmp_path / "m.safetensors")
    write_onnx(model, tmp_path / "m.onnx")
    for batch in (1, 3):
        images = torch.randn(batch, 2, 4, 6)
        with torch.no_grad():
            expected = network(images)
        for scores in (
            load(tmp_path / "m.safetensors")(images),
            onnx_scores(tmp_path / "m.onnx", images),
        ):
            torch.testing.assert_close(scores, expected, rtol=0, atol=1e-4)


def test_the_rules_say_the_shape_of_each_value_for_every_batch(every_kind):
    """They decide what is run, so that they must be right."""
    _, model = every_kind
    network = PackedNetwork(model)
    found = values(model.steps, model.image_shape)
    shapes = []
    for layer in network.layers:
        layer.register_forward_hook(lambda module, inputs, made: shapes.append(tuple(made.shape)))
    for batch in (1, 3):
        shapes.clear()
        network(torch.randn(batch, 2, 4, 6))
        expected = [
            tuple(size * batch if i == value.batch else size for i, size in enumerate(value.sizes))
            for value in found[1:]
        ]
        assert shapes == expected


def test_a_packed_graph_can_be_copied_and_pickled(every_kind):
    network = PackedNetwork(every_kind[1])
    images = torch.randn(2, 2, 4, 6)
    for again in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(again(images), network(images))
