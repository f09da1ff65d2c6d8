"""Whether a run's files agree: its record, its configuration and its metrics."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from bclightning.runs.hyperparameters import hyperparameters_of
from bclightning.runs.metrics_csv import EPOCH, shortest
from bclightning.runs.record import RunRecord
from bclightning.vocabulary import VAL_ERROR

# What follows from a configuration, its data and the code, and is recorded.
_DERIVED = (
    "data",
    "epochs",
    "monitor",
    "monitor_mode",
    "test_metric",
    "evaluation",
    "split_sizes",
    "binary_weights",
    "real_weights",
    "float_bytes",
)


def disagreements(
    record: RunRecord, config: Mapping[str, Any], rows: Sequence[Mapping[str, float]]
) -> list[str]:
    """Where the files of a run say different things, each as half a sentence.

    Args:
        record: The record.
        config: What is in ``config.yaml``, as `bclightning.runs.recipes.read_config` reads it.
        rows: What is in ``metrics.csv``.

    Example:
        >>> record = RunRecord("r", "e", "none", "digits", seed=1, epochs=3)
        >>> config = {"run_id": "r", "seed_everything": 0, "trainer": {"max_epochs": 3}}
        >>> record.hyperparameters = {"trainer.max_epochs": 3}
        >>> disagreements(record, config, [])
        ['seed is 1 in run.json and 0 in config.yaml']
    """
    return [*_of_config(record, config), *_of_rows(record, rows), *_of_test(record)]


def derived_disagreements(record: RunRecord, again: RunRecord) -> list[str]:
    """Where a record differs from that of the same configuration, trained again.

    Args:
        record: The record.
        again: The record of the run's first epochs, trained again.
    """
    before, now = asdict(record), asdict(again)
    differing = [key for key in _DERIVED if before[key] != now[key]]
    found = [f"{key} is {before[key]} in run.json and {now[key]} again" for key in differing]
    if not _same_regularizer(record, again.regularizer, dict(again.hyperparameters)):
        found.append(
            f"regularizer is {record.regularizer} in run.json and {again.regularizer} again"
        )
    return found


def _of_config(record: RunRecord, config: Mapping[str, Any]) -> Iterator[str]:
    purpose = config.get("purpose") or {}
    hyperparameters = hyperparameters_of(config)
    # What an older version had no option for has the value that it always had.
    configured = {
        "seed": config.get("seed_everything", record.seed),
        "run_id": config.get("run_id") or record.run_id,
        "experiment": config.get("experiment") or record.experiment,
        "epochs": hyperparameters.get("trainer.max_epochs", record.epochs),
        "monitor": config.get("monitor", VAL_ERROR),
        "monitor_mode": config.get("monitor_mode", "min"),
        "test_metric": config.get("test_metric") or record.test_metric,
        "stage": purpose.get("stage", "train"),
        "arm": purpose.get("arm") or "",
        "trial": purpose.get("trial"),
    }
    for key, value in configured.items():
        recorded = getattr(record, key)
        if recorded != value:
            yield f"{key} is {recorded} in run.json and {value} in config.yaml"
    recorded = record.hyperparameters
    for key in dict.fromkeys((*recorded, *hyperparameters)):
        old, new = recorded.get(key), hyperparameters.get(key)
        if old != new:
            name = key.replace(".init_args", "")
            yield f"{name} is {old} in run.json and {new} in config.yaml"
    named = hyperparameters.get("binarization") or hyperparameters.get(
        "model.network.init_args.regularizer"
    )
    if named and not _same_regularizer(record, named, hyperparameters):
        yield f"regularizer is {record.regularizer} in run.json and {named} in config.yaml"


def _same_regularizer(record: RunRecord, now: str, hyperparameters: Mapping[str, Any]) -> bool:
    if record.regularizer == now:
        return True
    # The first version counted a network that drops pixels alone among those with dropout.
    drops = bool(hyperparameters.get("model.network.init_args.input_dropout"))
    return record.seeding == 1 and drops and (record.regularizer, now) == ("dropout", "none")


def _of_rows(record: RunRecord, rows: Sequence[Mapping[str, float]]) -> Iterator[str]:
    epochs = [row[EPOCH] for row in rows]
    if epochs != list(range(len(rows))):
        yield "the epochs of metrics.csv are not 0, 1, 2 and so on"
    if len(rows) > record.epochs:
        yield f"metrics.csv has {len(rows)} epochs, of {record.epochs} in run.json"
    values = {
        row[EPOCH]: row[record.monitor]
        for row in rows
        if record.monitor in row and row[record.monitor] == row[record.monitor]
    }
    if record.best_epoch is None or record.best_score is None:
        if record.status == "finished" and values:
            yield f"run.json has no best epoch, and metrics.csv has {record.monitor}"
        return
    if record.best_epoch not in values:
        yield f"metrics.csv has no {record.monitor} of epoch {record.best_epoch}, the best one"
        return
    value = values[record.best_epoch]
    if shortest(value) != shortest(record.best_score):
        yield f"best_score is {record.best_score} in run.json and {value} in metrics.csv"
    best = (min if record.monitor_mode == "min" else max)(values.values())
    # Ties go to the later epoch.
    epoch = max(epoch for epoch in values if values[epoch] == best)
    if epoch != record.best_epoch:
        yield f"best_epoch is {record.best_epoch} in run.json and {int(epoch)} in metrics.csv"


def _of_test(record: RunRecord) -> Iterator[str]:
    kinds = [(entry.get("weights"), entry.get("batch_norm")) for entry in record.test]
    if len(kinds) != len(set(kinds)):
        yield "run.json has several test results of one kind"
    if kinds and record.stage == "tune":
        yield "run.json has test results of a tuning run, which does not touch the test set"
