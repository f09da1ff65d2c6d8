"""Promoted pages: made of records alone, and found out when they are not."""

import errno
import importlib
import json
import os
import shutil

import filelock
import pytest
import yaml
from markdown_it import MarkdownIt
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
    firsts = [str(runs / f"{m}-s1") for m in REGULARIZERS]
    main(["compare", *firsts, "--write", "results/tiny", "--replace"])
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
    assert "Left out because they did not finish: 1 failed." in text
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


def change(run, **fields):
    """Change fields of a run's record."""
    content = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**content, **fields}))


@pytest.fixture
def finals(runs, tmp_path):
    """The same runs as a sweep's final ones, in a folder of their own."""
    mine = tmp_path / "finals"
    shutil.copytree(runs, mine, ignore=shutil.ignore_patterns("checkpoints"))
    for run in mine.iterdir():
        change(run, stage="final")
    return mine


def test_a_sweeps_page_says_how_to_make_it_again(folder, finals):
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
    (finals / "sweep.yaml").write_text(yaml.safe_dump(definition, sort_keys=False))
    main(["compare", str(finals), "--write", "results/swept"])
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


def test_a_sweeps_page_has_the_sweeps_runs_alone_and_counts_the_others(folder, finals):
    shutil.copytree(finals / "none-s1", finals / "tried")
    change(finals / "tried", run_id="tried", stage="train", epochs=3, seed=7)
    (finals / "sweep.yaml").write_text("recipe: digits.yaml\nmethods: [none, stochastic]\n")
    main(["compare", str(finals), "--write", "results/swept"])
    page = folder / "results/swept"
    text = (page / "README.md").read_text()
    assert "| none | 2 | " in text
    assert "\nLeft out of the sweep e: 1 run made by hand (tried).\n" in text
    assert "- 4 final runs, " in text
    # Its record is kept, and nothing else of it; so the page can be made of itself.
    assert [path.name for path in (page / "tried").iterdir()] == ["run.json"]
    main(["compare", "--check", "results/swept"])
    main(["compare", "results/swept", "--write", "results/swept"])
    assert (page / "README.md").read_text() == text
    # Of runs by hand alone the sweep's protocol does not tell.
    main(["compare", str(finals / "tried"), "--write", "results/tried"])
    text = (folder / "results/tried/README.md").read_text()
    assert "Protocol" not in text
    assert "bcl fit --config results/tried/tried/config.yaml" in text


def test_a_page_keeps_its_margin(folder, finals, refused):
    words = ("compare", str(finals), "--write", "results/margin")
    main([*words, "--margin", "25"])
    text = (folder / "results/margin/README.md").read_text()
    assert "Verdict for a margin of ±25 percentage points, at 5 %" in text
    main(["compare", "--check", "results/margin"])
    # Written again it is the same, but the margin of other runs is not taken over.
    main(["compare", "results/margin", "--write", "results/margin"])
    assert (folder / "results/margin/README.md").read_text() == text
    settings = folder / "results/margin/page.yaml"
    settings.write_text("margin: many\n")
    assert "page.yaml does not say a margin" in refused("compare", "--check", "results/margin")
    for run in finals.iterdir():
        change(run, experiment="other")
    main([*words, "--replace"])
    assert not settings.exists()
    assert "Verdict" not in (folder / "results/margin/README.md").read_text()


