"""Records of runs read back from W&B."""

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

from bclightning.errors import UserError
from bclightning.runs.hyperparameters import settings_of
from bclightning.runs.record import RunRecord
from bclightning.runs.wandb_mode import has_key

# What every run of this toolkit tells W&B when it starts.
OURS = frozenset({"method", "arm", "data_set", "seed", "chosen"})

# Of these, what is no part of the configuration that the run was made from.
BESIDE_CONFIG = OURS | {"split_sizes", "binary_weights", "real_weights"}

_STATES = {"finished": "finished", "running": "running"}

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
def telling_of_wandb(path: str) -> Iterator[None]:
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

    with telling_of_wandb(path):
        runs = wandb.Api(timeout=TIMEOUT).runs(path, per_page=200, lazy=False)
        records = [_record(run) for run in runs if run.config.keys() >= OURS]
    if not records:
        raise UserError(f"W&B's project {path} holds no run of this toolkit")
    return records


def _record(run: Any) -> RunRecord:
    config, summary = dict(run.config), dict(run.summary)
    return RunRecord(
        run_id=run.name,
        experiment=run.group or "",
        regularizer=config["method"],
        data=config["data_set"],
        seed=config["seed"],
        epochs=(config.get("trainer") or {}).get("max_epochs") or 0,
        arm=config["arm"],
        stage=run.job_type if run.job_type in ("train", "tune", "final") else "train",
        trial=(config.get("job") or {}).get("trial"),
        hyperparameters=settings_of({k: v for k, v in config.items() if k not in BESIDE_CONFIG}),
        status=_STATES.get(run.state, "failed"),  # type: ignore[arg-type]
        best_epoch=summary.get("best_epoch"),
        best_score=summary.get("best/val/error"),
        test=_test_errors(summary),
        evaluation=config["chosen"],
        split_sizes=config.get("split_sizes") or {},
        binary_weights=config.get("binary_weights") or 0,
        real_weights=config.get("real_weights") or 0,
        float_bytes=summary.get("float_bytes") or 0,
        packed_bytes=summary.get("packed_bytes") or 0,
        train_seconds=summary.get("train_seconds") or 0.0,
        started=run.created_at,
    )


def _test_errors(summary: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for key, error in summary.items():
        parts = key.split("/")
        if parts[:2] == ["test", "error"] and len(parts) == 4:
            statistics = parts[3].replace("_", " ")
            found.append({"weights": parts[2], "batch_norm": statistics, "value": error})
    return found
