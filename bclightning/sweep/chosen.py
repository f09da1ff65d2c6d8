"""The settings that a sweep chose, told from the records of its runs; imports no torch."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from bclightning.runs.record import RunRecord


def searched_options(runs: Sequence[RunRecord]) -> list[str]:
    """The hyperparameters that a search varied: those in which trials of one arm differ.

    Args:
        runs: Records, of which those of trials count.

    Example:
        >>> def trial(rate):
        ...     settings = {"model.learning_rate": rate, "model.momentum": 0.9}
        ...     return RunRecord(f"t{rate}", "e", "none", "digits", 0, stage="tune",
        ...                      hyperparameters=settings)
        >>> searched_options([trial(0.1), trial(0.2)])
        ['model.learning_rate']
    """
    found: dict[str, None] = {}
    first: dict[str, dict[str, Any]] = {}
    for run in runs:
        if run.stage != "tune":
            continue
        other = first.setdefault(run.arm_name, run.hyperparameters)
        for key in dict.fromkeys([*other, *run.hyperparameters]):
            if json.dumps(other.get(key)) != json.dumps(run.hyperparameters.get(key)):
                found[key] = None
    return list(found)


def chosen_settings(runs: Sequence[RunRecord]) -> dict[str, dict[str, Any]]:
    """The values of the searched hyperparameters that each arm of a sweep was given.

    Args:
        runs: Records of the sweep's runs.

    Returns:
        By arm the values of a final run, or of the finished trial with the best value where there
        is no final run yet; nothing where nothing was searched.

    Example:
        >>> def trial(rate, error):
        ...     return RunRecord(f"t{rate}", "e", "none", "digits", 0, stage="tune",
        ...                      status="finished", best_score=error,
        ...                      hyperparameters={"model.learning_rate": rate})
        >>> chosen_settings([trial(0.1, 3.0), trial(0.2, 2.0)])
        {'none': {'model.learning_rate': 0.2}}
    """
    options = searched_options(runs)
    if not options:
        return {}
    winners: dict[str, RunRecord] = {}
    for run in runs:
        if run.stage == "final" or (run.stage == "tune" and _has_value(run)):
            other = winners.setdefault(run.arm_name, run)
            if _rank(run) < _rank(other):
                winners[run.arm_name] = run
    return {
        arm: {key: run.hyperparameters.get(key) for key in options} for arm, run in winners.items()
    }


def _has_value(run: RunRecord) -> bool:
    known = run.best_score is not None and math.isfinite(run.best_score)
    return run.status == "finished" and known


def _rank(run: RunRecord) -> tuple[bool, float, int]:
    """A key by which the run whose settings were chosen is the least."""
    score = run.best_score or 0.0
    best = 0.0 if run.stage == "final" else (score if run.monitor_mode == "min" else -score)
    # Of equal trials the first was chosen.
    return run.stage != "final", best, run.trial or 0


def settings_in_words(settings: Mapping[str, object]) -> str:
    """Hyperparameters and their values in few characters.

    Example:
        >>> settings_in_words({"model.learning_rate": 0.0019623393773776725, "data.batch_size": 50})
        'learning_rate=0.001962, batch_size=50'
    """
    return ", ".join(f"{short_name(key)}={setting_text(value)}" for key, value in settings.items())


def short_name(key: str) -> str:
    """The last part of a hyperparameter's name.

    Example:
        >>> short_name("model.learning_rate")
        'learning_rate'
    """
    return key.rpartition(".")[2]


def setting_text(value: object) -> str:
    """A hyperparameter's value in few digits.

    Example:
        >>> setting_text(0.0019623393773776725), setting_text("adam")
        ('0.001962', 'adam')
    """
    return f"{value:.4g}" if isinstance(value, float) else str(value)
