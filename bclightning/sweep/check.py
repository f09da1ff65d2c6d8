"""A definition checked against what it will train, before the first trial starts."""

from collections.abc import Iterator
from typing import Any

from bclightning.errors import UserError
from bclightning.runs.config import RunCLI
from bclightning.runs.job import SETTINGS
from bclightning.runs.notices import quiet_lightning
from bclightning.sweep.definition import Definition, as_arguments


def check(definition: Definition, recipe: str, more: tuple[str, ...] = ()) -> None:
    """Build the network and the data module of each arm at the ends of the space.

    Args:
        definition: The sweep.
        recipe: Its configuration file.
        more: More options for all runs.

    Raises:
        UserError: An option does not exist, or a value is refused; the sentence names the arm.
    """
    quiet_lightning()
    for arm, options in definition.arms.items():
        for point in _corners(definition):
            words = as_arguments({**definition.overrides, **options, **point})
            try:
                cli = RunCLI(["--config", recipe, *words, *more], "bcl fit", settings=SETTINGS)
                if (cli.config.trainer.max_epochs or 0) < 1:
                    raise UserError("trainer.max_epochs must be at least 1")
                if cli.config.trainer.devices not in (1, "1"):
                    # For further devices Lightning would start the whole sweep again.
                    raise UserError(
                        "a run of a sweep trains on one device, so trainer.devices must be 1; "
                        "--jobs says how many train at once"
                    )
                cli.build_modules()
            except UserError as error:
                where = "".join(f", {key}={value}" for key, value in point.items())
                raise UserError(f"method {arm}{where}: {error}") from error


def _corners(definition: Definition) -> Iterator[dict[str, Any]]:
    """Points that meet each end of each range and each choice once."""
    ends = {key: spec.ends for key, spec in definition.space.items()}
    for index in range(max([1, *map(len, ends.values())])):
        yield {key: values[min(index, len(values) - 1)] for key, values in ends.items()}
