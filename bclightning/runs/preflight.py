"""Preflight check: one batch through the network before a run begins."""

import copy

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from bclightning.data import ImageDataModule
from bclightning.errors import UserError


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
    try:
        copied = copy.deepcopy(network).to(device)
    except (TypeError, RuntimeError):
        # Not every network of a user's own can be copied, and the network itself stays as it is.
        return
    with isolate_rng(include_cuda=device.type == "cuda"):
        images, labels = training.__getitems__(chosen.tolist())
        try:
            scores = copied.train()(images.to(device))
        except (RuntimeError, ValueError, IndexError) as error:
            sides = " x ".join(map(str, images.shape[1:]))
            reason = str(error).partition("\n")[0]
            raise UserError(
                f"the network does not train on batches of {len(images)} images of "
                f"{datamodule.name}, {sides}: {reason}; see --model.network and --data.batch_size"
            ) from error
    classes = int(labels.max()) + 1
    if scores.shape[-1] < classes:
        raise UserError(
            f"the network has {scores.shape[-1]} outputs, and the images of {datamodule.name} "
            f"have {classes} classes; see --model.network"
        )
