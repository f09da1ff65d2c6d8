"""On how many threads a run computes: one where the network is too small for more."""

import contextlib
import os
from collections.abc import Iterator

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.seed import isolate_rng

from bclightning.costs import layer_costs
from bclightning.data import ImageDataModule
from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.training import Classifier

# Multiplications of a training step below which a second thread gains nothing on an idle machine
# (MLPs of 64 to 1024 units at batches of 50 to 200), and costs one and a half to five times as much
# where other programs use the cores, since the threads wait for each other several times a step.
MIN_MULTIPLICATIONS = 60_000_000


def recorded_threads(record: RunRecord) -> int | None:
    """The number of threads that a record's figures depend on; ``None`` if there is none.

    Example:
        >>> machine = {"device": "cpu", "threads": 2}
        >>> recorded_threads(RunRecord("r", "e", "none", "digits", 0, machine=machine))
        2
    """
    machine = record.machine
    return machine.get("threads") if machine.get("device") == "cpu" else None


def check_threads(asked: int | None, recorded: int | None) -> int | None:
    """The number of threads that is given already, by an option or a run's record.

    Args:
        asked: Number that the user asks for.
        recorded: Number that the run which is resumed has had so far.

    Raises:
        UserError: The number is not positive, or not that of the run.
    """
    if asked is not None and asked < 1:
        raise UserError(f"--threads must be at least 1, and is {asked}")
    if recorded is not None and asked not in (None, recorded):
        raise UserError(
            f"the run has computed on {recorded} threads, and sums on {asked} are rounded "
            "differently; leave --threads out to resume it, or start a new run"
        )
    return recorded or asked


def suits_one_thread(model: LightningModule, data: LightningDataModule) -> bool:
    """Whether a training step is too small to be shared by threads, as far as it can be counted.

    Args:
        model: Module that is to be trained.
        data: Its data, which need not be loaded.

    Example:
        >>> from bclightning.data import Digits
        >>> from bclightning.models import MLP
        >>> [suits_one_thread(Classifier(MLP(64, [n])), Digits()) for n in (256, 8192)]
        [True, False]
    """
    if not (isinstance(model, Classifier) and isinstance(data, ImageDataModule)):
        return False
    try:
        with isolate_rng(include_cuda=False):
            costs = layer_costs(model.network, data.image_shape)
    except Exception:  # whatever a network of a user's own does; the preflight check tells of it
        return False
    steps = [cost.float_train for cost in costs if cost.float_train is not None]
    if len(steps) < len(costs):
        return False
    per_image = sum(step.multiplications for step in steps)
    return per_image * data.batch_size < MIN_MULTIPLICATIONS


def may_choose(accelerator: str) -> bool:
    """Whether the number is left to us: there are several, on a CPU, without OMP_NUM_THREADS.

    Args:
        accelerator: Lightning's name of the accelerator, as ``auto``.
    """
    on_cpu = accelerator == "cpu" or not torch.accelerator.is_available()
    return on_cpu and torch.get_num_threads() > 1 and "OMP_NUM_THREADS" not in os.environ


@contextlib.contextmanager
def preserving_threads() -> Iterator[None]:
    """Put the number of torch's threads back in the end."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)
