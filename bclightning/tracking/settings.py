"""A run's configuration as W&B shows it: what was chosen first, and the rest below one key."""

from collections.abc import Mapping
from typing import Any

# Below it lies what is neither filtered nor compared by in daily use.
DETAILS = "details"

# The whole configuration, among the details.
SETTINGS = "settings"

# Of Lightning's settings, those that are a part of most recipes.
_OF_TRAINER = (
    "accelerator",
    "accumulate_grad_batches",
    "devices",
    "gradient_clip_val",
    "max_epochs",
    "precision",
)

# What stands in front of a setting's own name.
_GROUPS = ("init_args", "class_path")


def wandb_config(
    facts: Mapping[str, Any],
    hyperparameters: Mapping[str, Any],
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """What W&B is told of a run's configuration.

    Args:
        facts: What every run is filtered by, as its regularizer and its seed.
        hyperparameters: The settings that decide what is trained, flat.
        details: The rest.

    Example:
        >>> wandb_config({"seed": 1}, {"model.network.init_args.hidden": [16]}, {"a": 2})
        {'seed': 1, 'hidden': [16], 'details': {'a': 2}}
    """
    return {**chosen_settings(hyperparameters, facts), DETAILS: dict(details)}


def chosen_settings(hyperparameters: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts, and settings under names as short as they can be told apart by.

    Args:
        hyperparameters: The settings that decide what is trained, flat.
        facts: Names that are taken.

    Example:
        >>> chosen_settings(
        ...     {"model.network.class_path": "bclightning.models.MLP",
        ...      "model.network.init_args.seed": 3, "trainer.detect_anomaly": False},
        ...     {"seed": 1},
        ... )
        {'seed': 1, 'network': 'MLP', 'network_seed': 3}
    """
    chosen = dict(facts)
    # What lies deeper has the longer name where two would be called the same.
    for key in sorted(hyperparameters, key=lambda key: key.count(".")):
        value = hyperparameters[key]
        group, _, rest = key.partition(".")
        if (group == "trainer" and rest not in _OF_TRAINER) or key == "data.class_path":
            continue
        *_, last = key.split(".")
        if last == "class_path":
            value = str(value).rpartition(".")[2]
        parts = [part for part in key.split(".") if part not in _GROUPS] or [key]
        names = ["_".join(parts[place:]) for place in reversed(range(len(parts)))]
        names += [key, f"{key} (setting)"]
        if chosen.get(names[0]) == value:
            # A fact says the same, as the regularizer of the package's own networks.
            continue
        chosen[next(name for name in names if name not in (*chosen, DETAILS))] = value
    return chosen
