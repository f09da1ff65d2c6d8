"""The queue of trials: what is drawn for each, against Optuna's own way of asking."""

import contextlib
import math
import threading
from dataclasses import replace

import optuna
import pytest
from optuna.trial import TrialState

from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.seeds import derive_seed
from bclightning.sweep.definition import Definition
from bclightning.sweep.monitor import Monitor
from bclightning.sweep.studies import MAX_WORKER_DEATHS, ClaimedTrial, Studies
from bclightning.sweep.view import progress, table

TRIALS = 24

SWEEP = Definition.parse(
    {
        "recipe": "digits.yaml",
        "arms": ["none"],
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1.0, "log": True}},
        "trials": TRIALS,
        "final_seeds": 0,
        "seed": 3,
    },
    "drawn",
)


def rate_of(claimed: ClaimedTrial) -> float:
    return claimed.options["model.learning_rate"]


def error_at(rate: float) -> float:
    """Least at a rate of a hundredth, and two points more a decade away."""
    return 1 + 2 * abs(math.log10(rate) + 2)


def end(studies: Studies, claimed: ClaimedTrial, score: float | None = None) -> None:
    record = RunRecord(claimed.run_id, SWEEP.name, "none", "digits", 0, status="finished")
    record.best_score = error_at(rate_of(claimed)) if score is None else score
    studies.finish(claimed, record)


@contextlib.contextmanager
def opened(definition: Definition, storage: str, monitor: Monitor | None = None):
    studies = Studies(definition, storage)
    try:
        studies.prepare("a recipe", monitor)
        yield studies
    finally:
        studies.close()


@pytest.fixture
def storage(tmp_path):
    return f"sqlite:///{tmp_path / 'storage.db'}"


def drawn(storage: str, trials: int) -> list[float]:
    """The rates of the next trials, each judged before the next is drawn."""
    rates = []
    with opened(SWEEP, storage) as studies:
        for _ in range(trials):
            claimed = studies.claim()
            rates.append(rate_of(claimed))
            end(studies, claimed)
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


def test_final_runs_have_the_best_setting_and_seeds_of_their_own(storage):
    with opened(replace(SWEEP, trials=3, final_seeds=2), storage) as studies:
        rates = []
        for _ in range(3):
            claimed = studies.claim()
            rates.append(rate_of(claimed))
            end(studies, claimed)
        studies.advance()
        final = [studies.claim() for _ in range(2)]
        assert [rate_of(claimed) for claimed in final] == [min(rates, key=error_at)] * 2
        assert [claimed.run_id for claimed in final] == ["drawn-none-s4", "drawn-none-s5"]
        assert [claimed.options["purpose.stage"] for claimed in final] == ["final"] * 2
        assert studies.claim() is None


def test_options_have_the_types_of_the_definition_also_when_a_trial_is_resumed(storage):
    space = {
        "a.float": {"low": 1e-3, "high": 1e-2, "log": True},
        "a.int": {"low": 1, "high": 9},
        "a.choice": {"choices": [None, "12e4", True, 7, 0.5]},
    }
    content = {"recipe": "digits.yaml", "arms": ["none"], "space": space, "trials": 12}
    overrides = {"b.list": [1, 2], "b.text": "1", "b.none": None}
    definition = Definition.parse({**content, "overrides": overrides}, "typed")
    with opened(definition, storage) as studies:
        claimed = [studies.claim() for _ in range(12)]
    assert {type(trial.options["a.float"]) for trial in claimed} == {float}
    assert {type(trial.options["a.int"]) for trial in claimed} == {int}
    assert {repr(t.options["a.choice"]) for t in claimed} >= {"None", "'12e4'", "True", "0.5"}
    for trial in claimed:
        assert overrides.items() <= trial.options.items()
        assert trial.options["seed_everything"] == 0
    with opened(definition, storage) as studies:
        assert [studies.claim().options for _ in range(12)] == [t.options for t in claimed]


