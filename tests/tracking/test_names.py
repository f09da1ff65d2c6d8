"""What W&B calls metrics, settings and commands."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bclightning.tracking.metadata import secret_of_slurm, without_secrets
from bclightning.tracking.names import wandb_media, wandb_metrics
from bclightning.tracking.settings import DETAILS, chosen_settings, wandb_config

LAYERS = [f"hidden.{number}.linear" for number in range(9)] + ["output.linear"]


def test_results_come_before_what_is_said_of_layers():
    """leet and the web sort charts by name, and show the first page first."""
    logged = {
        "epoch": 4.0,
        **{f"flip_ratio/{layer}": 0.01 for layer in LAYERS},
        **{f"saturation/{layer}": 0.5 for layer in LAYERS},
        "learning_rate": 0.1,
        "train/loss": 1.0,
        "train/loss_step": 1.0,
        "val/loss": 2.0,
        "val/error": 12.5,
    }
    shown = wandb_metrics(logged, LAYERS)
    charts = sorted(name for name in shown if not name.startswith("_"))
    assert charts[:6] == [
        "train/learning_rate",
        "train/loss",
        "train/loss_step",
        "val/accuracy_pct",
        "val/error_pct",
        "val/loss",
    ]
    assert shown["_epoch"] == 5
    assert (shown["val/error_pct"], shown["val/accuracy_pct"]) == (12.5, 87.5)
    # In the network's order, and told apart by what is left when leet cuts them.
    layers = charts[6:]
    assert [name[8:10] for name in layers] == [f"{n:02}" for n in range(1, 11) for _ in range(2)]
    assert len({name[:15] for name in layers}) == len(layers) == 20
    assert shown["weights/10_flips_pct/output_linear"] == 1.0
    assert shown["weights/10_saturation_pct/output_linear"] == 50.0
    assert wandb_media("weights/output.linear", LAYERS) == "weights/10_histogram/output_linear"
    assert wandb_media("features/first_layer", LAYERS) == "weights/1_features"


@given(
    st.dictionaries(
        st.sampled_from(["a.b", "a_b", "c"]).flatmap(
            lambda layer: st.sampled_from([f"flip_ratio/{layer}", f"saturation/{layer}", layer])
        ),
        st.floats(0, 1),
    )
)
def test_no_metric_is_lost_by_its_name(metrics):
    shown = wandb_metrics(metrics, ["a.b", "a_b"])
    assert len(shown) == len(metrics)
    assert math.isclose(
        sum(shown[key] for key in shown if "_pct" not in key),
        sum(value for key, value in metrics.items() if "/" not in key),
    )


def test_what_was_chosen_is_at_the_top_and_the_rest_below_one_key():
    hyperparameters = {
        "trainer.max_epochs": 3,
        "trainer.detect_anomaly": False,
        "model.learning_rate": 0.01,
        "model.network.class_path": "bclightning.models.MLP",
        "model.network.init_args.hidden": [16],
        "model.network.init_args.regularizer": "stochastic",
        "model.network.init_args.learning_rate": 3,
        "model.network.init_args.seed": 7,
        "data.class_path": "bclightning.data.Digits",
        "data.init_args.batch_size": 50,
    }
    facts = {"regularizer": "stochastic", "seed": 1}
    assert wandb_config(facts, hyperparameters, {"split_sizes": {"train": 3}}) == {
        "regularizer": "stochastic",
        "seed": 1,
        "max_epochs": 3,
        "learning_rate": 0.01,
        "network": "MLP",
        "hidden": [16],
        "network_learning_rate": 3,
        "network_seed": 7,
        "batch_size": 50,
        "details": {"split_sizes": {"train": 3}},
    }


_PART = st.sampled_from(["model", "data", "init_args", "network", "a", "b", "details", "x_y"])


@given(st.sets(st.lists(_PART, min_size=1, max_size=5).map(".".join), max_size=8))
def test_no_setting_is_lost_by_its_short_name(settings):
    distinct = {key: place for place, key in enumerate(sorted(settings))}
    chosen = chosen_settings(distinct, {"a": "fact"})
    assert chosen.pop("a") == "fact"
    assert sorted(chosen.values()) == list(range(len(distinct)))
    assert DETAILS not in chosen


WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)
PASSWORDS = st.text(min_size=1)


@given(WORDS, PASSWORDS, PASSWORDS)
def test_a_command_line_says_the_same_whatever_the_password_is(word, one, other):
    def said(password: str) -> list[str]:
        return without_secrets(
            [
                word,
                f"postgresql://me:{password}@host/db",
                f"--storage=postgresql://me:{password}@host/db?sslmode=x",
                # An @ in there is taken for the end of a password, and more is left out.
                f"postgresql://host/db?password={password.replace('@', '')}",
                f"host=h password={password}",
                f"--db_password={password}",
                "--api-key",
                password,
                f"WANDB_API_KEY={password}",
            ]
        )

    assert said(one) == said(other)


@pytest.mark.parametrize(
    "words",
    [
        ["fit", "--config", "mnist.yaml", "--model.learning_rate=0.1", "-c", "~/a b.yaml"],
        ["sweep", "sweeps/digits.yaml", "--storage", "sqlite:///a.db", "--jobs", "2"],
    ],
)
def test_a_command_line_without_secrets_is_shown_as_it_is(words):
    assert without_secrets(words) == words


def test_slurms_own_variables_are_no_secret():
    assert secret_of_slurm({"SLURM_JOB_ID": "1", "API_TOKEN": "x"}) is None
    assert secret_of_slurm({"SLURM_JOB_ID": "1", "SLURM_JWT": "x"}) == "SLURM_JWT"