def contents(folder):
    """Every file of a folder, and its content."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_what_would_go_is_named_and_not_removed(folder, runs, page, refused):
    (page / "NOTES.md").write_text("Mine.\n")
    before = contents(page)
    words = ("compare", str(runs / "none-s1"), "--write", "results/tiny")
    assert refused(*words).strip() == (
        "results/tiny holds 3 runs that are not compared here (none-s2, stochastic-s1, "
        "stochastic-s2), which would be removed; write the page into another folder, or add "
        "--replace"
    )
    assert contents(page) == before
    main([*words, "--replace"])
    assert sorted(path.name for path in page.iterdir() if path.is_dir()) == ["none-s1"]
    assert (page / "NOTES.md").exists()
    main(["compare", "--check", "results/tiny"])


def test_a_page_of_another_experiment_goes_with_its_notes_when_asked(folder, finals, page, refused):
    (page / "NOTES.md").write_text("Mine.\n")
    (page / "none-s2" / "thesis.txt").write_text("Somebody put this here.")
    before = contents(page)
    for run in finals.iterdir():
        change(run, experiment="other")
    words = ("compare", str(finals), "--write", "results/tiny")
    said = refused(*words)
    # The names are the same, and the runs are others.
    assert "holds 4 runs that are not compared here (none-s1, none-s2, stochastic-s1 and 1" in said
    assert "and the NOTES.md of that page, which would be removed" in said
    assert contents(page) == before
    main([*words, "--replace"])
    assert not (page / "NOTES.md").exists()
    assert (page / "none-s2" / "thesis.txt").exists()
    assert '"experiment": "other"' in (page / "none-s1/run.json").read_text()
    main(["compare", "--check", "results/tiny"])


def test_somebodys_readme_is_not_written_over(folder, runs, refused):
    (folder / "README.md").write_text("# My project\n")
    words = ("compare", str(runs), "--write", ".")
    assert "holds a README.md that is no page of `bcl compare`, which would be" in refused(*words)
    assert contents(folder) == {folder / "README.md": b"# My project\n"}


def test_links_to_runs_are_not_followed(folder, runs, page, tmp_path, refused):
    outside = tmp_path / "outside"
    shutil.copytree(runs / "none-s1", outside, ignore=shutil.ignore_patterns("checkpoints"))
    before = contents(outside)
    shutil.rmtree(page / "none-s1")
    for name in ("none-s1", "gone"):
        (page / name).symlink_to(outside)
    words = ("compare", str(runs), "--write", "results/tiny")
    assert "holds 2 runs that are not compared here (gone, none-s1)" in refused(*words)
    main([*words, "--replace"])
    assert contents(outside) == before
    assert not (page / "gone").is_symlink()
    assert not (page / "none-s1").is_symlink()
    main(["compare", "--check", "results/tiny"])


def test_two_runs_of_one_name_are_no_page(folder, finals, tmp_path, refused, capsys):
    other = tmp_path / "other"
    shutil.copytree(finals, other)
    for run in other.iterdir():
        change(run, experiment="other", seed=int(run.name[-1]) + 10)
    main(["compare", str(finals), str(other), "--format", "json"])
    assert [arm["n"] for arm in json.loads(capsys.readouterr().out)[0]["arms"]] == [4, 4]
    said = refused("compare", str(finals), str(other), "--write", "results/both")
    assert "finals/none-s1 and " in said
    assert "other/none-s1 are two runs of one name, and a page keeps each run by its name" in said
    assert not (folder / "results/both").exists()


def test_a_copy_that_was_made_too_early_does_not_reach_the_page(folder, finals, tmp_path):
    early = tmp_path / "early"
    shutil.copytree(finals / "none-s1", early / "none-s1")
    change(early / "none-s1", status="running", best_score=None, best_epoch=None, test=[])
    for words in ([str(finals), str(early)], [str(early), str(finals)]):
        main(["compare", *words, "--write", "results/tiny"])
        text = (folder / "results/tiny/README.md").read_text()
        assert "| none | 2 | " in text
        assert "1 running" not in text
        record = json.loads((folder / "results/tiny/none-s1/run.json").read_text())
        assert record["status"] == "finished"


def test_a_full_disk_leaves_each_file_whole_and_names_the_one_that_was_written(
    folder, finals, page, refused, monkeypatch
):
    for run in finals.iterdir():
        metrics = run / "metrics.csv"
        metrics.write_text(metrics.read_text().replace("0.", "0.0"))
        change(run, train_seconds=9.0)
    before = contents(page)
    real, count = os.fsync, iter(range(1000))

    def full(descriptor):
        if next(count) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    said = refused("compare", str(finals), "--write", "results/tiny")
    assert "the disk is full: results/tiny/none-s1/metrics.csv was not written" in said
    after = contents(page)
    assert after.keys() == before.keys()
    for path, content in after.items():
        source = finals / path.relative_to(page)
        assert content in (before[path], source.read_bytes() if source.exists() else None)
    assert after[page / "none-s1/metrics.csv"] == before[page / "none-s1/metrics.csv"]
    assert after != before


def test_what_a_killed_process_left_behind_is_cleaned(page, runs):
    leftovers = [page / ".README.md.x1.part", page / "none-s1" / ".run.json.x2.part"]
    for leftover in leftovers:
        leftover.touch()
    main(["compare", str(runs), "--write", "results/tiny"])
    assert not any(leftover.exists() for leftover in leftovers)
    assert not (page / ".lock").exists()


@pytest.mark.parametrize("what", ["folder", "parent"])
def test_a_folder_that_cannot_be_made_is_one_sentence(folder, runs, refused, what):
    (folder / "file").touch()
    place = "file" if what == "folder" else "file/page"
    assert f"the folder {place} cannot be written: " in refused(
        "compare", str(runs), "--write", place
    )


def test_two_processes_do_not_write_one_page_at_once(page, runs, refused, monkeypatch):
    module = importlib.import_module("bclightning.compare.page_folder")
    monkeypatch.setattr(module, "LOCK_TIMEOUT_SECONDS", 0.1)
    before = contents(page)
    with filelock.FileLock(page / ".lock"):
        said = refused("compare", str(runs), "--write", "results/tiny")
    assert "another process writes the page in results/tiny; wait for it" in said
    (page / ".lock").unlink(missing_ok=True)
    assert contents(page) == before


HOSTILE = "\x1b[2J[/red]<img src=x onerror=alert(1)> | $\\frac$ [a](http://b) ![c](d) `e` \ud800\nf"


def shown(markdown):
    """Everything but text that a page shows as HTML, and all text."""
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(markdown)
    inline = [child for token in tokens for child in token.children or []]
    return [*tokens, *inline], "".join(child.content for child in inline)


def test_names_from_records_are_text_on_a_page_and_in_its_figures(folder, finals, capsys):
    for run in finals.iterdir():
        machine = {"device": HOSTILE, "name": HOSTILE}
        names = {"arm": HOSTILE, "data": HOSTILE, "machine": machine}
        settings = {HOSTILE: run.name[-1]}
        change(run, **names, test_metric=HOSTILE, hyperparameters=settings, versions={"a": HOSTILE})
    main(["compare", str(finals), "--write", "results/tiny"])
    capsys.readouterr()
    main(["compare", "--check", "results/tiny"])
    text = (folder / "results/tiny/README.md").read_text()
    assert text.replace("\n", " ").isprintable()
    tokens, words = shown(text)
    kinds = {token.type for token in tokens}
    assert not kinds & {"html_block", "html_inline"}
    linked = [token.attrGet("href") for token in tokens if token.type == "link_open"]
    images = [token.attrGet("src") for token in tokens if token.type == "image"]
    assert linked == []
    assert images == ["curves.png", "weights.png", "features.png"]
    assert "\\x1b[2J[/red]<img src=x onerror=alert(1)> | $" in words


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("README.md", b"\xff", "README.md cannot be read as text"),
        ("NOTES.md", b"\xff", "NOTES.md cannot be read as text"),
        ("none-s1/first_layer.json", b"[" * 100_000, "is not a histogram of weights"),
        ("none-s1/first_layer.json", b'{"edges": 3}', "is not a histogram of weights"),
        ("none-s1/first_layer.png", b"GIF89a", "is not an image of features"),
        ("none-s1/metrics.csv", b"epoch,val/error\nnan,1\n", "is not a table of metrics"),
        ("none-s1/metrics.csv", b"epoch,val/error\n1e400,1\n", "is not a table of metrics"),
        ("none-s1/metrics.csv", b"epoch,val/error\n-1,1\n", "is not a table of metrics"),
        ("none-s1/metrics.csv", b"epoch,val/error\n0.5,1\n", "is not a table of metrics"),
        ("none-s1/metrics.csv", b"\xff\xfe", "is not a table of metrics"),
    ],
)
def test_a_damaged_file_of_a_page_is_one_sentence(page, refused, file, content, said):
    (page / file).write_bytes(content)
    command = ("--check", "results/tiny")
    if file.startswith("none"):
        command = ("results/tiny", "--write", "results/tiny")
    assert said in refused("compare", *command)
