"""Records of runs read back from W&B."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from bclightning.errors import UserError
from bclightning.runs.hyperparameters import hyperparameters_of
from bclightning.runs.record import RunRecord
from bclightning.tracking.mode import has_key
from bclightning.tracking.names import BEST_EPOCH, wandb_name
from bclightning.tracking.settings import DETAILS, SETTINGS
from bclightning.vocabulary import (
    BATCH_NORM_STATISTICS,
    TEST_ERROR,
    VAL_ERROR,
    EvalWeights,
    Stage,
    Status,
)

# What every run of this toolkit tells W&B when it starts.
_KEYS = frozenset({"regularizer", "arm", "data_set", "seed", "evaluation"})

# Keys of runs that were logged by version 0.1.0, by today's names.
_RENAMED = {"method": "regularizer", "chosen": "evaluation", "job": "purpose"}

# What W&B's config of a run has beside its hyperparameters.
_NO_HYPERPARAMETERS = _KEYS | {
    "binary_weights",
    "monitor",
    "monitor_mode",
    "purpose",
    "real_weights",
    "split_sizes",
    "test_metric",
}

_STATES: dict[str, Status] = {"finished": "finished", "running": "running"}

TIMEOUT = 30


def split_path(path: str) -> tuple[str, str]:
    """Entity and project of ``ENTITY/PROJECT``.

    Raises:
        UserError: It is something else, or there is no API key to ask with.
    """
    found = re.fullmatch(r"([^/\s]+)/([^/\s]+)", path)
    if not found:
        raise UserError(f"{path!r} is not ENTITY/PROJECT, as in the address of the project's page")
    if not has_key(os.environ):
        raise UserError("W&B needs an API key: set WANDB_API_KEY, or type wandb login")
    return found[1], found[2]


@contextlib.contextmanager
def wandb_errors_as_user_errors(path: str) -> Iterator[None]:
    """Turn whatever W&B raises into one sentence.

    Raises:
        UserError: The server cannot be reached, or refuses the key or the project.
    """
    import wandb

    try:
        yield
    except (wandb.errors.CommError, wandb.errors.UsageError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UserError(f"W&B did not give {path} ({reason})") from error


def records_from_wandb(path: str) -> list[RunRecord]:
    """Read the records of all runs of this toolkit in a project.

    Args:
        path: ``ENTITY/PROJECT``.

    Returns:
        A record a run, without what W&B is not told, such as versions and checksums.

    Raises:
        UserError: The path is malformed, there is no key, W&B does not answer or refuses, or the
            project holds no run of this toolkit.
    """
    split_path(path)
    import wandb

    with wandb_errors_as_user_errors(path):
        runs = wandb.Api(timeout=TIMEOUT).runs(path, per_page=200, lazy=False)
        found = [(run, _renamed(run.config)) for run in runs]
        records = [_checked(run, config) for run, config in found if config.keys() >= _KEYS]
    if not records:
        raise UserError(f"W&B's project {path} holds no run of this toolkit")
    return records


def _renamed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run as a record has it: settings, and facts beside them."""
    details = config.get(DETAILS)
    if isinstance(details, dict) and isinstance(details.get(SETTINGS), dict):
        facts = {key: value for key, value in details.items() if key != SETTINGS}
        told = {key: config[key] for key in _KEYS & config.keys()}
        return {**details[SETTINGS], **facts, **told}
    # Older runs have all of it at the top level.
    return {_RENAMED.get(key, key): value for key, value in config.items()}


def _checked(run: Any, config: dict[str, Any]) -> RunRecord:
    where = f"W&B's run {run.name}"
    for key in ("trainer", "purpose"):
        if not isinstance(config.get(key) or {}, dict):
            raise UserError(f"{where} is not a complete run record: {key} must be an object")
    record = _record(run, config)
    record.check(where)
    return record


def _number(value: Any) -> Any:
    """A metric as W&B gives it back, which spells out what is no number in JSON."""
    return float(value) if value in ("NaN", "Infinity", "-Infinity") else value


def _record(run: Any, config: dict[str, Any]) -> RunRecord:
    summary = dict(run.summary)
    monitor = config.get("monitor") or VAL_ERROR
    test_metric = config.get("test_metric") or TEST_ERROR
    return RunRecord(
        run_id=run.name,
        experiment=run.group or "",
        regularizer=config["regularizer"],
        data=config["data_set"],
        seed=config["seed"],
        epochs=(config.get("trainer") or {}).get("max_epochs") or 0,
        arm=config["arm"],
        stage=run.job_type if run.job_type in get_args(Stage) else "train",
        trial=(config.get("purpose") or {}).get("trial"),
        hyperparameters=hyperparameters_of(
            {key: value for key, value in config.items() if key not in _NO_HYPERPARAMETERS}
        ),
        status=_STATES.get(run.state, "failed"),
        monitor=monitor,
        monitor_mode=config.get("monitor_mode") or "min",
        best_epoch=_best_epoch(summary),
        best_score=_number(summary.get("best_score", summary.get(f"best/{monitor}"))),
        test_metric=test_metric,
        test=_test_results(summary, test_metric),
        evaluation=config["evaluation"],
        split_sizes=config.get("split_sizes") or {},
        binary_weights=config.get("binary_weights") or 0,
        real_weights=config.get("real_weights") or 0,
        float_bytes=summary.get("float_bytes") or 0,
        packed_bytes=summary.get("packed_bytes") or 0,
        train_seconds=summary.get("train_seconds") or 0.0,
        started=run.created_at,
    )


def _best_epoch(summary: dict[str, Any]) -> Any:
    """The best epoch, counted from 0."""
    epoch = summary.get(BEST_EPOCH)
    # Older runs have it under another name, and counted from 0 there too.
    return epoch - 1 if isinstance(epoch, int) else summary.get("best_epoch")


def _test_results(summary: dict[str, Any], test_metric: str) -> list[dict[str, Any]]:
    # In older runs names have no units.
    keys = {
        f"{name}/{weights}/{batch_norm.replace(' ', '_')}": (weights, batch_norm)
        for name in dict.fromkeys((wandb_name(test_metric), test_metric))
        for weights in get_args(EvalWeights)
        for batch_norm in BATCH_NORM_STATISTICS
    }
    return [
        {"weights": weights, "batch_norm": batch_norm, "value": _number(summary[key])}
        for key, (weights, batch_norm) in keys.items()
        if key in summary
    ]
