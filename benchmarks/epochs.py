"""Whole epochs on MNIST: the data alone, and `bcl fit` beside the tightest loop by hand."""

import io
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from harness import interleave, show
from rich.console import Console
from torch import Tensor

from bclightning.data import MNIST
from bclightning.functional import squared_hinge_loss
from bclightning.models import MLP
from bclightning.nn import (
    evaluates_other_weights,
    preserving_batch_norm,
    reestimate_batch_norm_,
)
from bclightning.runs.allocator import keep_freed_memory
from bclightning.runs.config import RunConfig
from bclightning.runs.progress import RunProgress
from bclightning.runs.run import fit
from bclightning.training import ReestimateBatchNorm
from bclightning.training.optim import exponential_decay, make_optimizer

EPOCHS = 2
ROUNDS = 5


def data_alone() -> None:
    """Batches of a whole epoch, beside one indexing operation over the whole set."""
    loader, whole = _mnist()
    images, labels = whole

    def batches() -> None:
        for _ in loader.train_dataloader():
            pass

    def permuted() -> tuple[Tensor, Tensor]:
        order = torch.randperm(len(labels))
        return images[order], labels[order]

    variants = {"x[perm]": permuted, "data loader": batches}
    ratios = interleave(variants, "x[perm]", rounds=15, calls=1)
    show("an epoch of MNIST's data", ratios, {"data loader": 1.5})


def epoch() -> None:
    """`bcl fit` with all that is on by default and W&B offline, beside a loop by hand."""
    keep_freed_memory()
    print("\nan epoch of MNIST / a loop by hand")
    for method in ("none", "deterministic", "stochastic"):
        pairs = [(_by_hand(method), _fit(method)) for _ in range(ROUNDS)]
        ratios = sorted(ours / hand for hand, ours in pairs)
        seconds = statistics.median(ours for _, ours in pairs) / EPOCHS
        print(
            f"  {method:<13}  {statistics.median(ratios):5.2f}  "
            f"({ratios[0]:.2f} to {ratios[-1]:.2f})  {seconds:6.2f} s   goal 1.05",
            flush=True,
        )


def _fit(method: str) -> float:
    """Seconds of training and validation, as the run's record has them."""
    options = {
        "trainer.max_epochs": EPOCHS,
        "model.network.regularizer": method,
        "data.root": str(_root()),
        "wandb.mode": "offline",
    }
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig.load("mnist.yaml", {**options, "runs_dir": folder})
        return fit(config, callbacks=[RunProgress(Console(file=io.StringIO()))]).train_seconds


def _by_hand(method: str) -> float:
    """Seconds of the same mathematics with nothing around it."""
    data, (images, labels) = _mnist()
    held_images, held_labels = data.loaded_splits()["val"].__getitems__(list(range(10_000)))
    network = MLP(784, [1024] * 3, 10, regularizer=method, batch_norm_momentum=0.15)
    optimizer = make_optimizer(network, "adam", 1e-3)
    decay = exponential_decay(optimizer, 1e-3, 3e-6, EPOCHS)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        network.train()
        for chosen in torch.randperm(len(labels)).split(100):
            loss = squared_hinge_loss(network(images[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        decay.step()
        network.eval()
        with torch.inference_mode(), preserving_batch_norm(network):
            if evaluates_other_weights(network):
                statistics_of = data.statistics_dataloader(ReestimateBatchNorm().images)
                reestimate_batch_norm_(network, (some for some, _ in statistics_of))
            for some, theirs in zip(held_images.split(1000), held_labels.split(1000), strict=True):
                (network(some).argmax(1) != theirs).sum()
    return time.perf_counter() - began


def _root() -> Path:
    return Path(os.environ.get("BCL_DATA", "data"))


def _mnist() -> tuple[MNIST, tuple[Tensor, Tensor]]:
    data = MNIST(str(_root()), batch_size=100)
    data.prepare_data()
    splits = data.loaded_splits()
    return data, splits["train"].__getitems__(list(range(len(splits["train"]))))
