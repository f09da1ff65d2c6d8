"""One training step: networks with binary weights beside the same network in full precision."""

import contextlib
import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from harness import interleave, show
from torch import Tensor, nn

from bclightning.functional import squared_hinge_loss
from bclightning.models import MLP, ConvNet
from bclightning.nn import clip_latent_weights_
from bclightning.training.binary_adam import BinaryAdam
from bclightning.training.optim import make_optimizer
from bclightning.vocabulary import Regularizer

COMPARED: tuple[Regularizer, ...] = ("none", "deterministic", "stochastic")
"""The regularizers to time: full precision, and both binarizations."""

Step = Callable[[], None]


def step_of(
    network: nn.Module, images: Tensor, labels: Tensor, precision: torch.dtype = torch.float32
) -> Step:
    """A training step with everything that `bcl fit` does in one, without Lightning."""
    optimizer = make_optimizer(network, "adam", 1e-3)
    if not isinstance(optimizer, BinaryAdam):
        # The callback ClipWeights does the same.
        optimizer.register_step_post_hook(lambda *_: clip_latent_weights_(network))
    network.train()

    def context() -> AbstractContextManager[object]:
        if precision is torch.float32:
            return contextlib.nullcontext()
        return torch.autocast("cpu", precision)

    def step() -> None:
        with context():
            loss = squared_hinge_loss(network(images).float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def batch(count: int, *shape: int) -> tuple[Tensor, Tensor]:
    """Random images and labels."""
    return torch.randn(count, *shape), torch.randint(0, 10, (count,))


def mlp(regularizer: Regularizer, width: int = 1024) -> nn.Module:
    """The paper's MNIST network."""
    return MLP(784, [width] * 3, 10, regularizer=regularizer)


def brevitas_mlp() -> nn.Module | None:
    """The same network with the binary layers of Brevitas, if it is installed."""
    if importlib.util.find_spec("brevitas") is None:
        return None
    from brevitas.nn import QuantLinear
    from brevitas.quant import SignedBinaryWeightPerTensorConst

    network = MLP(784, [1024] * 3, 10, regularizer="none")
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Linear):
            parent = network.get_submodule(name.rpartition(".")[0])
            layer = QuantLinear(
                module.in_features,
                module.out_features,
                bias=module.bias is not None,
                weight_quant=SignedBinaryWeightPerTensorConst,
            )
            setattr(parent, name.rpartition(".")[2], layer)
    return network


def mnist() -> None:
    """The paper's MNIST network, batch 100."""
    torch.manual_seed(0)
    data = batch(100, 1, 28, 28)
    steps: dict[str, Step] = {name: step_of(mlp(name), *data) for name in COMPARED}
    for name in COMPARED:
        steps[f"{name}, bf16"] = step_of(mlp(name), *data, torch.bfloat16)
    if (peer := brevitas_mlp()) is not None:
        steps["Brevitas, deterministic"] = step_of(peer, *data)
    goals = {
        "deterministic": 1.05,
        "stochastic": 1.10,
        "deterministic, bf16": 0.65,
        "stochastic, bf16": 0.70,
    }
    show("MNIST step / full precision", interleave(steps, "none"), goals)
    bf16 = {name: step for name, step in steps.items() if "bf16" in name}
    goals = {"deterministic, bf16": 0.95, "stochastic, bf16": 1.00}
    show("MNIST step, bf16 / full precision in bf16", interleave(bf16, "none, bf16"), goals)


def convolutional() -> None:
    """The CIFAR-10 network at a quarter of its width, batch 50."""
    torch.manual_seed(0)
    data = batch(50, 3, 32, 32)
    steps = {name: step_of(ConvNet(width=0.25, regularizer=name), *data) for name in COMPARED}
    goals = {"deterministic": 1.02, "stochastic": 1.04}
    ratios = interleave(steps, "none", rounds=30, calls=2)
    show("CIFAR-10 step, width 0.25 / full precision", ratios, goals)


def widths() -> None:
    """The same ratios for networks of growing width."""
    for width in (256, 512, 1024, 2048, 4096):
        torch.manual_seed(0)
        data = batch(100, 1, 28, 28)
        steps = {name: step_of(mlp(name, width), *data) for name in COMPARED}
        calls = 1 if width == 4096 else max(1, 2048 // width)
        show(f"width {width} / full precision", interleave(steps, "none", 15, calls), {})


def threads() -> None:
    """Print the number of threads, which is torch's default as in `bcl fit`, and its version."""
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
