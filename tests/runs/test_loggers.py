"""Every logger gets every curve: W&B's, Lightning's CSV logger and TensorBoard's."""

import csv
from pathlib import Path

import pytest

from bclightning.cli.main import main
from bclightning.runs.metrics_csv import MetricsTable


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """Rows of a CSV logger and of metrics.csv, from a run of epochs of 23 steps."""
    folder = tmp_path_factory.mktemp("logged")
    found = {}
    for name, every in (("within", 10), ("short", 25)):
        logger = "--trainer.logger=lightning.pytorch.loggers.CSVLogger"
        words = ["fit", "--config", str(Path(__file__).parents[1] / "configs" / "tiny.yaml")]
        words += [f"--runs_dir={folder}", f"--run_id={name}", "--trainer.max_epochs=2"]
        words += [logger, f"--trainer.logger.save_dir={folder / name}"]
        main([*words, f"--trainer.log_every_n_steps={every}"])
        (path,) = (folder / name).rglob("metrics.csv")
        found[name] = rows(path), MetricsTable(folder / "digits" / name / "metrics.csv").rows
    return found


@pytest.mark.parametrize("name", ["within", "short"])
def test_a_csv_logger_gets_every_metric_of_every_epoch(logged, name):
    lines, table = logged[name]
    assert [row["epoch"] for row in table] == [0, 1]
    for row in table:
        theirs = [line for line in lines if line.get("epoch") == row["epoch"]]
        merged = {key: value for line in theirs for key, value in line.items()}
        assert {key: merged[key] for key in row} == pytest.approx(row, rel=1e-6)
        assert {line["step"] for line in theirs} == {23 * row["epoch"] + 22}


def test_within_long_epochs_loss_and_rate_are_logged_every_n_steps(logged):
    lines, table = logged["within"]
    steps = [line for line in lines if "train/loss_step" in line]
    assert [line["step"] for line in steps] == [9, 19, 32, 42]
    for epoch, first in ((0, 0), (1, 2)):
        pair = [line["train/loss_step"] for line in steps[first : first + 2]]
        # The means of 20 of the 23 steps.
        assert sum(pair) / 2 == pytest.approx(table[epoch]["train/loss"], rel=0.5)
        assert pair[0] > pair[1]
        assert all(
            line["learning_rate"] == pytest.approx(table[epoch]["learning_rate"])
            for line in steps[first : first + 2]
        )
    # The run's own table has none of it, and short epochs have none.
    assert not any("train/loss_step" in row for row in table)
    assert not any("train/loss_step" in line for line in logged["short"][0])
    assert logged["short"][1] == table
