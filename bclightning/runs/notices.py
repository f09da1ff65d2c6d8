"""What a run has to say, and what others say of it that does not hold.

A run prints nothing. What a person may want to know goes to the logger ``bclightning`` at level
INFO, which a program shows as it likes: ``logging.basicConfig(level=logging.INFO)``.
"""

import logging
import warnings

logger = logging.getLogger("bclightning")

# Warnings that do not hold here: the data is in memory, metrics are logged once an epoch, and the
# first is torch's to Lightning.
_DO_NOT_HOLD = (
    r".*isinstance\(treespec, LeafSpec\)",
    r".*does not have many workers",
    r".*smaller than the logging interval",
)


def quiet_lightning() -> None:
    """Keep Lightning's notes on devices and tips off the screen; other warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Who asks for a profile wants to read it.
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)
    for message in _DO_NOT_HOLD:
        warnings.filterwarnings("ignore", message)
