"""A sweep's studies in an Optuna storage, as a queue that loses and repeats nothing.

Each arm has a study of trials and, once all of those have ended, one of final runs. A study is
filled with all its trials at once, *waiting*. A trial is claimed by the storage's own exchange of
*waiting* for *running*, which one claimant wins. A coordinator or worker that dies leaves its trial
running: it is put back to waiting, keeps its number, its parameters and its run folder, and is
resumed from its last checkpoint. So the number of trials is exact, whatever is killed and whenever.
"""

import contextlib
import functools
import itertools
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.seeds import derive_seed
from bclightning.sweep import optuna_private
from bclightning.sweep.definition import Choices, Definition, Range, changed_keys
from bclightning.sweep.liveness import Watch
from bclightning.sweep.monitor import Monitor
from bclightning.sweep.parameters import check_parameters
from bclightning.sweep.storages import damage_as_user_error, open_storage
from bclightning.vocabulary import VAL_ERROR

SweepStage = Literal["tune", "final"]

SEED = "seed_everything"

# A trial whose workers die this often without another epoch in between is taken for the cause.
MAX_WORKER_DEATHS = 8

# Attributes of a study: what tells this sweep from others of its name, and the name of that in
# storages of earlier versions.
_SWEEP_ID = "sweep_id"
_OLDER_SWEEP_ID = "token"

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

_DIRECTIONS = {"min": StudyDirection.MINIMIZE, "max": StudyDirection.MAXIMIZE}


@dataclass(frozen=True)
class ClaimedTrial:
    """A trial that this coordinator runs.

    Attributes:
        arm: The arm that the trial belongs to.
        stage: ``tune`` or ``final``.
        number: Number of the trial in its study.
        run_id: Name of the run and its folder.
        sweep_id: Tells the runs of this sweep from those of another one of the same name.
        options: Options of the run, by dotted name, apart from where runs lie.
        key: The storage's key of the trial.
        trial: Optuna's handle of the trial.
    """

    arm: str
    stage: SweepStage
    number: int
    run_id: str
    sweep_id: str
    options: dict[str, Any]
    key: int = field(repr=False)
    trial: optuna.Trial = field(repr=False)


