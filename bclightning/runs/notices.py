"""What a run has to say, and what others say of it that does not hold.

A run prints nothing. What a person may want to know goes to the logger ``bclightning`` at level
INFO, which a program shows as it likes: ``logging.basicConfig(level=logging.INFO)``.
"""

import logging
import warnings
from collections.abc import Mapping
from typing import Any

from bclightning.formatting import printable
from bclightning.runs.record import RunRecord

logger = logging.getLogger("bclightning")

# Warnings that do not hold here: the data is in memory, metrics are logged once an epoch, and the
# first is torch's to Lightning.
_DO_NOT_HOLD = (
    r".*isinstance\(treespec, LeafSpec\)",
    r".*does not have many workers",
    r".*smaller than the logging interval",
)

_SPLITS = {"train": "training", "val": "validation"}


def quiet_lightning() -> None:
    """Keep Lightning's notes on devices and tips off the screen; other warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Who asks for a profile wants to read it.
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
    for message in _DO_NOT_HOLD:
        warnings.filterwarnings("ignore", message)


def opening_lines(record: RunRecord, network: str, devices: int = 1, chosen: bool = False) -> str:
    """What a run opens with: device and threads, data and its splits, network and its bits.

    Args:
        record: Record of the run that begins.
        network: Name of the network's class.
        devices: Number of devices that train together.
        chosen: Whether the number of threads was chosen for the network.

    Example:
        >>> record = RunRecord("r", "e", "deterministic", "digits", 0)
        >>> record.machine = {"device": "cpu", "name": "AMD EPYC 7B13", "threads": 1}
        >>> record.split_sizes = {"train": 1197, "val": 300, "test": 300}
        >>> record.binary_weights, record.real_weights = 84480, 1044
        >>> print(opening_lines(record, "MLP"))
        device   cpu: AMD EPYC 7B13, 1 thread
        data     digits: 1,197 training, 300 validation, 300 test images
        network  MLP, deterministic: 84,480 weights of 1 bit, 1,044 of 32 bits
    """
    machine = record.machine
    device = f"{machine.get('device')}: {machine.get('name')}"
    if devices > 1:
        device = f"{devices} x {device}"
    if machine.get("device") == "cpu":
        threads = machine.get("threads")
        device += f", {threads} thread{'' if threads == 1 else 's'}"
        device += " (--threads for more)" if chosen else ""
    splits = ", ".join(
        f"{number:,} {_SPLITS.get(split, split)}" for split, number in record.split_sizes.items()
    )
    regularizer = "no regularizer" if record.regularizer == "none" else record.regularizer
    bits = f"{record.real_weights:,} weights of 32 bits"
    if record.binary_weights:
        bits = f"{record.binary_weights:,} weights of 1 bit, {record.real_weights:,} of 32 bits"
    lines = [
        ("device", device),
        ("data", f"{record.data}: {splits} images" if splits else record.data),
        ("network", f"{network}, {regularizer}: {bits}"),
    ]
    if record.warm_start:
        lines.append(("weights", f"of {_origin(record.warm_start)}"))
    return "\n".join(f"{label:<7}  {printable(text)}" for label, text in lines)


def _origin(warm_start: Mapping[str, Any]) -> str:
    run = str(warm_start.get("run_id") or "a checkpoint")
    return f"{run} after epoch {warm_start['epoch'] + 1}" if "epoch" in warm_start else run
