"""Which options decide what is trained."""

from hypothesis import given
from hypothesis import strategies as st

from bclightning.runs.hyperparameters import changed_options, hyperparameters_of

PLACES = (
    ("data.init_args.root", "--data.root"),
    ("trainer.accelerator", "--trainer.accelerator"),
    ("wandb.mode", "--wandb.mode"),
)


def nested(key: str, value) -> dict:
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


@given(st.text("ab", min_size=1), st.integers(), st.integers())
def test_an_option_has_changed_if_its_value_has(name, before, after):
    found = changed_options(nested(f"model.{name}", before), nested(f"model.{name}", after))
    assert found == ([] if before == after else [f"--model.{name}"])


def test_where_things_are_may_change():
    for key, _ in PLACES:
        assert changed_options(nested(key, "here"), nested(key, "there")) == []


def test_names_and_places_are_no_hyperparameters():
    config = {
        "seed_everything": 1,
        "run_id": "r",
        "monitor": "val/error",
        "data": {"class_path": "D", "init_args": {"root": "here", "batch_size": 2}},
        "model": {"learning_rate": 0.1, "end_factor": None},
    }
    assert hyperparameters_of(config) == {
        "data.class_path": "D",
        "data.init_args.batch_size": 2,
        "model.learning_rate": 0.1,
    }
