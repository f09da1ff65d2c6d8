"""Definitions: what they say, and that what is wrong with one is said before anything starts."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bclightning.errors import UserError
from bclightning.sweep.definition import Choices, Definition, Range, as_arguments

SHIPPED = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))

WHOLE = {
    "recipe": "digits.yaml",
    "methods": ["none", "stochastic"],
    "overrides": {"trainer.max_epochs": 3},
    "space": {"model.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
    "trials": 2,
    "final_seeds": 2,
}


def test_a_definition_says_what_is_swept():
    definition = Definition.parse(
        {
            **WHOLE,
            "space": {"a.b": {"low": "1e-3", "high": 1}, "c": {"choices": [1, "x", None]}},
            "pruner": {"name": "median", "warmup_epochs": 5},
        },
        "mine",
    )
    assert definition.name == "mine"
    assert definition.arms["none"] == {"model.network.regularizer": "none"}
    assert definition.space == {"a.b": Range(0.001, 1), "c": Choices((1, "x", None))}
    assert definition.pruner.warmup_epochs == 5


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_definitions_hold_for_what_they_train(path):
    from bclightning.runs.config import resolve_recipe
    from bclightning.sweep.check import check

    definition = Definition.read(path)
    check(definition, str(resolve_recipe(definition.recipe)))
    assert definition.pruner.name == "none"
    match path.stem:
        case "lr_scaling":
            assert len(definition.arms) == 6
        case "mnist_paper":
            assert list(definition.arms) == ["none", "dropout", "deterministic"]
        case _:
            assert list(definition.arms) == ["none", "dropout", "deterministic", "stochastic"]


def test_a_sweep_is_shipped_for_each_data_set_and_each_table():
    assert {path.stem for path in SHIPPED} == {
        *("digits", "mnist", "cifar10", "svhn"),
        *("lr_scaling", "mnist_paper", "mnist_pixels"),
    }


values = st.one_of(st.integers(-5, 5), st.booleans(), st.sampled_from(["a", "b c"]))
ranges = st.tuples(st.integers(1, 5), st.integers(5, 9), st.booleans()).map(
    lambda t: {"low": t[0], "high": t[1], "log": t[2]}
)
options = st.sampled_from(["a", "b.c", "d_e.f1", "g.h.i"])


@given(
    st.dictionaries(
        options, st.one_of(ranges, st.builds(lambda v: {"choices": [v]}, values)), min_size=1
    ),
    st.integers(1, 9),
    st.integers(0, 9),
    st.integers(0, 9),
)
def test_reading_what_was_written_changes_nothing(space, trials, final_seeds, seed):
    content = {**WHOLE, "space": space, "trials": trials, "final_seeds": final_seeds, "seed": seed}
    definition = Definition.parse(content, "name")
    again = Definition.parse(yaml.safe_load(yaml.safe_dump(definition.plain())), "other")
    assert again == definition


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"recipes": 1}, "no key 'recipes' (did you mean recipe?)"),
        ({"recipe": None}, "recipe must be text"),
        ({"methods": []}, "methods is empty"),
        ({"methods": ["stochastc"]}, "did you mean stochastic?"),
        ({"methods": ["none", "none"]}, "twice"),
        ({"methods": {"a b": {}}}, "must be 1 to 64 letters"),
        ({"methods": {"a": {"--x": 1}}}, "without dashes"),
        ({"trials": 0}, "no trials to search it with"),
        ({"trials": -1}, "trials must be a whole number of at least 0"),
        ({"trials": True}, "trials must be a whole number"),
        ({"space": {}}, "no space for them to search"),
        ({"space": {}, "trials": 0, "final_seeds": 0}, "nothing to do"),
        ({"space": {"a": {"low": 2, "high": 1}}}, "low (2) is more than high (1)"),
        ({"space": {"a": {"low": 0, "high": 1, "log": True}}}, "must begin above 0"),
        ({"space": {"a": {"low": "x", "high": 1}}}, "low must be a number"),
        ({"space": {"a": {"low": float("nan"), "high": 1}}}, "low must be a number"),
        ({"space": {"a": {"low": 1}}}, "give low and high, or choices"),
        ({"space": {"a": {"low": 1, "high": 2, "step": 0}}}, "a step must be above 0"),
        ({"space": {"a": {"low": 1, "high": 2, "logg": True}}}, "did you mean log?"),
        ({"space": {"a": {"low": 1, "high": 2, "log": "yes"}}}, "log must be true or false"),
        ({"space": {"a": {"choices": []}}}, "choices must be a list"),
        ({"space": {"a": {"choices": [[1]]}}}, "each choice must be"),
        ({"space": {"a": {"choices": [1], "low": 1}}}, "stand alone"),
        ({"space": {"a": 3}}, "must be a mapping"),
        ({"space": {"trainer.max_epochs": {"choices": [1]}}}, "both searched for and fixed"),
        ({"space": {"seed_everything": {"choices": [1]}}}, "given by seed and final_seeds"),
        ({"overrides": {"model.network.regularizer": "none"}}, "is fixed for none and for all"),
        ({"pruner": "medain"}, "did you mean median?"),
        ({"pruner": {"name": "median", "x": 1}}, "pruner has no key"),
        ({"name": "a/b"}, "must be 1 to 64 letters"),
        ({"name": "n" * 60}, "too long together"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(change, said):
    with pytest.raises(UserError) as error:
        Definition.parse({**WHOLE, **change}, "name")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [None, [], "text", {1: 2}, {}])
def test_what_is_no_definition_at_all(content):
    with pytest.raises(UserError):
        Definition.parse(content, "name")


def test_options_become_a_command_line():
    given = {"a": None, "b": True, "c": "x y", "d": 1e-05, "e": [1, 2]}
    assert as_arguments(given) == ["--a=null", "--b=true", "--c=x y", "--d=1e-05", "--e=[1, 2]"]
