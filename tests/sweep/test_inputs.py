"""What a sweep reads from files is what it was when the sweep began, whoever edits them."""

from pathlib import Path

import pytest
import yaml

import bclightning.sweep
from bclightning.errors import UserError
from bclightning.sweep.inputs import check_unchanged, checksums, with_nested_files
from bclightning.sweep.view import View

NETWORK = {
    "class_path": "bclightning.models.MLP",
    "init_args": {"in_features": 64, "hidden": [16], "regularizer": "none"},
}


def definition(**change) -> dict:
    final = {"name": "mine", "recipe": "recipe.yaml", "arms": {"one": {}}, "final_seeds": 2}
    return {**final, "overrides": {"trainer.max_epochs": 1}, **change}


@pytest.fixture
def nested(folder, tiny):
    """A recipe whose network has a file of its own."""
    content = yaml.safe_load(Path(tiny).read_text())
    content["model"]["network"] = "network.yaml"
    Path("recipe.yaml").write_text(yaml.safe_dump(content))
    Path("network.yaml").write_text(yaml.safe_dump(NETWORK))
    return folder


class Editor(View):
    """Edits a file as soon as the first run starts."""

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text

    def event(self, run_id: str, what: str) -> None:
        Path(self.name).write_text(self.text)


def test_an_edit_of_a_file_that_the_recipe_names_changes_nothing(nested):
    network = {**NETWORK, "init_args": {**NETWORK["init_args"], "hidden": [8]}}
    records = bclightning.sweep(definition(), view=Editor("network.yaml", yaml.safe_dump(network)))
    hidden = [run.hyperparameters["model.network.init_args.hidden"] for run in records]
    assert hidden == [[16], [16]]
    # The sweep's folder says what it was begun with, and another one is refused.
    recipe = Path("recipe.yaml").read_text()
    assert Path("results/runs/mine/recipe.yaml").read_text() == recipe
    with pytest.raises(UserError, match="with a different files"):
        bclightning.sweep(definition())


def test_a_checkpoint_that_runs_begin_from_must_stay_as_it_is(folder, tiny):
    (first,) = bclightning.sweep(definition(name="first", recipe=tiny, final_seeds=1))
    warm = Path("results/runs/first") / first.run_id / "checkpoints" / "best.ckpt"
    warm.rename("warm.ckpt")
    begun = {"trainer.max_epochs": 1, "warm_start": "warm.ckpt"}
    asked = definition(recipe=tiny, overrides=begun)
    with pytest.raises(UserError, match=r"warm.ckpt, which the sweep's runs begin from, has chan"):
        bclightning.sweep(asked, view=Editor("warm.ckpt", "another"))
    # In silence, the second run would have begun from another network, or from none.
    with pytest.raises(UserError, match="a different files"):
        bclightning.sweep(asked)


def test_files_are_found_wherever_they_are_named(folder):
    Path("a.ckpt").write_text("a")
    Path("b.yaml").write_text("inner: c.txt")
    Path("c.txt").write_text("c")
    found = checksums([{"x": ["a.ckpt"]}, {"y": {"z": "b.yaml"}}, [1, None, "no such file", "\0"]])
    assert list(found) == ["a.ckpt", "b.yaml", "c.txt"]
    check_unchanged(found)
    Path("c.txt").unlink()
    with pytest.raises(UserError, match=r"c\.txt"):
        check_unchanged(found)


def test_a_path_that_a_class_asks_for_stays_a_path(folder, tiny):
    content = yaml.safe_load(Path(tiny).read_text())
    Path("experiment.yaml").write_text("{}")
    content["experiment"] = "experiment.yaml"
    assert with_nested_files(content, None) == content
