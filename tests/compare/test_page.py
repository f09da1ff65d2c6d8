"""Promoted pages: made of records alone, and found out when they are not."""

import json
import shutil

import pytest
import yaml
from PIL import Image

from bclightning.cli.main import main

REGULARIZERS = ("none", "stochastic")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Four short runs of two regularizers."""
    from pathlib import Path

    root = tmp_path_factory.mktemp("runs")
    tiny = Path(__file__).parents[1] / "configs" / "tiny.yaml"
    for regularizer in REGULARIZERS:
        for seed in (1, 2):
            main(
                [
                    "fit",
                    "--config",
                    str(tiny),
                    "--runs_dir",
                    str(root),
                    "--experiment",
                    "e",
                    "--run_id",
                    f"{regularizer}-s{seed}",
                    "--seed_everything",
                    str(seed),
                    "--model.network.regularizer",
                    regularizer,
                ]
            )
    return root / "e"


@pytest.fixture
def page(folder, runs, capsys):
    """A page of those runs."""
    main(["compare", str(runs), "--write", "results/tiny"])
    capsys.readouterr()
    return folder / "results" / "tiny"


def test_a_page_holds_table_figures_and_records(page, capsys):
    main(["compare", "--check", "results/tiny"])
    text = (page / "README.md").read_text()
    for regularizer in REGULARIZERS:
        assert f"| {regularizer} | 2 | " in text
        assert f"bcl fit --config results/tiny/{regularizer}-s1/config.yaml" in text
        assert (page / f"{regularizer}-s2" / "run.json").exists()
    assert "## Pairs" in text
    assert "## Evaluation weights\n\n| arm | binary, BN as trained | binary, BN re-est" in text
    assert "binary (its method 1), real (method 2)" in text
    assert (
        "Errors in percent, mean ± standard deviation over *n* seeds, at the epoch with the" in text
    )
    for name in ("curves.png", "weights.png", "features.png"):
        assert f"({name})" in text
        with Image.open(page / name) as image:
            colours = image.convert("RGB").getcolors(1 << 24)
        assert len(colours) > 3
    # The first layer is kept of the run that is shown, and no checkpoint of any.
    assert (page / "none-s1" / "first_layer.png").exists()
    assert not (page / "none-s2" / "first_layer.png").exists()
    assert list(page.rglob("*.ckpt")) == []


def test_the_page_does_not_depend_on_how_its_folder_is_named(page, monkeypatch):
    main(["compare", "--check", str(page)])
    monkeypatch.chdir(page)
    main(["compare", "--check", "."])


def test_a_folder_of_runs_is_not_made_a_page(folder, runs, refused, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(runs, mine)
    before = sorted(mine.rglob("*"))
    said = refused("compare", str(mine / "none-s1"), "--write", str(mine))
    assert "holds runs with their checkpoints" in said
    assert sorted(mine.rglob("*")) == before


def test_writing_again_forgets_what_is_no_longer_compared(page, runs):
    main(["compare", *(str(runs / f"{m}-s1") for m in REGULARIZERS), "--write", "results/tiny"])
    assert not (page / "none-s2").exists()
    main(["compare", "--check", "results/tiny"])


def damage_figure(page):
    from bclightning.compare.figures import FIGURES, draw_figure
    from bclightning.compare.page import _read

    comparison, folders = _read(page)
    metrics = page / "none-s1" / "metrics.csv"
    before = metrics.read_text()
    metrics.write_text(before.replace("0.", "0.0", 1))
    draw_figure(FIGURES[0], page, comparison, folders)
    metrics.write_text(before)


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda p: edit(p / "README.md", "| none | 2", "| none | 3"), "in line 7: it says"),
        (lambda p: (p / "README.md").write_text("# digits\n"), "has 1 lines"),
        (lambda p: (p / "README.md").unlink(), "there is no page"),
        (lambda p: edit(p / "none-s1/run.json", '"value": ', '"value": 1'), "differs"),
        (lambda p: edit(p / "none-s1/metrics.csv", "0,", "1,"), "drawn from other data"),
        (damage_figure, "curves.png was drawn from other data"),
        (lambda p: (p / "weights.png").unlink(), "weights.png is missing"),
        (lambda p: (p / "weights.png").write_bytes(b"no"), "weights.png is missing or not"),
        (lambda p: (p / "none-s1/first_layer.json").unlink(), "drawn from other data"),
        (lambda p: shutil.rmtree(p / "none-s2"), "differs"),
    ],
)
def test_a_page_that_its_records_do_not_bear_out_is_refused(page, refused, harm, said):
    harm(page)
    assert said in refused("compare", "--check", "results/tiny")


def test_what_cannot_be_a_page(folder, runs, refused, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs / "none-s1", other / "a")
    edit(other / "a" / "run.json", '"data": "digits"', '"data": "mnist"')
    words = ("compare", str(runs), str(other), "--write", "results/tiny")
    assert "a page is of one data set" in refused(*words)
    edit(other / "a" / "run.json", '"data": "mnist"', '"data": "digits"')
    (other / "a" / "metrics.csv").unlink()
    assert "has no metrics.csv" in refused("compare", str(other), "--write", "results/tiny")
    assert not (folder / "results" / "tiny" / "README.md").exists()


@pytest.fixture
def accurate(runs, tmp_path):
    """The same runs as those of a module that logs metrics of its own."""
    mine = tmp_path / "accurate"
    shutil.copytree(runs, mine)
    for record in mine.glob("*/run.json"):
        content = json.loads(record.read_text())
        own = {"monitor": "val_acc", "monitor_mode": "max", "test_metric": "test_acc"}
        content |= {**own, "best_score": 0.987654 + content["seed"] / 100}
        for entry in content["test"]:
            entry["value"] = 0.9
        record.write_text(json.dumps(content))
        metrics = record.with_name("metrics.csv")
        metrics.write_text(
            metrics.read_text().replace("val/error", "val_acc").replace("train/loss", "other")
        )
    return mine


def test_a_page_says_what_was_monitored(folder, accurate, runs, refused):
    main(["compare", str(accurate), "--write", "results/tiny"])
    main(["compare", "--check", "results/tiny"])
    text = (folder / "results/tiny/README.md").read_text()
    assert "| arm | n | best val_acc (max) | test_acc |" in text
    assert "| none | 2 | 1.003 ± 0.007071 | 0.9000 ± 0.000 |" in text
    assert (
        "Mean ± standard deviation over *n* seeds, at the epoch with the highest val_acc;" in text
    )
    assert "test_acc by the evaluation weights of the paper's section 2.6" in text
    assert "*By epoch: val_acc, means over seeds, the range over seeds shaded.*" in text
    assert "error" not in text
    words = ("compare", str(accurate), str(runs), "--write", "results/both")
    assert "one monitored metric, and these runs are of several: digits; digits, best val_acc" in (
        refused(*words)
    )


def test_a_run_that_failed_is_not_hidden(folder, runs, page, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(runs, mine)
    record = json.loads((mine / "none-s2" / "run.json").read_text())
    (mine / "none-s2" / "run.json").write_text(json.dumps({**record, "status": "failed"}))
    (mine / "none-s2" / "metrics.csv").unlink()
    main(["compare", str(mine), "--write", "results/mine"])
    text = (folder / "results/mine/README.md").read_text()
    assert "Left out, for they have not finished: 1 failed." in text
    main(["compare", "--check", "results/mine"])
    # Nor when the page is made of itself.
    main(["compare", "results/mine", "--write", "results/mine"])
    assert (folder / "results/mine/README.md").read_text() == text


def test_a_page_holds_what_people_found(page, runs, refused):
    (page / "NOTES.md").write_text("Dropout wants more epochs.\n")
    assert "differs from its records" in refused("compare", "--check", "results/tiny")
    main(["compare", str(runs), "--write", "results/tiny"])
    assert "## Notes\n\nDropout wants more epochs.\n\n" in (page / "README.md").read_text()
    main(["compare", "--check", "results/tiny"])


def test_a_sweeps_page_says_how_to_make_it_again(folder, runs):
    definition = {
        "name": "swept",
        "description": "What it is for.",
        "recipe": "digits.yaml",
        "methods": list(REGULARIZERS),
        "overrides": {"trainer.max_epochs": 3},
        "space": {
            "model.learning_rate": {"low": 1e-3, "high": 0.1, "log": True},
            "data.batch_size": {"choices": [20, 50]},
        },
        "trials": 4,
    }
    (runs / "sweep.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    try:
        main(["compare", str(runs), "--write", "results/swept"])
    finally:
        (runs / "sweep.yaml").unlink()
    text = (folder / "results/swept/README.md").read_text()
    assert text.startswith("# swept\n\nWhat it is for.\n")
    assert "- Recipe `digits.yaml` with `trainer.max_epochs: 3`.\n" in text
    assert (
        "4 trials of `model.learning_rate` from 0.001 to 0.1 on a logarithmic scale and "
        "`data.batch_size` among 20, 50, drawn by"
    ) in text
    assert "The trial with the lowest validation error gives the arm its setting." in text
    assert "- 3 final runs of each arm" in text
    assert "bcl sweep results/swept/sweep.yaml" in text
    main(["compare", "--check", "results/swept"])
