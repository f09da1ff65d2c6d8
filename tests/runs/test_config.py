"""A run's configuration: typed values from files, mappings and words, with nothing lost."""

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bclightning.errors import UserError
from bclightning.runs import RunConfig
from bclightning.runs.recipes import read_config, recipe_names

rates = st.floats(1e-12, 1e3, allow_nan=False)


@settings(deadline=None, max_examples=25)
@given(rates, st.integers(1, 10**6))
def test_typed_values_arrive_to_the_last_bit(rate, size):
    given = {"model.learning_rate": rate, "data.batch_size": size}
    config = RunConfig.load("digits.yaml", given)
    assert config["model.learning_rate"] == rate
    assert config["data.batch_size"] == size
    again = RunConfig.load(config)
    assert again.plain() == config.plain()
    assert again["model.learning_rate"] == rate


@pytest.mark.parametrize("recipe", recipe_names())
def test_words_files_and_mappings_mean_the_same(recipe, tmp_path):
    from_words = RunConfig.from_words(["--config", recipe, "--trainer.max_epochs=3"])
    dotted = RunConfig.load(recipe, {"trainer.max_epochs": 3})
    nested = RunConfig.load(recipe, {"trainer": {"max_epochs": 3}})
    assert from_words.plain() == dotted.plain() == nested.plain()
    dotted.write(tmp_path / "config.yaml")
    assert RunConfig.load(tmp_path / "config.yaml").plain() == dotted.plain()


def test_the_later_source_wins(tmp_path):
    (tmp_path / "more.yaml").write_text("trainer: {max_epochs: 7}\nseed_everything: 3\n")
    config = RunConfig.load("digits.yaml", tmp_path / "more.yaml", {"seed_everything": 4})
    assert (config["trainer.max_epochs"], config["seed_everything"]) == (7, 4)


def test_a_default_model_is_written_as_its_options_alone():
    """As in recipes, and as version 0.1.0 wrote them, so that hyperparameters keep their names."""
    model = RunConfig.load("digits.yaml").plain()["model"]
    assert model["learning_rate"] == 1e-3
    assert "class_path" not in model
    own = {"model": "own_modules.Regression", "data": "own_modules.Table"}
    assert RunConfig.load(own).plain()["model"] == {
        "class_path": "own_modules.Regression",
        "init_args": {"hidden": 32, "learning_rate": 0.01},
    }


def test_what_version_0_1_called_job_and_token_is_read(tmp_path):
    old = {**read_config_of("digits.yaml"), "job": {"stage": "final", "arm": "a", "token": "k1"}}
    (tmp_path / "old.yaml").write_text(yaml.safe_dump(old))
    config = RunConfig.load(tmp_path / "old.yaml")
    assert (config["purpose.stage"], config["purpose.sweep_id"]) == ("final", "k1")


def read_config_of(recipe: str):
    from bclightning.runs.recipes import resolve_recipe

    return read_config(resolve_recipe(recipe))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"model.learning_rat": 1.0}, "did you mean --model.learning_rate?"),
        ({"trainer.max_epocs": 3}, "did you mean --trainer.max_epochs?"),
        ({"model.learning_rate": "much"}, "'much' is not of type float"),
        ({"monitor_mode": "most"}, "'most' is not one of 'min', 'max'"),
        ({"seed_everything": -1}, "must be an integer from 0"),
        ({"nothing": 1}, "nothing"),
    ],
)
def test_a_mistake_is_one_sentence(options, sentence):
    with pytest.raises(UserError) as refused:
        RunConfig.load("digits.yaml", options)
    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("content", ["- a list\n", "text", "a: [unclosed", ""])
def test_a_file_that_is_no_configuration(tmp_path, content):
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(UserError, match=r"bad\.yaml is not a"):
        RunConfig.load(tmp_path / "bad.yaml")
