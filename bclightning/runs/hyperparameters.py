"""What of a configuration decides what is trained, and how two configurations differ."""

from collections.abc import Mapping
from typing import Any

# What says where a run lies, what it is called and how it is watched, and nothing of the training.
# What was monitored has fields of its own in a record.
_NOT_HYPERPARAMETERS = (
    "experiment",
    "monitor",
    "monitor_mode",
    "purpose",
    "run_id",
    "runs_dir",
    "seed_everything",
    "test_metric",
    "wandb",
    "data.init_args.cache_dir",
    "data.init_args.root",
    "data.init_args.eval_batch_size",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.logger",
)

# Options that may change for a run that exists: where things are, and not what is trained.
_PLACES = (
    "data.root",
    "data.cache_dir",
    "trainer.accelerator",
    "trainer.enable_progress_bar",
    "wandb.",
)


def hyperparameters_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what is trained, flat, without those that are ``None``.

    An option that a later version adds is ``None`` by default, so that records of before and after
    agree where it is not used.

    Args:
        config: The resolved configuration.

    Example:
        >>> hyperparameters_of({"seed_everything": 1, "model": {"loss": "hinge", "network": None}})
        {'model.loss': 'hinge'}
    """
    return {key: value for key, value in _flat(config).items() if value is not None}


def changed_options(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """The options that differ between two configurations, but for those that say where things are.

    Args:
        before: The resolved configuration of a run.
        after: The same with other options.

    Returns:
        Names as on the command line, in the order of `after`.

    Example:
        >>> run = {"data": {"init_args": {"root": "a", "batch_size": 10}}}
        >>> changed_options(run, {"data": {"init_args": {"root": "b", "batch_size": 20}}})
        ['--data.batch_size']
    """
    old, new = (_flat(config, skip=()) for config in (before, after))
    names = [
        key.replace(".init_args", "") for key in {**new, **old} if old.get(key) != new.get(key)
    ]
    return [f"--{name}" for name in names if not is_place(name)]


def is_place(option: str) -> bool:
    """Whether an option says where things are or how they are watched, and not what is trained.

    Example:
        >>> is_place("data.root"), is_place("model.learning_rate")
        (True, False)
    """
    return option.startswith(_PLACES)


def _flat(
    config: Mapping[str, Any], skip: tuple[str, ...] = _NOT_HYPERPARAMETERS
) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if key in skip:
            return
        if isinstance(value, Mapping):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        else:
            flat[key] = value

    walk(config, "")
    return flat
