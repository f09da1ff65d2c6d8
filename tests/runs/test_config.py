"""A run's configuration: typed values from files, mappings and words, with nothing lost."""

import warnings

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import Timer
from torch.nn.utils.prune import L1Unstructured

from bclightning.errors import UserError
from bclightning.runs import RunConfig, fit
from bclightning.runs.checkpoint import WholeFileCheckpointIO
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


CALLBACKS = "lightning.pytorch.callbacks"


def with_callback(name, **arguments):
    callback = {"class_path": f"{CALLBACKS}.{name}", "init_args": arguments}
    return RunConfig.load("digits.yaml", {"trainer.callbacks": [callback]})


@pytest.mark.parametrize(
    ("name", "arguments", "attribute", "value"),
    [
        ("StochasticWeightAveraging", {"swa_lrs": 0.1}, "_device", torch.device("cpu")),
        ("ModelPruning", {"pruning_fn": "l1_unstructured"}, "pruning_fn", L1Unstructured),
        ("Timer", {"duration": "00:00:10:00"}, "_duration", 600),
        ("Timer", {"duration": {"minutes": 10}}, "_duration", 600),
        ("LambdaCallback", {"on_fit_end": "builtins.print"}, "on_fit_end", print),
        ("GradientAccumulationScheduler", {"scheduling": {2: 4}}, "scheduling", {0: 1, 2: 4}),
        ("EarlyStopping", {"monitor": "val/error", "mode": "max"}, "mode", "max"),
    ],
)
def test_a_callbacks_arguments_are_written_so_that_they_can_be_read(
    tmp_path, name, arguments, attribute, value
):
    config = with_callback(name, **arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config.write(tmp_path / "config.yaml")
        config.check_readable()
    again = RunConfig.load(tmp_path / "config.yaml")
    assert again.plain() == config.plain()
    for each in (config, again):
        each.build()
        (callback,) = each.build_trainer(plugins=[WholeFileCheckpointIO()]).callbacks[:1]
        assert getattr(callback, attribute) == value


@pytest.mark.parametrize("option", [{"minutes": 10}, "00:00:10:00"])
def test_a_limit_of_time_is_written_so_that_it_can_be_read(tmp_path, option):
    RunConfig.load("digits.yaml", {"trainer.max_time": option}).write(tmp_path / "config.yaml")
    again = RunConfig.load(tmp_path / "config.yaml")
    again.build()
    (timer,) = (c for c in again.build_trainer().callbacks if isinstance(c, Timer))
    assert timer.time_remaining() == 600


def test_what_a_file_cannot_hold_is_refused_before_there_is_a_run(folder):
    sentence = "--trainer.callbacks.0.on_fit_end is a function, which a file cannot hold"
    with pytest.raises(UserError, match=sentence):
        fit(with_callback("LambdaCallback", on_fit_end=lambda *_: None))
    assert list(folder.iterdir()) == []
