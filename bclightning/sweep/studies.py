"""A sweep's studies in an Optuna storage, as a queue that loses and repeats nothing.

Each arm has a study of trials and, once all of those have ended, one of final runs. A study is
filled with all its trials at once, waiting. A trial is claimed by the storage's own exchange of
*waiting* for *running*, which one claimant wins. Who dies leaves a trial running: it is put back to
waiting, keeps its number, its parameters and its run folder, and goes on from its last checkpoint.
So the number of trials is exact, whoever is killed, and whenever.
"""

import contextlib
import hashlib
import secrets
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
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
from optuna.trial import FrozenTrial, TrialState

from bclightning.errors import UserError
from bclightning.runs.record import RunRecord
from bclightning.seeds import derive_seed
from bclightning.sweep.definition import Choices, Definition, Range, as_arguments

Stage = Literal["tune", "final"]

SEED = "seed_everything"

# A trial whose worker dies this often without another epoch in between is taken for the cause.
MOST_DEATHS = 8


@dataclass(frozen=True)
class Ticket:
    """A claimed trial.

    Attributes:
        arm: The arm.
        stage: ``tune`` or ``final``.
        number: Of the trial in its study.
        trial_id: The storage's own key.
        run_id: Name of the run and its folder.
        token: Tells this sweep from others of its name.
        arguments: The command line of `bcl fit`, apart from where runs lie.
    """

    arm: str
    stage: Stage
    number: int
    trial_id: int
    run_id: str
    token: str
    arguments: tuple[str, ...]


