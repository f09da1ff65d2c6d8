"""The queue of trials: what is drawn for each, against Optuna's own way of asking."""

import math
from dataclasses import replace

import optuna

from bclightning.runs.record import RunRecord
from bclightning.seeds import derive_seed
from bclightning.sweep.definition import Definition
from bclightning.sweep.studies import Studies, Ticket

TRIALS = 24

SWEEP = Definition.parse(
    {
        "recipe": "digits.yaml",
        "methods": ["none"],
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1.0, "log": True}},
        "trials": TRIALS,
        "final_seeds": 0,
        "seed": 3,
    },
    "drawn",
)


def rate_of(ticket: Ticket) -> float:
    (rate,) = [a.partition("=")[2] for a in ticket.arguments if "learning_rate" in a]
    return float(rate)


def error_at(rate: float) -> float:
    """Least at a rate of a hundredth, and two points more a decade away."""
    return 1 + 2 * abs(math.log10(rate) + 2)


def end(studies: Studies, ticket: Ticket) -> None:
    record = RunRecord(ticket.run_id, SWEEP.name, "none", "digits", 0, status="finished")
    record.best_score = error_at(rate_of(ticket))
    studies.finish(ticket, record)


def drawn(storage: str, trials: int) -> list[float]:
    """The rates of the next trials, each judged before the next is drawn."""
    studies = Studies(SWEEP, storage)
    rates = []
    try:
        studies.prepare("a recipe")
        for _ in range(trials):
            ticket = studies.claim()
            rates.append(rate_of(ticket))
            end(studies, ticket)
    finally:
        studies.close()
    return rates


def test_what_was_judged_decides_what_is_drawn_next(tmp_path):
    """Trial by trial what Optuna's study draws, whether or not the sweep is stopped in between."""
    study = optuna.create_study()
    expected = []
    for number in range(TRIALS):
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(SWEEP.seed, number))
        trial = study.ask()
        expected.append(trial.suggest_float("model.learning_rate", 1e-4, 1.0, log=True))
        study.tell(trial, error_at(expected[-1]))
    assert drawn(f"sqlite:///{tmp_path / 'whole.db'}", TRIALS) == expected
    halves = [drawn(f"sqlite:///{tmp_path / 'halves.db'}", TRIALS // 2) for _ in range(2)]
    assert [rate for half in halves for rate in half] == expected
    # The sampler looks around with its first ten, and then near the best.
    blind = [error_at(rate) for rate in expected[:10]]
    informed = [error_at(rate) for rate in expected[10:]]
    assert sum(informed) / len(informed) < 0.6 * sum(blind) / len(blind)


def test_final_runs_have_the_best_setting_and_seeds_of_their_own(tmp_path):
    studies = Studies(replace(SWEEP, trials=3, final_seeds=2), f"sqlite:///{tmp_path / 'final.db'}")
    try:
        studies.prepare("a recipe")
        rates = []
        for _ in range(3):
            ticket = studies.claim()
            rates.append(rate_of(ticket))
            end(studies, ticket)
        studies.advance()
        final = [studies.claim() for _ in range(2)]
        assert [rate_of(ticket) for ticket in final] == [min(rates, key=error_at)] * 2
        assert [ticket.run_id for ticket in final] == ["drawn-none-s4", "drawn-none-s5"]
        assert studies.claim() is None
    finally:
        studies.close()