def test_a_metric_may_be_maximized(storage):
    """What is drawn, what is best and what is shown, against a study of Optuna's own."""
    accuracy = Monitor("val/acc", "max")
    definition = replace(SWEEP, trials=16, final_seeds=1)
    study = optuna.create_study(direction="maximize")
    expected = []
    for number in range(16):
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(SWEEP.seed, number))
        trial = study.ask()
        expected.append(trial.suggest_float("model.learning_rate", 1e-4, 1.0, log=True))
        study.tell(trial, -error_at(expected[-1]))
    rates = []
    for _ in range(2):
        with opened(definition, storage, accuracy) as studies:
            for _ in range(8):
                claimed = studies.claim()
                rates.append(rate_of(claimed))
                end(studies, claimed, -error_at(rates[-1]))
    assert rates == expected
    with opened(definition, storage, accuracy) as studies:
        assert rate_of(studies.claim()) == study.best_params["model.learning_rate"]
        (arm,) = progress(studies)
        assert arm.best == study.best_value
        with pytest.raises(UserError, match="a different monitor"):
            studies.prepare("a recipe", Monitor("val/error", "min"))
    # Who looks at it finds in the storage what is monitored.
    studies = Studies(definition, storage)
    try:
        assert studies.monitor == accuracy
        columns = table("drawn", [arm], studies.monitor).columns
        headings = [str(column.header) for column in columns]
        assert headings == ["arm", "trials", "active", "best val/acc", "chosen", "final"]
    finally:
        studies.close()
    (kept,) = optuna.load_study(study_name="drawn-none-tune", storage=storage).metric_names
    assert kept == "val/acc"


@pytest.mark.parametrize("mode", ["min", "max"])
def test_pruning_stops_what_does_worse_than_others(storage, mode):
    pruned = Definition.parse({**SWEEP.plain(), "pruner": {"name": "median"}}, "drawn")
    with opened(pruned, storage, Monitor("val/score", mode)) as studies:
        for score in (1.0, 2.0, 3.0, 4.0, 5.0):
            claimed = studies.claim()
            assert not any(studies.report(claimed, epoch, score) for epoch in (1, 2))
            end(studies, claimed, score)
        low, high = studies.claim(), studies.claim()
        stopped = [studies.report(low, 1, 1.5), studies.report(high, 1, 4.5)]
        assert stopped == [mode == "max", mode == "min"]
        record = RunRecord(low.run_id, "drawn", "none", "digits", 0, status="pruned")
        studies.finish(low, replace(record, best_score=1.2))
        trial = studies.trials("none", "tune")[5]
        assert (trial.state, trial.value) == (TrialState.PRUNED, 1.5)
        assert trial.user_attrs["record"]["best_score"] == 1.2


def test_an_epoch_that_a_resumed_trial_repeats_is_reported_once(storage):
    with opened(SWEEP, storage) as studies:
        claimed = studies.claim()
        studies.report(claimed, 1, 5.0)
        studies.requeue(claimed)
        again = studies.claim()
        assert (again.number, again.options) == (claimed.number, claimed.options)
        studies.report(again, 1, 6.0)
        assert studies.trials("none", "tune")[0].intermediate_values == {1: 5.0}


def test_a_run_that_ends_after_its_trial_was_given_back_counts(storage):
    """As where a machine was suspended, and taken for dead by another one."""
    with opened(SWEEP, storage) as studies:
        claimed = studies.claim()
        studies.requeue(claimed)
        end(studies, claimed)
        first = studies.trials("none", "tune")[0]
        assert (first.state, first.number) == (TrialState.COMPLETE, 0)
        # Whoever else ran it meanwhile changes nothing.
        end(studies, claimed, 0.0)
        studies.fail(claimed, "too late")
        studies.requeue(claimed)
        assert not studies.report(claimed, 1, 0.0)
        last = studies.trials("none", "tune")[0]
        assert (last.state, last.value, last.user_attrs) == (
            TrialState.COMPLETE,
            first.value,
            first.user_attrs,
        )
        assert studies.claim().number == 1


