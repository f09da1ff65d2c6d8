"""What a sweep chose, told from its records alone."""

from dataclasses import replace

import pytest

from bclightning.runs.record import RunRecord
from bclightning.sweep.chosen import chosen_settings, searched_options


def trial(arm, number, rate, score, **more) -> RunRecord:
    settings = {"model.learning_rate": rate, "model.network": arm, "model.momentum": 0.9}
    record = RunRecord(f"{arm}-t{number}", "e", arm, "digits", 0, stage="tune", trial=number)
    record = replace(record, status="finished", best_score=score, hyperparameters=settings)
    return replace(record, **more)


TRIALS = [
    trial("none", 0, 0.1, 3.0),
    trial("none", 2, 0.4, 2.0),
    trial("none", 1, 0.2, 2.0),
    trial("dropout", 0, 0.1, 1.0),
    trial("dropout", 1, 0.2, 4.0),
]


def test_what_was_searched_differs_within_an_arm():
    assert searched_options(TRIALS) == ["model.learning_rate"]
    # One trial of each arm tells nothing, nor do runs by hand.
    assert searched_options([TRIALS[0], replace(TRIALS[3], hyperparameters={})]) == []
    assert searched_options([replace(run, stage="train") for run in TRIALS]) == []
    assert chosen_settings(TRIALS[:1]) == {}


def test_the_best_trial_is_chosen_and_of_equal_ones_the_first():
    rates = {arm: s["model.learning_rate"] for arm, s in chosen_settings(TRIALS).items()}
    assert rates == {"none": 0.2, "dropout": 0.1}
    highest = [replace(run, monitor_mode="max") for run in TRIALS]
    rates = {arm: s["model.learning_rate"] for arm, s in chosen_settings(highest).items()}
    assert rates == {"none": 0.1, "dropout": 0.2}


@pytest.mark.parametrize(
    "change", [{"status": "pruned"}, {"best_score": None}, {"best_score": float("nan")}]
)
def test_a_trial_without_a_result_is_not_chosen(change):
    better = trial("none", 3, 0.8, 0.5, **change)
    assert chosen_settings([*TRIALS, better])["none"] == {"model.learning_rate": 0.2}


def test_final_runs_say_what_was_chosen():
    final = trial("none", None, 0.4, 9.0, stage="final")
    for runs in ([final, *TRIALS], [*TRIALS, final]):
        assert chosen_settings(runs)["none"] == {"model.learning_rate": 0.4}
