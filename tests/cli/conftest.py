"""Finished runs for the commands that use them."""

import shutil
from pathlib import Path

import pytest

from bclightning.cli.main import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with a stochastic and a float run, made once."""
    place = tmp_path_factory.mktemp("trained")
    tiny = str(Path(__file__).parents[1] / "configs" / "tiny.yaml")
    runs = str(place / "results" / "runs")
    for regularizer in ("stochastic", "deterministic", "none"):
        words = [
            "--model.network.regularizer",
            regularizer,
            "--run_id",
            regularizer,
            "--runs_dir",
            runs,
        ]
        main(["fit", "--config", tiny, *words])
    return place


@pytest.fixture
def runs(folder, trained):
    shutil.copytree(trained / "results", folder / "results")
    return folder