def test_a_trial_is_given_up_when_its_workers_die_of_it(storage):
    with opened(replace(SWEEP, trials=1), storage) as studies:
        for epoch in (1, 2, *[2] * (MAX_WORKER_DEATHS - 2)):
            assert studies.requeue_or_fail(studies.claim(), epoch) is None
        claimed = studies.claim()
        record = RunRecord(claimed.run_id, "drawn", "none", "digits", 0)
        reason = studies.requeue_or_fail(claimed, 0, record)
        assert reason == "its worker died 8 times in one epoch, perhaps for lack of memory"
        (failed,) = studies.records()
        assert (failed.run_id, failed.status, failed.reason) == (claimed.run_id, "failed", reason)
        (arm,) = progress(studies)
        assert arm.reasons == {"none trial 0": reason}
        assert studies.finished()


def test_a_storage_that_cannot_be_used_is_let_go(tmp_path, storage):
    path = tmp_path / "storage.db"
    path.write_bytes(b"this is no database at all, but a text")
    with pytest.raises(UserError, match="is damaged") as error:
        Studies(SWEEP, storage)
    path.unlink()
    # In a notebook the error, and all that its traceback holds, lives on.
    assert error.tb is not None
    with opened(SWEEP, storage) as studies:
        assert studies.claim() is not None


# What the version before arms had a name of their own stored with a study.
OLDER = {
    "recipe": "5aff6649d4648da2",
    "methods": {
        "none": {"model.network.regularizer": "none"},
        "stochastic": {"model.network.regularizer": "stochastic"},
    },
    "space": {
        "model.learning_rate": {"low": 0.001, "high": 0.01, "log": True},
        "data.batch_size": {"choices": [20, 50]},
    },
    "overrides": {"trainer.max_epochs": 3},
    "seed": 0,
    "pruner": {"name": "none", "warmup_epochs": 1},
}


def test_a_sweep_that_an_older_version_began_is_resumed(storage):
    for arm in ("none", "stochastic"):
        study = optuna.create_study(study_name=f"old-{arm}-tune", storage=storage)
        study.set_user_attr("token", f"k{arm[0]}")
        study.set_user_attr("definition", OLDER)
        for _ in range(2):
            study.enqueue_trial({})
    kept = {key: OLDER[key] for key in ("space", "overrides", "seed", "pruner")}
    content = {"recipe": "digits.yaml", "methods": ["none", "stochastic"], **kept, "trials": 2}
    definition = Definition.parse(content, "old")
    with opened(definition, storage) as studies:
        claimed = [studies.claim() for _ in range(4)]
        assert studies.claim() is None
        assert studies.monitor == Monitor("val/error", "min")
        assert {c.run_id: c.sweep_id for c in claimed} == {
            "old-none-t000": "kn",
            "old-none-t001": "kn",
            "old-stochastic-t000": "ks",
            "old-stochastic-t001": "ks",
        }
    changed = Definition.parse({**content, "methods": ["none", "dropout"]}, "old")
    with pytest.raises(UserError, match="a different arms"), opened(changed, storage):
        pass


def shared_out(definition: Definition, url: str) -> list[int]:
    """The numbers of the trials that four coordinators claim at once."""
    found = [[] for _ in range(4)]

    def claim(mine):
        requeued = False
        with opened(definition, url) as studies:
            while (claimed := studies.claim()) is not None:
                if len(mine) == 2 and not requeued:
                    # Back in the queue once, in front of those that wait.
                    studies.requeue(claimed)
                    requeued = True
                else:
                    mine.append(claimed.number)

    threads = [threading.Thread(target=claim, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(number for mine in found for number in mine)


@pytest.mark.slow
# In threads, filters of warnings are not put back in order.
@pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat of storage"
)
def test_coordinators_that_claim_at_once_share_the_trials_out(postgresql):
    """Optuna's `ask` would add a trial wherever the last one was claimed by another meanwhile."""
    definition = replace(SWEEP, name="shared", trials=40)
    assert shared_out(definition, postgresql) == list(range(40))
