"""What is relied on of Optuna beyond its public interface, and why the public one does not do."""

import time

import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from bclightning.sweep import optuna_private

RATE = {"rate": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True)}

pytestmark = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning", "ignore:Heartbeat of storage"
)


@pytest.fixture
def storage(tmp_path):
    url = f"sqlite:///{tmp_path / 'storage.db'}"
    storage = RDBStorage(url, heartbeat_interval=1, grace_period=1)
    yield storage
    storage.remove_session()
    storage.engine.dispose()


@pytest.fixture
def study(storage):
    """A study of three trials that wait; the first and the third have a name each."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(study_name="three", storage=storage, sampler=sampler)
    for name in ("a", "b", "c"):
        study.enqueue_trial({}, user_attrs={"name": name})
    return study


def key_of(storage, study, number):
    return optuna_private.trial_id(storage, study, number)


def test_a_key_is_that_of_the_trial_with_the_number(storage, study):
    other = optuna.create_study(study_name="other", storage=storage)
    other.enqueue_trial({})
    names = [storage.get_trial(key_of(storage, study, n)).user_attrs["name"] for n in range(3)]
    assert names == ["a", "b", "c"]
    assert storage.get_trial(key_of(storage, other, 0)).user_attrs == {}


def test_ask_claims_the_first_that_waits_and_adds_one_where_none_does(storage, study):
    """The second is why a claim does not ask."""
    assert [study.ask(RATE).number for _ in range(3)] == [0, 1, 2]
    optuna_private.requeue(storage, key_of(storage, study, 1))
    assert study.ask(RATE).number == 1
    assert study.ask(RATE).number == 3


def test_a_requeued_trial_keeps_what_it_has(storage, study):
    trial = study.ask(RATE)
    trial.set_user_attr("deaths", 1)
    trial.report(0.5, 1)
    optuna_private.requeue(storage, key_of(storage, study, trial.number))
    waiting = study.get_trials()[0]
    assert waiting.state == TrialState.WAITING
    study.sampler = optuna.samplers.RandomSampler(seed=1)
    again = study.ask(RATE)
    assert (again.number, again.params) == (trial.number, trial.params)
    assert again.user_attrs == {"name": "a", "deaths": 1}
    assert study.get_trials()[0].intermediate_values == {1: 0.5}
    assert len(study.get_trials()) == 3


def test_a_trial_that_waits_is_taken_and_one_that_runs_stays_as_it_is(storage, study):
    trial = study.ask(RATE)
    key = key_of(storage, study, trial.number)
    started = storage.get_trial(key).datetime_start
    assert not optuna_private.take(storage, key)
    assert storage.get_trial(key).datetime_start == started
    optuna_private.requeue(storage, key)
    with pytest.raises(ValueError, match="Cannot tell a WAITING trial"):
        study.tell(trial, 1.0)
    assert optuna_private.take(storage, key)
    study.tell(trial, 1.0)
    assert study.get_trials()[0].state == TrialState.COMPLETE


@pytest.mark.parametrize("change", [optuna_private.requeue, optuna_private.take])
def test_a_trial_that_has_ended_is_not_changed(storage, study, change):
    trial = study.ask(RATE)
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        change(storage, key_of(storage, study, trial.number))
    assert study.get_trials()[0].value == 1.0


def test_a_sign_of_life_is_read_by_whoever_looks_and_changes_nothing_else(storage, study):
    trial = study.ask(RATE)
    key = key_of(storage, study, 0)
    elsewhere = optuna.load_study(study_name="three", storage=storage)
    assert [optuna_private.sign_of_life(t) for t in elsewhere.get_trials()] == [None] * 3
    for sign in ("a-0", "a-1"):
        optuna_private.give_sign_of_life(storage, key, sign)
        assert optuna_private.sign_of_life(elsewhere.get_trials()[0]) == sign
    study.tell(trial, 1.0)
    with pytest.raises(UpdateFinishedTrialError):
        optuna_private.give_sign_of_life(storage, key, "a-2")
    assert elsewhere.get_trials()[0].user_attrs == {"name": "a"}


def test_a_claim_is_won_once_and_draws_what_ask_draws(storage, study):
    other = optuna.load_study(
        study_name="three", storage=storage, sampler=optuna.samplers.TPESampler(seed=5)
    )
    space = {
        **RATE,
        "units": optuna.distributions.IntDistribution(2, 8, step=2),
        "name": optuna.distributions.CategoricalDistribution(("x", None, 3)),
    }
    keys = [key_of(storage, study, number) for number in range(3)]
    claimed = optuna_private.claim(storage, other, keys[1], space)
    assert optuna_private.claim(storage, study, keys[1], space) is None
    assert study.get_trials()[1].params == claimed.params
    alone = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=5))
    assert alone.ask(space).params == claimed.params
    study.tell(claimed, 1.0)
    assert optuna_private.claim(storage, study, keys[1], space) is None
    # The first, which waits, is as it was, and none was added.
    assert [t.state.name for t in study.get_trials()] == ["WAITING", "COMPLETE", "WAITING"]


def test_optuna_repeats_a_stale_trial_as_another_one(tmp_path):
    """Why its public way is not ours: the trial fails, and the next has another number."""
    storage = RDBStorage(
        f"sqlite:///{tmp_path / 'public.db'}",
        heartbeat_interval=1,
        grace_period=1,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(),
    )
    study = optuna.create_study(study_name="public", storage=storage)
    study.ask(RATE)
    storage.record_heartbeat(key_of(storage, study, 0))
    deadline = time.monotonic() + 10
    while study.get_trials()[0].state == TrialState.RUNNING:
        assert time.monotonic() < deadline
        time.sleep(0.1)
        optuna.storages.fail_stale_trials(study)
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.FAIL, TrialState.WAITING]
    storage.remove_session()
    storage.engine.dispose()
