"""What of a configuration decides what is trained. Light: imports no torch."""

from collections.abc import Sequence
from typing import Any

# What says where a run lies, what it is called and how it is shown, and nothing of what is trained.
NOT_SETTINGS = (
    "experiment",
    "job",
    "run_id",
    "runs_dir",
    "seed_everything",
    "wandb",
    "data.init_args.cache_dir",
    "data.init_args.root",
    "data.init_args.eval_batch_size",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.logger",
)

# Options that may be said again of a run that is there: where things are, and not what is trained.
PLACES = ("--data.root", "--data.cache_dir", "--trainer.accelerator", "--wandb.")


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what is trained, flat, without what is not given.

    So an option that a later version adds is ``None`` by default, and records of before and after
    are of the same setting where it is not used.

    Args:
        config: The resolved configuration.

    Example:
        >>> settings_of({"seed_everything": 1, "model": {"loss": "hinge", "network": None}})
        {'model.loss': 'hinge'}
    """
    settings: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        if key in NOT_SETTINGS:
            return
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, f"{key}.{name}" if key else str(name))
        elif value is not None:
            settings[key] = value

    walk(config, "")
    return settings


def overrides(words: Sequence[str]) -> list[str]:
    """The options on a command line that change more of a run than where things are.

    Args:
        words: The command line beside the run's own configuration.

    Example:
        >>> overrides(["--data.root", "here", "-c", "other.yaml", "--model.momentum=0.5"])
        ['-c', '--model.momentum']
    """
    # By one dash: -c is --config.
    options = [word.partition("=")[0] for word in words if word.startswith("-")]
    return [option for option in options if not option.startswith(PLACES)]
