"""What Lightning and torch say that does not hold here stays off the screen."""

import logging
import warnings

# Warnings that do not hold here: the data is in memory, metrics are logged once an epoch, and the
# first is torch's to Lightning.
NOT_OURS = (
    r".*isinstance\(treespec, LeafSpec\)",
    r".*does not have many workers",
    r".*smaller than the logging interval",
)


def quiet_lightning() -> None:
    """Keep Lightning's notes on devices and tips off the screen; other warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in NOT_OURS:
        warnings.filterwarnings("ignore", message)
