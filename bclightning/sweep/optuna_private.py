"""The uses of Optuna that go beyond its public interface, each with the reason for it.

A trial whose worker was killed keeps its number, its parameters and its run folder, and is resumed.
Optuna's public way is to fail it and to repeat it as a new one (`optuna.storages.fail_stale_trials`
and `optuna.storages.RetryHeartbeatStaleTrialCallback`). So a trial is put back to *waiting* through
the storage, whose methods are in Optuna's reference, but are not meant for users. What is relied on
is tested in ``tests/sweep/test_optuna_private.py``, and Optuna's version has an upper bound.
"""

import optuna
from optuna.storages import RDBStorage
from optuna.trial import TrialState


def trial_id(storage: RDBStorage, study: optuna.Study, number: int) -> int:
    """The storage's key of a trial; publicly, trials only have a number within their study."""
    study_id = storage.get_study_id_from_name(study.study_name)
    return storage.get_trial_id_from_study_id_trial_number(study_id, number)


def record_heartbeat(storage: RDBStorage, trial: int) -> None:
    """Record that a trial's process is alive; publicly, only `optuna.Study.optimize` does that."""
    storage.record_heartbeat(trial)


def stale_trials(storage: RDBStorage, study: optuna.Study) -> list[int]:
    """Keys of the running trials without a recent heartbeat; publicly, they can only be failed."""
    return storage._get_stale_trial_ids(storage.get_study_id_from_name(study.study_name))


def requeue(storage: RDBStorage, trial: int) -> None:
    """Put a running trial back to waiting; publicly, a running trial can only be ended.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    storage.set_trial_state_values(trial, TrialState.WAITING)


def take(storage: RDBStorage, trial: int) -> None:
    """Let a certain trial be running; publicly, only the next waiting one can be asked for.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    storage.set_trial_state_values(trial, TrialState.RUNNING)
