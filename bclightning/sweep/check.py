"""A definition checked against what it will train, before the first trial starts."""

from collections.abc import Iterator, Mapping
from typing import Any

from bclightning.errors import UserError
from bclightning.runs.allowed_code import AllowedCode
from bclightning.runs.config import load_limited
from bclightning.sweep.definition import Definition
from bclightning.sweep.monitor import Monitor


def check(
    definition: Definition,
    recipe: Mapping[str, Any],
    options: Mapping[str, Any] | None = None,
    allowed: AllowedCode | None = None,
) -> Monitor:
    """Build the network and the data module of each arm at the ends of the space.

    Args:
        definition: The sweep's definition.
        recipe: Content of the recipe.
        options: Options of all runs beside the definition's, by dotted name.
        allowed: What a definition may name that is data; all if ``None``.

    Returns:
        The metric that trials are judged by.

    Raises:
        UserError: An option does not exist or a value is refused, or the arms are judged by
            different metrics; the sentence names the arm.
    """
    monitors: dict[Monitor, str] = {}
    for arm, own in definition.arms.items():
        for point in _corners(definition):
            given = {**definition.overrides, **own, **point, **(options or {})}
            try:
                _refuse_main_module([recipe, given])
                monitor = _build(recipe, given, allowed)
            except UserError as error:
                where = "".join(f", {key}={value}" for key, value in point.items())
                raise UserError(f"arm {arm}{where}: {error}") from error
            monitors.setdefault(monitor, arm)
    if len(monitors) > 1:
        each = ", ".join(f"{m.metric} ({m.mode}) by {arm}" for m, arm in monitors.items())
        raise UserError(
            f"all arms and trials of a sweep must be judged by one metric, and there are: {each}; "
            "give monitor and monitor_mode in the recipe or in overrides"
        )
    return next(iter(monitors))


def _build(
    recipe: Mapping[str, Any], options: Mapping[str, Any], allowed: AllowedCode | None
) -> Monitor:
    """Build a run's model and data module, and return the metric that it is judged by."""
    config = load_limited([dict(recipe), dict(options)], allowed)
    if (config["trainer.max_epochs"] or 0) < 1:
        raise UserError("trainer.max_epochs must be at least 1")
    if config["trainer.devices"] not in (1, "1"):
        # With more of them Lightning would start the whole sweep again for each.
        raise UserError(
            "a run of a sweep trains on one device, so trainer.devices must be 1; "
            "--jobs says how many runs train at once"
        )
    config.build()
    return Monitor(config["monitor"], config["monitor_mode"])


def _refuse_main_module(value: Any) -> None:
    """Refuse classes of the main module, which a worker does not import.

    Raises:
        UserError: There is one.
    """
    match value:
        case str() if value.startswith("__main__."):
            raise UserError(
                f"{value} is defined in the script or notebook that runs, where workers cannot "
                "import it from; move it into a module"
            )
        case Mapping():
            _refuse_main_module(list(value.values()))
        case list() | tuple():
            for inner in value:
                _refuse_main_module(inner)


def _corners(definition: Definition) -> Iterator[dict[str, Any]]:
    """Points that contain each end of each range and each choice at least once."""
    ends = {key: spec.ends for key, spec in definition.space.items()}
    for index in range(max([1, *map(len, ends.values())])):
        yield {key: values[min(index, len(values) - 1)] for key, values in ends.items()}
