"""A sweep's studies in an Optuna storage, as a queue that loses and repeats nothing.

Each arm has a study of trials and, once all of those have ended, one of final runs. A study is
filled with all its trials at once, *waiting*. A trial is claimed by the storage's own exchange of
*waiting* for *running*, which one claimant wins. A coordinator or worker that dies leaves its trial
running: it is put back to waiting, keeps its number, its parameters and its run folder, and is
resumed from its last checkpoint. So the number of trials is exact, whatever is killed and whenever.
"""

import contextlib
import hashlib
import secrets
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import filelock
import optuna
import sqlalchemy
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.seeds import derive_seed
from bclightning.sweep import optuna_private
from bclightning.sweep.definition import Choices, Definition, Range, changed_keys
from bclightning.sweep.monitor import Monitor
from bclightning.sweep.parameters import check_parameters
from bclightning.vocabulary import VAL_ERROR

SweepStage = Literal["tune", "final"]

SEED = "seed_everything"

# A trial whose workers die this often without another epoch in between is taken for the cause.
MAX_WORKER_DEATHS = 8

# Attributes of a study: what tells this sweep from others of its name, and the name of that in
# storages of earlier versions.
_SWEEP_ID = "sweep_id"
_OLDER_SWEEP_ID = "token"

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


class Studies:
    """The studies of a sweep.

    Args:
        definition: The sweep's definition.
        storage: SQLAlchemy URL of a PostgreSQL database, which any number of coordinators may
            share, or of an SQLite file, which one coordinator at a time may open.
        heartbeat: Seconds between a coordinator's signs of life. One that gives none for three
            times as long is taken for dead.

    Raises:
        UserError: The storage cannot be reached, or is in use, or holds another sweep of that name.
    """

    def __init__(self, definition: Definition, storage: str, heartbeat: int = 10) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.definition = definition
        self.heartbeat = heartbeat
        self._monitor: Monitor | None = None
        self._known: dict[str, optuna.Study] = {}
        self._url = _checked(storage)
        self._file_lock = self._own_file()
        try:
            with storage_errors_as_user_errors(self._url):
                self._engine = sqlalchemy.create_engine(self._url, **_engine_settings(self._url))
                # Coordinators that create the tables of a database at once get in each other's way.
                with self._lock():
                    self._storage = _open_storage(self._url, heartbeat)
        except BaseException:
            self._release_file()
            raise

    def close(self) -> None:
        """Let another coordinator have the storage."""
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._engine.dispose()
        self._release_file()

    @property
    def monitor(self) -> Monitor:
        """The metric that trials are judged by: what the studies that are there were made with."""
        if self._monitor is None:
            with storage_errors_as_user_errors(self._url):
                studies = self._all()
                if not studies:
                    return Monitor()
                self._monitor = _monitor_of(studies[0])
        return self._monitor

    def prepare(self, recipe_text: str, monitor: Monitor | None = None) -> None:
        """Create the studies of trials that are missing, and requeue the trials of dead workers.

        Args:
            recipe_text: Content of the recipe, which must be that of the trials that are there.
            monitor: Metric that trials are judged by; the validation error if ``None``.

        Raises:
            UserError: The studies were made by another definition.
        """
        self._monitor = monitor or Monitor()
        fingerprint = self.definition.fingerprint(recipe_text)
        with storage_errors_as_user_errors(self._url), self._lock():
            if self._file_lock is not None:
                # Nobody else has the file open, so nobody works on a trial that is running in it.
                for study in self._all():
                    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                        self._requeue(optuna_private.trial_id(self._storage, study, trial.number))
            for arm in self.definition.arms:
                study = self._create(arm, "tune")
                self._compare(study, arm, fingerprint)
                missing = self.definition.trials - len(study.get_trials(deepcopy=False))
                for _ in range(missing):
                    study.enqueue_trial({})
        self.advance()

    def advance(self) -> None:
        """Requeue the trials of dead workers, and begin the final runs of arms that are ready."""
        with storage_errors_as_user_errors(self._url), self._lock():
            for study in self._all():
                for key in optuna_private.stale_trials(self._storage, study):
                    self._requeue(key)
            for arm in self.definition.arms:
                if self._tuned(arm):
                    self._begin_final(arm)

    def beat(self, claimed: list[ClaimedTrial]) -> None:
        """Give a sign of life for claimed trials."""
        with storage_errors_as_user_errors(self._url):
            for trial in claimed:
                optuna_private.record_heartbeat(self._storage, trial.key)

    def claim(self) -> ClaimedTrial | None:
        """Claim the next trial: of the arm that is least advanced, so that all advance together.

        Returns:
            The trial, or ``None`` if none is waiting now.
        """
        with storage_errors_as_user_errors(self._url):
            candidates = []
            for place, arm in enumerate(self.definition.arms):
                for stage, study in self._studies_of(arm):
                    trials = study.get_trials(deepcopy=False)
                    waiting = sum(trial.state == TrialState.WAITING for trial in trials)
                    if waiting:
                        begun = 1 - waiting / len(trials)
                        candidates.append((stage, begun, place, arm, study))
            # Tuning goes before final runs, which begin anyway only when an arm's tuning has ended.
            candidates.sort(key=lambda entry: (entry[0] != "tune", entry[1], entry[2]))
            for stage, _, _, arm, study in candidates:
                # Where no trial waits, Optuna would add one; nobody takes the last one meanwhile,
                # nor puts another one back.
                with self._lock():
                    waiting_now = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
                    if waiting_now:
                        return self._ask(arm, stage, study, waiting_now[0].number)
        return None

    def finish(self, claimed: ClaimedTrial, record: RunRecord) -> None:
        """Store how a trial ended, unless another coordinator has done so already."""
        if record.status == "pruned":
            # Its value is that of the last epoch, as is Optuna's custom.
            self._end(claimed, {"record": asdict(record)}, TrialState.PRUNED)
        else:
            self._end(claimed, {"record": asdict(record)}, TrialState.COMPLETE, record.best_score)

    def fail(self, claimed: ClaimedTrial, reason: str, record: RunRecord | None = None) -> None:
        """Store that a trial failed, and why; it is not tried again.

        Args:
            claimed: The trial.
            reason: Why it failed, in a sentence.
            record: Record of its run, if there is one.
        """
        attributes: dict[str, Any] = {"reason": reason}
        if record is not None:
            attributes["record"] = asdict(replace(record, status="failed", reason=reason))
        self._end(claimed, attributes, TrialState.FAIL)

    def requeue(self, claimed: ClaimedTrial) -> None:
        """Let a claimed trial be claimed again."""
        with storage_errors_as_user_errors(self._url), self._lock():
            self._requeue(claimed.key)

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
        with (
            storage_errors_as_user_errors(self._url),
            self._lock(),
            contextlib.suppress(UpdateFinishedTrialError),
        ):
            claimed.trial.set_user_attr("deaths", deaths)
            self._requeue(claimed.key)
        return None

    def report(self, claimed: ClaimedTrial, epoch: int, value: float) -> bool:
        """Store the monitored metric of an epoch.

        Returns:
            Whether the trial should be pruned.
        """
        study = self._study(claimed.arm, claimed.stage)
        if study is None:
            return False
        with (
            storage_errors_as_user_errors(self._url),
            contextlib.suppress(UpdateFinishedTrialError),
        ):
            reported = study.get_trials(deepcopy=False)[claimed.number].intermediate_values
            # A resumed trial repeats the epoch that was not in its last checkpoint.
            if epoch not in reported:
                claimed.trial.report(value, epoch)
            return bool(claimed.trial.should_prune())
        # Another coordinator ended it meanwhile.
        return False

    def finished(self) -> bool:
        """Whether all trials and final runs have ended, here and elsewhere."""
        with storage_errors_as_user_errors(self._url):
            for arm in self.definition.arms:
                studies = dict(self._studies_of(arm))
                if "tune" not in studies or (self._tuned(arm) and self._final_missing(arm)):
                    return False
                for study in studies.values():
                    open_ = (TrialState.WAITING, TrialState.RUNNING)
                    if study.get_trials(deepcopy=False, states=open_):
                        return False
        return True

    def trials(self, arm: str, stage: SweepStage) -> list[FrozenTrial]:
        """The trials or the final runs of an arm; none if there is no such study yet."""
        with storage_errors_as_user_errors(self._url):
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

    def _all(self) -> list[optuna.Study]:
        return [study for arm in self.definition.arms for _, study in self._studies_of(arm)]

    def _studies_of(self, arm: str) -> list[tuple[SweepStage, optuna.Study]]:
        stages: tuple[SweepStage, ...] = ("tune", "final")
        found = [(stage, self._study(arm, stage)) for stage in stages]
        return [(stage, study) for stage, study in found if study is not None]

    def _name(self, arm: str, stage: SweepStage) -> str:
        return f"{self.definition.name}-{arm}-{stage}"

    def _study(self, arm: str, stage: SweepStage) -> optuna.Study | None:
        name = self._name(arm, stage)
        if name not in self._known:
            try:
                self._known[name] = optuna.load_study(
                    study_name=name,
                    storage=self._storage,
                    pruner=_pruner(self.definition),
                )
            except KeyError:
                return None
        return self._known[name]

    def _create(self, arm: str, stage: SweepStage) -> optuna.Study:
        study = optuna.create_study(
            study_name=self._name(arm, stage),
            storage=self._storage,
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
                f"{', '.join(changed)}; give this one another name, or restore that definition"
            )

    def _requeue(self, key: int) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):
            optuna_private.requeue(self._storage, key)

    def _ask(self, arm: str, stage: SweepStage, study: optuna.Study, number: int) -> ClaimedTrial:
        """Claim the waiting trial that is the first of its study; the lock is held."""
        definition = self.definition
        key = optuna_private.trial_id(self._storage, study, number)
        # First, so that a claimant that dies at once leaves a trial that can be seen to be stale.
        optuna_private.record_heartbeat(self._storage, key)
        # What is drawn is a function of the trial's number and of the trials that have ended by
        # then. With one worker a resumed sweep so draws what it would have drawn; with several,
        # chance decides which have ended, but not for the first ten draws, which are random.
        study.sampler = optuna.samplers.TPESampler(seed=derive_seed(definition.seed, number))
        with warnings.catch_warnings():
            # Optuna expects `optimize` to give the signs of life; the coordinator does.
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            trial = study.ask(self._distributions(stage))
        # As stored, so that a resumed trial has the very numbers, of the very types.
        options = dict(study.get_trials(deepcopy=False)[number].params)
        check_parameters(definition, options, SEED)
        name = f"{definition.name}-{arm}"
        if stage == "final":
            run_id = f"{name}-s{options[SEED]}"
        else:
            run_id = f"{name}-t{number:03}"
            options[SEED] = definition.seed
        sweep_id = _sweep_id(study) or ""
        options = {
            **definition.overrides,
            **definition.arms[arm],
            **options,
            "purpose.stage": stage,
            "purpose.arm": arm,
            "purpose.trial": number,
            "purpose.sweep_id": sweep_id,
            "experiment": definition.name,
            "run_id": run_id,
        }
        return ClaimedTrial(arm, stage, number, run_id, sweep_id, options, key, trial)

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
        with (
            storage_errors_as_user_errors(self._url),
            self._lock(),
            contextlib.suppress(UpdateFinishedTrialError),
        ):
            # A coordinator that took this one for dead has put the trial back to waiting, perhaps;
            # its run has ended here after all.
            optuna_private.take(self._storage, claimed.key)
            for name, content in attributes.items():
                claimed.trial.set_user_attr(name, content)
            study.tell(claimed.trial, value, state)

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

    def _begin_final(self, arm: str) -> None:
        if self._final_missing(arm) <= 0:
            return
        study = self._create(arm, "final")
        for _ in range(self._final_missing(arm)):
            place = len(study.get_trials(deepcopy=False))
            seed = self.definition.seed + 1 + place
            study.enqueue_trial({**(self.best(arm) or {}), SEED: seed})

    def _own_file(self) -> filelock.BaseFileLock | None:
        if self._url.get_backend_name() != "sqlite":
            return None
        path = Path(self._url.database or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=2)
        except filelock.Timeout as error:
            raise UserError(
                f"the sweep {self.definition.name} is running already, on {path}; to work on it "
                "from several terminals or machines, give each of them the --storage "
                "postgresql+psycopg://..."
            ) from error
        return lock

    def _release_file(self) -> None:
        if self._file_lock is not None:
            self._file_lock.release()

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the sweep's lock, which lies in the database and falls when its holder dies.

        An SQLite file has one coordinator, which holds the file's lock all the time.
        """
        if self._url.get_backend_name() == "sqlite":
            yield
            return
        key = int.from_bytes(hashlib.sha256(self.definition.name.encode()).digest()[:7], "big")
        with self._engine.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            try:
                yield
            finally:
                connection.execute(sqlalchemy.text("SELECT pg_advisory_unlock(:key)"), {"key": key})


@contextlib.contextmanager
def storage_errors_as_user_errors(url: sqlalchemy.URL) -> Iterator[None]:
    """Turn errors of the database into one sentence, without the password in the URL.

    Raises:
        UserError: The database cannot be reached, or refuses the request.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise UserError(
            f"the storage {url.render_as_string()} cannot be used ({reason}); nothing is lost: "
            "the same command resumes the sweep"
        ) from error


def _checked(storage: str) -> sqlalchemy.URL:
    try:
        url = sqlalchemy.make_url(storage)
        if url.get_backend_name() not in ("sqlite", "postgresql") or not url.database:
            raise ValueError
        url.get_dialect().import_dbapi()
    except (sqlalchemy.exc.ArgumentError, sqlalchemy.exc.NoSuchModuleError, ValueError) as error:
        raise UserError(
            "--storage must be postgresql+psycopg://USER:PASSWORD@HOST/DATABASE or sqlite:///FILE"
        ) from error
    except ImportError as error:
        raise UserError(
            f"the storage needs {error.name}, which is not installed: "
            "pip install 'bclightning[postgresql]', and write the URL as postgresql+psycopg://..."
        ) from error
    return url


def _engine_settings(url: sqlalchemy.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {}
    # Connections are tested before use, since a sweep outlives restarts of its database.
    return {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}


def _open_storage(url: sqlalchemy.URL, heartbeat: int) -> RDBStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return RDBStorage(
            url.render_as_string(hide_password=False),
            engine_kwargs=_engine_settings(url),
            heartbeat_interval=heartbeat,
            grace_period=3 * heartbeat,
        )


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