class Studies:
    """The studies of a sweep.

    Args:
        definition: What is swept.
        storage: An SQLAlchemy URL: of a PostgreSQL database, which any number of coordinators may
            share, or of an SQLite file, which one coordinator at a time may open.
        heartbeat: Seconds between signs of life; who gives none for three times as long is dead.

    Raises:
        UserError: The storage cannot be reached, or is in use, or holds another sweep of that name.
    """

    def __init__(self, definition: Definition, storage: str, heartbeat: int = 10) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.definition = definition
        self.heartbeat = heartbeat
        self._known: dict[str, optuna.Study] = {}
        self._url = _checked(storage)
        self._file_lock = self._own_file()
        with telling_of(self._url):
            self._engine = sqlalchemy.create_engine(self._url, **_engine_settings(self._url))
            # Several that create the tables of a fresh storage at once get in each other's way.
            with self._alone():
                self._storage = _open_storage(self._url, heartbeat)

    def close(self) -> None:
        """Let another coordinator have the storage."""
        self._storage.remove_session()
        self._storage.engine.dispose()
        self._engine.dispose()
        if self._file_lock is not None:
            self._file_lock.release()

    def prepare(self, recipe_text: str) -> None:
        """Create what is missing of the studies of trials, and take the trials of the dead back.

        Args:
            recipe_text: The recipe's content, which must be that of the trials that are there.

        Raises:
            UserError: The studies were made by another definition.
        """
        fingerprint = self.definition.fingerprint(recipe_text)
        with telling_of(self._url), self._alone():
            if self._file_lock is not None:
                # Nobody else has the file open, so nobody works on what is said to be running.
                for study in self._all():
                    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                        self._put_back(trial._trial_id)
            for arm in self.definition.arms:
                study = self._create(arm, "tune")
                self._compare(study, arm, fingerprint)
                missing = self.definition.trials - len(study.get_trials(deepcopy=False))
                for _ in range(missing):
                    self._enqueue(study, {})
        self.advance()

    def advance(self) -> None:
        """Take the trials of the dead back, and begin the final runs of arms that are ready."""
        with telling_of(self._url), self._alone():
            for study in self._all():
                for trial_id in self._storage._get_stale_trial_ids(study._study_id):
                    self._put_back(trial_id)
            for arm in self.definition.arms:
                if self._tuned(arm):
                    self._begin_final(arm)

    def beat(self, tickets: list[Ticket]) -> None:
        """Give a sign of life for claimed trials."""
        with telling_of(self._url):
            for ticket in tickets:
                self._storage.record_heartbeat(ticket.trial_id)

    def claim(self) -> Ticket | None:
        """Claim the next trial: of the arm that has come least far, so that all advance together.

        Returns:
            The trial, or ``None`` when none is waiting now.
        """
        with telling_of(self._url):
            candidates = []
            for place, arm in enumerate(self.definition.arms):
                for stage, study in self._studies_of(arm):
                    trials = study.get_trials(deepcopy=False)
                    waiting = [t for t in trials if t.state == TrialState.WAITING]
                    if waiting:
                        begun = 1 - len(waiting) / len(trials)
                        candidates.append((stage, begun, place, arm, study, waiting))
            # Tuning goes before final runs, which begin anyway only when an arm's tuning has ended.
            candidates.sort(key=lambda entry: (entry[0] != "tune", entry[1], entry[2]))
            for stage, _, _, arm, study, waiting in candidates:
                for trial in waiting:
                    if self._exchange(trial._trial_id):
                        return self._ticket(arm, stage, study, trial)
        return None

    def finish(self, ticket: Ticket, record: RunRecord) -> None:
        """Note how a trial ended; nothing if another coordinator has noted it already."""
        state = TrialState.PRUNED if record.status == "pruned" else TrialState.COMPLETE
        value = record.best_score
        with telling_of(self._url), contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(ticket.trial_id, "record", asdict(record))
            self._storage.set_trial_state_values(
                ticket.trial_id, state, None if value is None else [value]
            )

    def fail(self, ticket: Ticket, reason: str) -> None:
        """Note that a trial failed, and why; it is not tried again."""
        with telling_of(self._url), contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_user_attr(ticket.trial_id, "reason", reason)
            self._storage.set_trial_state_values(ticket.trial_id, TrialState.FAIL)

    def put_back(self, ticket: Ticket) -> None:
        """Let a claimed trial be claimed again."""
        with telling_of(self._url):
            self._put_back(ticket.trial_id)

    def bury(self, ticket: Ticket, epoch: int) -> str | None:
        """Let a trial be claimed again whose worker died, unless it seems to die of the trial.

        Args:
            ticket: The trial.
            epoch: The last epoch that the worker ended, counted from 1; 0 for none.

        Returns:
            The reason, where the trial has failed instead: workers died of it too often without
            coming further. One that comes further will end, however often it is killed.
        """
        with telling_of(self._url):
            there = self._storage.get_trial(ticket.trial_id).user_attrs.get("deaths", {})
            furthest, count = there.get("epoch", 0), there.get("count", 0)
            count = 1 if epoch > furthest else count + 1
            deaths = {"epoch": max(epoch, furthest), "count": count}
            self._storage.set_trial_user_attr(ticket.trial_id, "deaths", deaths)
            if count >= MOST_DEATHS:
                reason = f"its worker died {count} times in one epoch, for want of memory perhaps"
                self.fail(ticket, reason)
                return reason
            self._put_back(ticket.trial_id)
        return None

    def report(self, ticket: Ticket, epoch: int, error: float) -> bool:
        """Note the validation error of an epoch, and say whether the trial should stop."""
        study = self._study(ticket.arm, ticket.stage)
        if study is None:
            return False
        study.pruner = _pruner(self.definition)
        with telling_of(self._url):
            trial = optuna.Trial(study, ticket.trial_id)
            if epoch not in self._storage.get_trial(ticket.trial_id).intermediate_values:
                trial.report(error, epoch)
            return trial.should_prune()

    def finished(self) -> bool:
        """Whether nothing is left to do, here or elsewhere."""
        with telling_of(self._url):
            for arm in self.definition.arms:
                studies = dict(self._studies_of(arm))
                if "tune" not in studies or (self._tuned(arm) and self._final_missing(arm)):
                    return False
                for study in studies.values():
                    open_ = (TrialState.WAITING, TrialState.RUNNING)
                    if study.get_trials(deepcopy=False, states=open_):
                        return False
        return True

    def trials(self, arm: str, stage: Stage) -> list[FrozenTrial]:
        """The trials of an arm, none where there is no such study yet."""
        with telling_of(self._url):
            study = self._study(arm, stage)
            return [] if study is None else study.get_trials(deepcopy=False)

    def records(self) -> list[RunRecord]:
        """The records of all trials that ended, wherever they ran."""
        found = []
        for arm in self.definition.arms:
            for stage in ("tune", "final"):
                for trial in self.trials(arm, stage):
                    if "record" in trial.user_attrs:
                        found.append(RunRecord.parse(trial.user_attrs["record"]))
        return found

    # The rest is how.

    def _all(self) -> list[optuna.Study]:
        return [study for arm in self.definition.arms for _, study in self._studies_of(arm)]

    def _studies_of(self, arm: str) -> list[tuple[Stage, optuna.Study]]:
        stages: tuple[Stage, ...] = ("tune", "final")
        found = [(stage, self._study(arm, stage)) for stage in stages]
        return [(stage, study) for stage, study in found if study is not None]

    def _name(self, arm: str, stage: Stage) -> str:
        return f"{self.definition.name}-{arm}-{stage}"

    def _study(self, arm: str, stage: Stage) -> optuna.Study | None:
        name = self._name(arm, stage)
        if name not in self._known:
            try:
                self._known[name] = optuna.load_study(
                    study_name=name,
                    storage=self._storage,
                    sampler=optuna.samplers.RandomSampler(),
                    pruner=optuna.pruners.NopPruner(),
                )
            except KeyError:
                return None
        return self._known[name]

    def _create(self, arm: str, stage: Stage) -> optuna.Study:
        study = optuna.create_study(
            study_name=self._name(arm, stage),
            storage=self._storage,
            direction="minimize",
            load_if_exists=True,
        )
        if "token" not in study.user_attrs:
            # A letter first: 12e4 would come back from a command line as a number.
            study.set_user_attr("token", f"k{secrets.token_hex(2)}")
        return study

    def _compare(self, study: optuna.Study, arm: str, fingerprint: dict[str, Any]) -> None:
        there = study.user_attrs.get("definition")
        if there is None:
            study.set_user_attr("definition", fingerprint)
            return
        changed = [key for key in fingerprint if there.get(key) != fingerprint[key]]
        trials = len(study.get_trials(deepcopy=False))
        if trials > self.definition.trials:
            changed.append("trials")
        elif trials < self.definition.trials and self._study(arm, "final") is not None:
            changed.append("trials (final runs have begun)")
        if changed:
            raise UserError(
                f"a sweep named {self.definition.name} is there already, with another "
                f"{', '.join(changed)}; give this one another name, or take that definition back"
            )

    def _enqueue(self, study: optuna.Study, parameters: dict[str, Any]) -> None:
        study.enqueue_trial(parameters)
        last = study.get_trials(deepcopy=False)[-1]
        # Without a first sign of life, a trial that is claimed by someone who dies at once would
        # never be missed.
        self._storage.record_heartbeat(last._trial_id)

    def _put_back(self, trial_id: int) -> None:
        with contextlib.suppress(UpdateFinishedTrialError):
            # First, so that the next claimant is not taken for dead before its own sign of life.
            self._storage.record_heartbeat(trial_id)
            self._storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def _exchange(self, trial_id: int) -> bool:
        try:
            claimed = self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return False
        if claimed:
            self._storage.record_heartbeat(trial_id)
        return claimed

    def _ticket(self, arm: str, stage: Stage, study: optuna.Study, trial: FrozenTrial) -> Ticket:
        definition = self.definition
        # A study shows its sampler the trials that it first saw, so each trial asks one that is
        # read anew. The seed is of the trial's number: what is drawn is a function of that and of
        # the trials that have ended by then. With one worker a sweep that goes on so draws what it
        # would have drawn; with several, beyond the first ten, which look at no other trials, it
        # is chance which have ended.
        informed = optuna.load_study(
            study_name=study.study_name,
            storage=self._storage,
            sampler=optuna.samplers.TPESampler(seed=derive_seed(definition.seed, trial.number)),
        )
        # Where no parameter is drawn, as for final runs, Optuna's cache knows them by this alone.
        informed.get_trials(deepcopy=False)
        live = optuna.Trial(informed, trial._trial_id)
        options = {
            key: live._suggest(key, distribution)
            for key, distribution in self._distributions(stage).items()
        }
        name = f"{definition.name}-{arm}"
        if stage == "final":
            run_id = f"{name}-s{options[SEED]}"
        else:
            run_id = f"{name}-t{trial.number:03}"
            options[SEED] = definition.seed
        token = study.user_attrs["token"]
        job = {"job.stage": stage, "job.arm": arm, "job.trial": trial.number, "job.token": token}
        names = {"experiment": definition.name, "run_id": run_id}
        fixed = {**definition.overrides, **definition.arms[arm]}
        arguments = as_arguments({**fixed, **options, **job, **names})
        return Ticket(arm, stage, trial.number, trial._trial_id, run_id, token, tuple(arguments))

    def _distributions(self, stage: Stage) -> dict[str, BaseDistribution]:
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
        """The parameters of an arm's trial with the least validation error; the first of equals."""
        done = [t for t in self.trials(arm, "tune") if t.state == TrialState.COMPLETE]
        return min(done, key=lambda t: (t.value, t.number)).params if done else None

    def _final_missing(self, arm: str) -> int:
        return self.definition.final_seeds - len(self.trials(arm, "final"))

    def _begin_final(self, arm: str) -> None:
        if self._final_missing(arm) <= 0:
            return
        study = self._create(arm, "final")
        for _ in range(self._final_missing(arm)):
            place = len(study.get_trials(deepcopy=False))
            seed = self.definition.seed + 1 + place
            self._enqueue(study, {**(self.best(arm) or {}), SEED: seed})

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
                "from several terminals or machines give each --storage postgresql+psycopg://..."
            ) from error
        return lock

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the sweep's lock: in the database, where it falls when its holder dies."""
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
def telling_of(url: sqlalchemy.URL) -> Iterator[None]:
    """Turn the database's errors into one sentence, without the password in the URL.

    Raises:
        UserError: The database cannot be reached, or refuses.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise UserError(
            f"the storage {url.render_as_string()} cannot be used ({reason}); nothing is lost: "
            "the same command goes on"
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
            "pip install 'bclightning[postgresql]' and begin it with postgresql+psycopg://"
        ) from error
    return url


def _engine_settings(url: sqlalchemy.URL) -> dict[str, Any]:
    if url.get_backend_name() == "sqlite":
        return {}
    # Connections are tried before use, since a sweep outlives restarts of its database.
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
