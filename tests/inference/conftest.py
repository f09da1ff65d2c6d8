"""What these tests share: seeded randomness, and a network that takes every kind of step."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from bclightning.inference import PackedModel
from bclightning.nn import convert_to_binary


@pytest.fixture(autouse=True)
def seeded():
    """The same weights and images each time."""
    torch.manual_seed(0)


class EveryKind(nn.Module):
    """A small network of images of 2 x 4 x 6, in which each kind of step occurs."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.deep = nn.Conv3d(1, 1, 1)
        self.line = nn.Conv1d(4, 4, 3, padding=1)
        self.layer_norm = nn.LayerNorm(4)
        self.plain_norm = nn.LayerNorm(4, elementwise_affine=False)
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.places = nn.Linear(4, 4)
        self.head = nn.Linear(24, 3, bias=False)

    def images(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = self.deep(x[:, None])[:, 0]
        x = functional.avg_pool2d(functional.max_pool2d(x, (1, 2)), (3, 1), 1, (1, 0))
        gate = functional.hardsigmoid(x.mean((2, 3), keepdim=True))
        x = functional.hardswish(functional.pad(x * gate, (0, 1)))
        return functional.elu(x - x.amax(1, keepdim=True).expand(-1, 4, -1, -1))

    def forward(self, x):
        x = self.line(self.images(x).flatten(2))
        x = functional.avg_pool1d(functional.max_pool1d(x, 2), 2, 1, 1)
        x = self.layer_norm(x.permute(0, 2, 1))
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        x = x + functional.scaled_dot_product_attention(x, self.places(x), x)
        x = self.plain_norm(functional.gelu(functional.leaky_relu(x)))
        x = (x @ x.transpose(1, 2)).softmax(-1) @ functional.silu(x)
        x = torch.sigmoid(x) / (x.clamp(-1, 1).exp() + x.abs().sqrt() + 0.5) + torch.tanh(x).sign()
        return self.head(x[:, :6].flatten(1))


@pytest.fixture(scope="session")
def every_kind():
    """The network of every kind of step, and its packed model."""
    torch.manual_seed(0)
    network = convert_to_binary(EveryKind(), skip=["deep", "line"])
    network(torch.randn(32, 2, 4, 6))
    network.eval()
    return network, PackedModel.of(network, (2, 4, 6), ["a", "b", "c"], about={"run": "r"})
