"""The uses of Optuna that go beyond its public interface, each with the reason for it.

A trial whose worker was killed keeps its number, its parameters and its run folder, and is resumed.
Optuna's public way is to fail it and to repeat it as a new one (`optuna.storages.fail_stale_trials`
and `optuna.storages.RetryHeartbeatStaleTrialCallback`). So a trial is put back to *waiting* through
the storage, whose methods are in Optuna's reference, but are not meant for users. What is relied on
is tested in ``tests/sweep/test_optuna_private.py``, and Optuna's version has an upper bound.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_SIGN_OF_LIFE = "bclightning:sign_of_life"


def trial_id(storage: BaseStorage, study: optuna.Study, number: int) -> int:
    """The storage's key of a trial; publicly, trials only have a number within their study."""
    study_id = storage.get_study_id_from_name(study.study_name)
    return storage.get_trial_id_from_study_id_trial_number(study_id, number)


def give_sign_of_life(storage: BaseStorage, trial: int, sign: str) -> None:
    """Store a sign that a trial's process is alive, which differs from the one before.

    Publicly, only `optuna.Study.optimize` does that, in some storages, with the time of day.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    storage.set_trial_system_attr(trial, _SIGN_OF_LIFE, sign)


def sign_of_life(trial: FrozenTrial) -> str | None:
    """The last sign that a trial's process was alive."""
    sign = trial.system_attrs.get(_SIGN_OF_LIFE)
    return sign if isinstance(sign, str) else None


def claim(
    storage: BaseStorage,
    study: optuna.Study,
    trial: int,
    distributions: Mapping[str, BaseDistribution],
) -> optuna.Trial | None:
    """Let a certain waiting trial be running, and draw its parameters.

    Publicly, `optuna.Study.ask` takes the next waiting trial, and adds one where none waits.

    Returns:
        The trial; ``None`` if another process was faster.
    """
    try:
        if not storage.set_trial_state_values(trial, TrialState.RUNNING):
            return None
    except UpdateFinishedTrialError:
        return None
    claimed = optuna.Trial(study, trial)
    for name, distribution in distributions.items():
        _suggest(claimed, name, distribution)
    return claimed


def _suggest(trial: optuna.Trial, name: str, distribution: BaseDistribution) -> None:
    match distribution:
        case CategoricalDistribution(choices=choices):
            trial.suggest_categorical(name, choices)
        case IntDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_int(name, low, high, step=step, log=log)
        case FloatDistribution(low=low, high=high, step=step, log=log):
            trial.suggest_float(name, low, high, step=step, log=log)


def serve_storage(storage: Any, server: Any) -> None:
    """Let a gRPC server serve a storage.

    The public function makes a server of its own, which shares its port with whatever else listens
    there, starts it, and never returns.
    """
    from optuna.storages._grpc.auto_generated import api_pb2_grpc
    from optuna.storages._grpc.servicer import OptunaStorageProxyService

    service = OptunaStorageProxyService(storage)
    add: Any = api_pb2_grpc.add_StorageServiceServicer_to_server
    add(service, server)


def without_warning(make: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Use what Optuna calls experimental; the tests of the sweep hold it to what is relied on."""

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return make(*args, **kwargs)

    return call


def requeue(storage: BaseStorage, trial: int) -> None:
    """Put a running trial back to waiting; publicly, a running trial can only be ended.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    storage.set_trial_state_values(trial, TrialState.WAITING)


def take(storage: BaseStorage, trial: int) -> bool:
    """Let a certain trial be running; publicly, only the next waiting one can be asked for.

    Returns:
        Whether it was waiting.

    Raises:
        UpdateFinishedTrialError: The trial has ended.
    """
    return storage.set_trial_state_values(trial, TrialState.RUNNING)
