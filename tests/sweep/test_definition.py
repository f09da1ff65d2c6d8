"""Definitions: what they say, and that what is wrong with one is said before anything starts."""

import warnings
from datetime import date
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bclightning.errors import UserError
from bclightning.sweep.definition import Choices, Definition, Range, changed_keys
from bclightning.sweep.inputs import read_recipe
from bclightning.sweep.monitor import Monitor

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "sweeps").glob("*.yaml"))
KEPT = sorted((ROOT / "results").glob("*/sweep.yaml"))

WHOLE = {
    "recipe": "digits.yaml",
    "arms": ["none", "stochastic"],
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
    recipe = yaml.safe_load(resolve_recipe(definition.recipe).read_text())
    assert check(definition, recipe) == Monitor("val/error", "min")
    assert definition.pruner.name == "none"
    match path.stem:
        case "lr_scaling":
            assert len(definition.arms) == 6
        case "mnist_paper":
            assert list(definition.arms) == ["none", "dropout", "deterministic"]
        case _:
            assert list(definition.arms) == ["none", "dropout", "deterministic", "stochastic"]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parent.name)
def test_kept_definitions_call_arms_methods_and_mean_the_same(path):
    definition = Definition.read(path)
    assert "methods" in yaml.safe_load(path.read_text())
    assert "methods" not in definition.plain()
    shipped = Definition.load(path.parent.name)
    assert changed_keys(definition.fingerprint(""), shipped.fingerprint("")) == []


@pytest.mark.parametrize("name", ["digits", "digits.yaml"])
def test_a_shipped_definition_is_found_by_name_unless_there_is_such_a_file(folder, name):
    assert Definition.load(name).recipe == "digits.yaml"
    Path(name).write_text("{recipe: mine.yaml, arms: [none], name: mine}")
    assert Definition.load(name).recipe == "mine.yaml"
    assert Definition.load(Path(name)).recipe == "mine.yaml"
    with pytest.raises(UserError) as error:
        Definition.load("mnits")
    assert str(error.value) == (
        "there is no sweep definition mnits (did you mean mnist?); the shipped ones are cifar10, "
        "digits, lr_scaling, mnist, mnist_paper, mnist_pixels, svhn"
    )


def test_a_mapping_needs_a_name():
    assert Definition.load({**WHOLE, "name": "mine"}) == Definition.parse(WHOLE, "mine")
    with pytest.raises(UserError, match="name is missing"):
        Definition.load(WHOLE)


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
        ({"methods": ["none"]}, "no key 'methods'"),
        ({"arms": []}, "arms is empty"),
        ({"arms": ["stochastc"]}, "did you mean stochastic?"),
        ({"arms": ["none", "none"]}, "twice"),
        ({"arms": {"a b": {}}}, "must be 1 to 64 letters"),
        ({"arms": {"a": {"--x": 1}}}, "without dashes"),
        ({"trials": 0}, "there is a space to search, but trials is 0"),
        ({"trials": -1}, "trials must be an integer of at least 0, got -1"),
        ({"trials": True}, "trials must be an integer"),
        ({"space": {}}, "no space for them to search"),
        ({"space": {}, "trials": 0, "final_seeds": 0}, "nothing to do"),
        ({"space": {"a": {"low": 2, "high": 1}}}, "low (2) is greater than high (1)"),
        (
            {"space": {"a": {"low": 0, "high": 1, "log": True}}},
            "low must be greater than 0",
        ),
        ({"space": {"a": {"low": "x", "high": 1}}}, "low must be a number"),
        ({"space": {"a": {"low": float("nan"), "high": 1}}}, "low must be a number"),
        ({"space": {"a": {"low": 1}}}, "give low and high, or choices"),
        ({"space": {"a": {"low": 1, "high": 2, "step": 0}}}, "step must be greater than 0"),
        ({"space": {"a": {"low": 1, "high": 2, "step": 0.5}}}, "step must be a whole number"),
        ({"space": {"a": {"low": 1, "high": 10**400}}}, "a whole number must be at most"),
        ({"space": {"a": {"choices": [1.0, float("nan")]}}}, "each choice must be"),
        ({"trials": 10**9}, "trials must be at most 10000"),
        ({"final_seeds": 10**9}, "final_seeds must be at most 10000"),
        ({"seed": 2**32}, "seed must be at most"),
        ({"overrides": {"a": date(2026, 1, 1)}}, "a must be text, a number"),
        ({"space": {"a": {"low": 1, "high": 2, "logg": True}}}, "did you mean log?"),
        ({"space": {"a": {"low": 1, "high": 2, "log": "yes"}}}, "log must be true or false"),
        ({"space": {"a": {"choices": []}}}, "choices must be a list"),
        ({"space": {"a": {"choices": [[1]]}}}, "each choice must be"),
        ({"space": {"a": {"choices": [1], "low": 1}}}, "without other keys"),
        ({"space": {"a": 3}}, "must be a mapping"),
        (
            {"space": {"trainer.max_epochs": {"choices": [1]}}},
            "also has a fixed value",
        ),
        (
            {"space": {"seed_everything": {"choices": [1]}}},
            "is set by seed and final_seeds",
        ),
        (
            {"overrides": {"model.network.regularizer": "none"}},
            "set for the arm none and in overrides",
        ),
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


BOMB = "\n".join(
    ["x: &a0 [lol]", *[f"y{n}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]" for n in range(12)]]
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("recipe: &a [*a]", "contains itself"),
        ("arms: &a {x: *a}", "contains itself"),
        ("arms: " + 5000 * "[" + 5000 * "]", "nesting depth"),
        (BOMB, "it has more than 20,000 values"),
        ("recipe: !!python/object/apply:os.system [exit]", "is not plain data"),
    ],
)
def test_a_file_that_is_hostile_or_broken_is_refused_in_a_sentence(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        Definition.read(path)
    assert f"{path} is not a readable YAML file: " in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


plain = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(["a", "none", "1e-3", "median", "digits.yaml", ""]),
        st.dates(),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["low", "high", "log", "step", "choices", "name", "a.b", "a", "--x"]),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*WHOLE, "seed", "pruner", "name"]), plain, max_size=3))
def test_whatever_a_definition_says_is_taken_or_refused(change):
    """What is taken is taken by a storage and by the search too."""
    from bclightning.sweep.studies import _distribution

    try:
        definition = Definition.parse({**WHOLE, **change}, "name")
    except UserError:
        return
    definition.fingerprint("")
    with warnings.catch_warnings():
        # Of a range that is no multiple of its step.
        warnings.simplefilter("ignore")
        for spec in definition.space.values():
            _distribution(spec)


def test_a_home_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({**WHOLE, "recipe": "~/recipe.yaml"}))
    (tmp_path / "recipe.yaml").write_text("{trainer: {max_epochs: 1}}")
    definition = Definition.load("~/mine.yaml")
    assert read_recipe(definition.recipe)[1] == {"trainer": {"max_epochs": 1}}
