"""Preflight check: one batch through the network before a run begins."""

import copy
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from bclightning.data import ImageDataModule
from bclightning.errors import UserError
from bclightning.runs.data import data_name


@torch.no_grad()
def check_forward_pass(
    network: nn.Module, datamodule: ImageDataModule, device: torch.device
) -> None:
    """Send one training batch through a copy of a network; generators are put back.

    Args:
        network: Network of a run that is to begin.
        datamodule: Its data, loaded.
        device: Device that it will train on.

    Raises:
        UserError: The network does not take such a batch, or has too few outputs.

    Example:
        >>> from bclightning.data import Digits
        >>> from bclightning.models import MLP
        >>> check_forward_pass(MLP(64, [16]), Digits(), torch.device("cpu"))
        >>> try:
        ...     check_forward_pass(MLP(64, [16], classes=5), Digits(), torch.device("cpu"))
        ... except UserError as error:
        ...     print(error)
        the network has 5 outputs, and the images of digits have 10 classes; see --model.network
    """
    training = datamodule.loaded_splits()["train"]
    # Images of the last class, so that too few outputs are noticed; a whole batch, since batch
    # normalization cannot train on one image.
    chosen = training.labels.topk(datamodule.batch_size).indices
    with isolate_rng(include_cuda=device.type == "cuda"):
        images, labels = training.__getitems__(chosen.tolist())
        _check_batch(network, datamodule.name, images, labels, device)


@torch.no_grad()
def check_first_batch(
    network: nn.Module, datamodule: LightningDataModule, device: torch.device
) -> None:
    """Send the first training batch of a user's own data through a copy of a network.

    The data module is copied too, since it may not expect to be set up twice. What it cannot do
    here, such as being copied, is left to the run.

    Args:
        network: Network of a run that is to begin.
        datamodule: Its data, not set up.
        device: Device that it will train on.

    Raises:
        UserError: A batch is no pair of images and class indices, or the network does not take it,
            or has too few outputs.
    """
    with isolate_rng(include_cuda=device.type == "cuda"):
        try:
            data = copy.deepcopy(datamodule)
            data.prepare_data()
            data.setup("fit")
            batch = next(iter(data.train_dataloader()))
        except Exception:  # Whatever it is, the run meets it too, and then it is told in full.
            return
        _check_batch(network, data_name(datamodule), *_as_pair(batch, datamodule), device)


def _as_pair(batch: Any, datamodule: LightningDataModule) -> tuple[Tensor, Tensor]:
    pair = tuple(batch) if isinstance(batch, list | tuple) else ()
    if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        raise UserError(
            f"a batch of {type(datamodule).__name__} is {_in_words(batch)}, and Classifier trains "
            "on pairs (images, labels) of tensors; write a LightningModule of your own for others"
        )
    images, labels = pair
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        raise UserError(
            f"the labels of {type(datamodule).__name__} have the shape {tuple(labels.shape)} and "
            f"the type {labels.dtype}; Classifier needs class indices, int64 of shape (batch,)"
        )
    return images, labels


def _in_words(batch: Any) -> str:
    if isinstance(batch, list | tuple):
        return f"a {type(batch).__name__} of {', '.join(type(part).__name__ for part in batch)}"
    return f"a {type(batch).__name__}"


def _check_batch(
    network: nn.Module, name: str, images: Tensor, labels: Tensor, device: torch.device
) -> None:
    try:
        copied = copy.deepcopy(network).to(device)
    except (TypeError, RuntimeError):
        # Not every network of a user's own can be copied, and the network itself stays as it is.
        return
    try:
        scores = copied.train()(images.to(device))
    except (RuntimeError, ValueError, IndexError) as error:
        sides = " x ".join(map(str, images.shape[1:]))
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"the network does not train on batches of {len(images)} images of {name}, {sides}: "
            f"{reason}; see --model.network and --data.batch_size"
        ) from error
    classes = int(labels.max()) + 1
    if scores.shape[-1] < classes:
        raise UserError(
            f"the network has {scores.shape[-1]} outputs, and the images of {name} have {classes} "
            "classes; see --model.network"
        )