def _patient(
    method: "Callable[Concatenate[Studies, Arguments], Result]",
) -> "Callable[Concatenate[Studies, Arguments], Result]":
    """Let a method wait where the storage does not answer; it is then begun again."""

    @functools.wraps(method)
    def call(self: "Studies", /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        return self.storage.patiently(functools.partial(method, self, *args, **kwargs))

    return call


class Studies:
    """The studies of a sweep.

    Args:
        definition: The sweep's definition.
        storage: URL of a PostgreSQL database or of a storage server, which any number of
            coordinators may share, or of an SQLite file, which one coordinator at a time may open.
        heartbeat: Seconds between a coordinator's signs of life. One whose signs have stopped for
            three times as long is taken for dead.
        create: Whether to make a storage that does not exist; a mere look does not.
        in_use: Whether a process on this machine trains the run of that name.

    Attributes:
        storage: The storage, open.

    Raises:
        UserError: The storage cannot be reached, or is in use, or cannot be read.
    """

    def __init__(
        self,
        definition: Definition,
        storage: str,
        heartbeat: int = 10,
        *,
        create: bool = True,
        in_use: Callable[[str], bool] = lambda run_id: False,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.definition = definition
        self.heartbeat = heartbeat
        self._in_use = in_use
        self._monitor: Monitor | None = None
        self._known: dict[str, optuna.Study] = {}
        # Keys of the trials that this process has.
        self._mine: set[int] = set()
        self._watch = Watch(heartbeat)
        self._name = secrets.token_hex(4)
        self._signs = itertools.count()
        self.storage = open_storage(storage, definition.name, create)
        try:
            self._check_content(create)
        except BaseException:
            self.storage.close()
            raise

    def close(self) -> None:
        """Let another coordinator have the storage."""
        self.storage.close()

    @property
    def monitor(self) -> Monitor:
        """The metric that trials are judged by: what the studies that are there were made with."""
        if self._monitor is None:
            studies = self.storage.patiently(self._all)
            if not studies:
                return Monitor()
            self._monitor = _monitor_of(studies[0])
        return self._monitor

    @_patient
    def prepare(
        self,
        recipe_text: str,
        monitor: Monitor | None = None,
        files: Mapping[str, str] | None = None,
    ) -> None:
        """Create the studies of trials that are missing, and requeue the trials of dead workers.

        Args:
            recipe_text: Content of the recipe, which must be that of the trials that are there.
            monitor: Metric that trials are judged by; the validation error if ``None``.
            files: Checksums of the files that the recipe and the definition name, by their paths.

        Raises:
            UserError: The studies were made by another definition.
        """
        self._monitor = monitor or Monitor()
        fingerprint = self.definition.fingerprint(recipe_text, files)
        with self.storage.lock() as check, damage_as_user_error(self.storage.shown):
            for arm in self.definition.arms:
                study = self._create(arm, "tune")
                self._compare(study, arm, fingerprint)
                missing = self.definition.trials - len(study.get_trials(deepcopy=False))
                for _ in range(missing):
                    check()
                    study.enqueue_trial({})
        self.advance()

    @_patient
    def advance(self) -> None:
        """Requeue the trials of dead processes, and begin the final runs of arms that are ready."""
        with self.storage.lock() as check:
            self._requeue_of_the_dead(check)
            for arm in self.definition.arms:
                if self._tuned(arm):
                    self._begin_final(arm, check)

    def _requeue_of_the_dead(self, check: Callable[[], None]) -> None:
        """Requeue what is running, is not ours, and is trained by nobody."""
        signs: dict[int, str] = {}
        runs: dict[int, str] = {}
        for arm, stage, study in self._each():
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                key = self._key(study, trial.number)
                if key not in self._mine:
                    # A claim is a sign too, at the very moment that it is won.
                    sign = optuna_private.sign_of_life(trial)
                    signs[key] = f"{sign} {trial.datetime_start}"
                    runs[key] = self.run_id(arm, stage, trial)
        silent = self._watch.look(signs)
        for key, run_id in runs.items():
            # A worker may live on without its coordinator's signs, where that one is frozen.
            if (self.storage.exclusive or key in silent) and not self._in_use(run_id):
                check()
                self._requeue(key)

    @_patient
    def beat(self) -> None:
        """Give a sign of life for each trial that this process has."""
        for key in list(self._mine):
            trial = self.storage.optuna.get_trial(key)
            with contextlib.suppress(UpdateFinishedTrialError):
                # While this process was frozen others have taken it for dead, perhaps.
                waits = trial.state == TrialState.WAITING
                if optuna_private.take(self.storage.optuna, key) if waits else self._has(trial):
                    self._give_sign(key)

    def _give_sign(self, key: int) -> None:
        sign = f"{self._name}-{next(self._signs)}"
        optuna_private.give_sign_of_life(self.storage.optuna, key, sign)

    def _has(self, trial: FrozenTrial) -> bool:
        """Whether the last sign of life of a trial is this process's."""
        return (optuna_private.sign_of_life(trial) or "").startswith(f"{self._name}-")

    @_patient
    def claim(self) -> ClaimedTrial | None:
        """Claim the next trial: of the arm that is least advanced, so that all advance together.

        Returns:
            The trial, or ``None`` if none is waiting now.
        """
        candidates = []
        for place, (arm, stage, study) in enumerate(self._each()):
            trials = study.get_trials(deepcopy=False)
            waiting = [trial.number for trial in trials if trial.state == TrialState.WAITING]
            if waiting:
                begun = 1 - len(waiting) / len(trials)
                candidates.append((stage != "tune", begun, place, arm, stage, waiting))
        # Tuning goes before final runs, which begin anyway only when an arm's tuning has ended.
        for _, _, _, arm, stage, waiting in sorted(candidates, key=lambda entry: entry[:3]):
            for number in waiting:
                claimed = self._claim(arm, stage, number)
                if claimed is not None:
                    return claimed
        return None

    def finish(self, claimed: ClaimedTrial, record: RunRecord) -> None:
        """Store how a trial ended, unless another coordinator has done so already."""
        if record.status == "pruned":
            # Its value is that of the last epoch, as is Optuna's custom.
            self._end(claimed, {"record": asdict(record)}, TrialState.PRUNED)
        else:
            self._end(claimed, {"record": asdict(record)}, TrialState.COMPLETE, record.best_score)

    def fail(self, claimed: ClaimedTrial, reason: str, record: RunRecord | None = None) -> None:
        """Store that a trial failed, unless another process has it now; it is not tried again.

        Args:
            claimed: The trial.
            reason: Why it failed, in a sentence.
            record: Record of its run, if there is one.
        """
        attributes: dict[str, Any] = {"reason": reason}
        if record is not None:
            attributes["record"] = asdict(replace(record, status="failed", reason=reason))
        self._end(claimed, attributes, TrialState.FAIL)

    @_patient
    def requeue(self, claimed: ClaimedTrial) -> None:
        """Let a claimed trial be claimed again."""
        with self.storage.lock():
            # Not where another process, which took this one for dead, has it now.
            if self._has(self.storage.optuna.get_trial(claimed.key)):
                self._requeue(claimed.key)
        self._mine.discard(claimed.key)

    def let_go(self, claimed: ClaimedTrial) -> None:
        """Leave a claimed trial to the process that trains its run.

        It is requeued when no process trains it any more.
        """
        self._mine.discard(claimed.key)

    @_patient
    def requeue_or_fail(
        self, claimed: ClaimedTrial, epoch: int, record: RunRecord | None = None
    ) -> str | None:
        """Let a trial whose worker died be claimed again, unless it seems to be the cause.

        Args:
            claimed: The trial.
            epoch: Last epoch that the worker completed, from 1; 0 for none.
            record: Record of its run, if there is one.

        Returns:
            The reason if the trial has failed instead: too many workers died of it without
            completing a further epoch. A trial that completes epochs is never given up.
        """
        deaths = claimed.trial.user_attrs.get("deaths", {})
        furthest, count = deaths.get("epoch", 0), deaths.get("count", 0)
        count = 1 if epoch > furthest else count + 1
        if count >= MAX_WORKER_DEATHS:
            reason = f"its worker died {count} times in one epoch, perhaps for lack of memory"
            self.fail(claimed, reason, record)
            return reason
        deaths = {"epoch": max(epoch, furthest), "count": count}
        with contextlib.suppress(UpdateFinishedTrialError):
            self.storage.optuna.set_trial_user_attr(claimed.key, "deaths", deaths)
        self.requeue(claimed)
        return None

    @_patient
    def report(self, claimed: ClaimedTrial, epoch: int, value: float) -> bool:
        """Store the monitored metric of an epoch.

        Returns:
            Whether the trial should be pruned.
        """
        study = self._study(claimed.arm, claimed.stage)
        if study is None:
            return False
        with contextlib.suppress(UpdateFinishedTrialError):
            reported = study.get_trials(deepcopy=False)[claimed.number].intermediate_values
            # A resumed trial repeats the epoch that was not in its last checkpoint.
            if epoch not in reported:
                claimed.trial.report(value, epoch)
            return bool(claimed.trial.should_prune())
        # Another coordinator ended it meanwhile.
        return False

    @_patient
    def finished(self) -> bool:
        """Whether all trials and final runs have ended, here and elsewhere."""
        for arm in self.definition.arms:
            studies = dict(self._studies_of(arm))
            if "tune" not in studies or (self._tuned(arm) and self._final_missing(arm)):
                return False
            for study in studies.values():
                open_ = (TrialState.WAITING, TrialState.RUNNING)
                if study.get_trials(deepcopy=False, states=open_):
                    return False
        return True

    @_patient
    def trials(self, arm: str, stage: SweepStage) -> list[FrozenTrial]:
        """The trials or the final runs of an arm; none if there is no such study yet."""
        study = self._study(arm, stage)
        return [] if study is None else study.get_trials(deepcopy=False)

    def records(self) -> list[RunRecord]:
        """The records of all trials and final runs that ended, wherever they ran."""
        stages: tuple[SweepStage, ...] = ("tune", "final")
        return [
            RunRecord.parse(trial.user_attrs["record"])
            for arm in self.definition.arms
            for stage in stages
            for trial in self.trials(arm, stage)
            if trial.state.is_finished() and "record" in trial.user_attrs
        ]

    def _check_content(self, create: bool) -> None:
        """Read everything once, so that what cannot be read is said before anything starts."""

        def read() -> None:
            with damage_as_user_error(self.storage.shown):
                for study in self._all():
                    _check_study(study)

        self.storage.patiently(read)
        if not create and not self._all():
            raise UserError(
                f"the sweep {self.definition.name} has not started: {self.storage.shown} holds "
                "nothing of it"
            )

    def _all(self) -> list[optuna.Study]:
        return [study for _, _, study in self._each()]

    def _each(self) -> Iterator[tuple[str, SweepStage, optuna.Study]]:
        for arm in self.definition.arms:
            for stage, study in self._studies_of(arm):
                yield arm, stage, study

    def _studies_of(self, arm: str) -> list[tuple[SweepStage, optuna.Study]]:
        stages: tuple[SweepStage, ...] = ("tune", "final")
        found = [(stage, self._study(arm, stage)) for stage in stages]
        return [(stage, study) for stage, study in found if study is not None]

    def _study_name(self, arm: str, stage: SweepStage) -> str:
        return f"{self.definition.name}-{arm}-{stage}"

    def _study(self, arm: str, stage: SweepStage) -> optuna.Study | None:
        name = self._study_name(arm, stage)
        if name not in self._known:
            try:
                self._known[name] = optuna.load_study(
                    study_name=name,
                    storage=self.storage.optuna,
                    pruner=_pruner(self.definition),
                )
            except KeyError:
                return None
        return self._known[name]

    def _create(self, arm: str, stage: SweepStage) -> optuna.Study:
        study = optuna.create_study(
            study_name=self._study_name(arm, stage),
            storage=self.storage.optuna,
            direction=_DIRECTIONS[self.monitor.mode],
            load_if_exists=True,
        )
        if _sweep_id(study) is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names([self.monitor.metric])
            # A letter first: YAML reads 12e4 as a number.
            study.set_user_attr(_SWEEP_ID, f"k{secrets.token_hex(2)}")
        return study

    def _compare(self, study: optuna.Study, arm: str, fingerprint: dict[str, Any]) -> None:
        stored = study.user_attrs.get("definition")
        if stored is None:
            study.set_user_attr("definition", fingerprint)
            return
        changed = changed_keys(stored, fingerprint)
        if _monitor_of(study) != self.monitor:
            changed.append("monitor")
        trials = len(study.get_trials(deepcopy=False))
        if trials > self.definition.trials:
            changed.append("trials")
        elif trials < self.definition.trials and self._study(arm, "final") is not None:
            changed.append("trials (final runs have begun)")
        if changed:
            raise UserError(
                f"there is already a sweep named {self.definition.name} with a different "
                f"{', '.join(changed)}; give this one another name, or restore what that one was "
                "begun with: its folder holds it as sweep.yaml and recipe.yaml"
            )

    def _requeue(self, key: int) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):
            optuna_private.requeue(self.storage.optuna, key)

    def _key(self, study: optuna.Study, number: int) -> int:
        return optuna_private.trial_id(self.storage.optuna, study, number)

    def run_id(self, arm: str, stage: SweepStage, trial: FrozenTrial) -> str:
        """The name of a trial's run."""
        name = f"{self.definition.name}-{arm}"
        if stage == "final":
            return f"{name}-s{_seed_of(trial)}"
        return f"{name}-t{trial.number:03}"

    def _claim(self, arm: str, stage: SweepStage, number: int) -> ClaimedTrial | None:
        """Claim a certain waiting trial; ``None`` if another process was faster."""
        definition = self.definition
        # A handle of its own, since Optuna keeps what it has read for one trial with it.
        study = optuna.load_study(
            study_name=self._study_name(arm, stage),
            storage=self.storage.optuna,
            # What is drawn is a function of the trial's number and of the trials that have ended by
            # then. With one worker a resumed sweep so draws what it would have drawn; with several,
            # chance decides which have ended, but not for the first ten draws, which are random.
            sampler=optuna.samplers.TPESampler(seed=derive_seed(definition.seed, number)),
            pruner=_pruner(definition),
        )
        key = self._key(study, number)
        trial = optuna_private.claim(self.storage.optuna, study, key, self._distributions(stage))
        if trial is None:
            return None
        self._give_sign(key)
        options = self._options(arm, stage, number, study)
        # Last, for where the storage fails before, the trial is nobody's, and is requeued as such.
        self._mine.add(key)
        run_id, sweep_id = options["run_id"], options["purpose.sweep_id"]
        return ClaimedTrial(arm, stage, number, run_id, sweep_id, options, key, trial)

    def _options(
        self, arm: str, stage: SweepStage, number: int, study: optuna.Study
    ) -> dict[str, Any]:
        """The options of a claimed trial's run."""
        definition = self.definition
        # As stored, so that a resumed trial has the very numbers, of the very types.
        frozen = study.get_trials(deepcopy=False)[number]
        check_parameters(definition, frozen.params, SEED)
        return {
            **definition.overrides,
            **definition.arms[arm],
            **({} if stage == "final" else {SEED: definition.seed}),
            **frozen.params,
            "purpose.stage": stage,
            "purpose.arm": arm,
            "purpose.trial": number,
            "purpose.sweep_id": _sweep_id(study) or "",
            "experiment": definition.name,
            "run_id": self.run_id(arm, stage, frozen),
        }

    @_patient
    def _end(
        self,
        claimed: ClaimedTrial,
        attributes: dict[str, Any],
        state: TrialState,
        value: float | None = None,
    ) -> None:
        study = self._study(claimed.arm, claimed.stage)
        if study is None:
            return
        with self.storage.lock(), contextlib.suppress(UpdateFinishedTrialError):
            # A run that has ended well counts, whoever has the trial now. One that failed does not,
            # where a coordinator that took this one for dead has it.
            trial = self.storage.optuna.get_trial(claimed.key)
            if state != TrialState.FAIL or self._has(trial):
                # It has been put back to waiting, perhaps.
                optuna_private.take(self.storage.optuna, claimed.key)
                for name, content in attributes.items():
                    self.storage.optuna.set_trial_user_attr(claimed.key, name, content)
                study.tell(claimed.number, value, state)
        self._mine.discard(claimed.key)

    def _distributions(self, stage: SweepStage) -> dict[str, BaseDistribution]:
        distributions = {key: _distribution(spec) for key, spec in self.definition.space.items()}
        if stage == "final":
            distributions[SEED] = IntDistribution(0, 2**31 - 1)
        return distributions

    def _tuned(self, arm: str) -> bool:
        study = self._study(arm, "tune")
        if study is None:
            return False
        trials = study.get_trials(deepcopy=False)
        ended = len(trials) >= self.definition.trials and all(t.state.is_finished() for t in trials)
        return ended and (self.best(arm) is not None or not self.definition.space)

    def best(self, arm: str) -> dict[str, Any] | None:
        """The parameters of an arm's best trial, the first of equals; ``None`` without a trial."""
        done = [
            (self.monitor.cost(trial.value), trial.number, trial.params)
            for trial in self.trials(arm, "tune")
            if trial.state == TrialState.COMPLETE and trial.value is not None
        ]
        return min(done)[2] if done else None

    def _final_missing(self, arm: str) -> int:
        return self.definition.final_seeds - len(self.trials(arm, "final"))

    def _begin_final(self, arm: str, check: Callable[[], None]) -> None:
        if self._final_missing(arm) <= 0:
            return
        study = self._create(arm, "final")
        for _ in range(self._final_missing(arm)):
            place = len(study.get_trials(deepcopy=False))
            seed = self.definition.seed + 1 + place
            check()
            study.enqueue_trial({**(self.best(arm) or {}), SEED: seed})


def _check_study(study: optuna.Study) -> None:
    """Read all that a sweep reads of a study.

    Raises:
        Exception: Something is not as it is written.
    """
    _monitor_of(study)
    changed_keys(dict(study.user_attrs.get("definition") or {}), {})
    if not isinstance(_sweep_id(study) or "", str):
        raise TypeError("the sweep's id is no text")
    for number, trial in enumerate(study.get_trials(deepcopy=False)):
        attributes = trial.user_attrs
        if trial.number != number:
            raise ValueError(f"the trials of {study.study_name} are not numbered from 0")
        if trial.state == TrialState.COMPLETE and trial.value is None:
            raise ValueError(f"trial {number} of {study.study_name} has ended without a value")
        for parameter, distribution in trial.distributions.items():
            distribution.to_internal_repr(trial.params[parameter])
        if trial.state.is_finished() and "record" in attributes:
            RunRecord.parse(attributes["record"])
        deaths = attributes.get("deaths", {})
        if not all(isinstance(deaths.get(key, 0), int) for key in ("epoch", "count")):
            raise TypeError(f"trial {number} of {study.study_name} has a count that is none")


def _seed_of(trial: FrozenTrial) -> Any:
    """The seed of a final run, which is drawn when it is first claimed."""
    fixed: dict[str, Any] = trial.system_attrs.get("fixed_params", {})
    return trial.params.get(SEED, fixed.get(SEED))


def _distribution(spec: Range | Choices) -> BaseDistribution:
    if isinstance(spec, Choices):
        return CategoricalDistribution(spec.choices)
    if isinstance(spec.low, int) and isinstance(spec.high, int):
        return IntDistribution(spec.low, spec.high, spec.log, int(spec.step or 1))
    return FloatDistribution(spec.low, spec.high, spec.log, spec.step)


def _pruner(definition: Definition) -> optuna.pruners.BasePruner:
    warmup = definition.pruner.warmup_epochs
    match definition.pruner.name:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return optuna.pruners.MedianPruner(n_warmup_steps=warmup)
        case "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, warmup))


def _sweep_id(study: optuna.Study) -> str | None:
    attributes = study.user_attrs
    return attributes.get(_SWEEP_ID) or attributes.get(_OLDER_SWEEP_ID)


def _monitor_of(study: optuna.Study) -> Monitor:
    # Studies of earlier versions have no names of metrics, and minimize the validation error.
    (metric,) = study.metric_names or [VAL_ERROR]
    return Monitor(metric, "max" if study.direction == StudyDirection.MAXIMIZE else "min")
