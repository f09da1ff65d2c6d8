"""Sweeps whose processes are killed or frozen, and whose database restarts or is not there.

What held means, of each attack: exactly the planned trials and final runs, each finished and none
twice; each record and each run's files equal, bit for bit, to those of a sweep that nothing
disturbed; no epoch trained again, but the one in which a process was killed; no two processes that
train one run by turns; and each coordinator that was not killed ends with code 0.
"""

import atexit
import contextlib
import functools
import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import yaml
from campaigns import clock, diary, faults, fits, worker
from campaigns.faults import Change, nothing, said
from postgresql import Server
from stopped_runs import differences

from bclightning.sweep import coordinator, databases, liveness, storages, studies

TINY = Path(__file__).parents[1] / "configs" / "tiny.yaml"
EPOCHS, PAUSE = 6, 0.3
ARMS, TRIALS, FINALS = ("none", "stochastic"), 2, 2
# More than there are trials at a time, so that what is given up is taken at once.
JOBS = 3
SWEEP: dict[str, Any] = {
    "name": "attacked",
    "recipe": "recipe.yaml",
    "arms": list(ARMS),
    "space": {"model.learning_rate": {"low": 1e-3, "high": 1e-2, "log": True}},
    "trials": TRIALS,
    "final_seeds": FINALS,
}
# The optuna pruner begins after five trials, so nothing is pruned; each epoch is reported to it.
REPORTED = {"pruner": {"name": "median"}}
HEARTBEAT = 2
DEAD = liveness.MISSED_SIGNS * HEARTBEAT
SECONDS = 150


class Machine:
    """A coordinator with its workers, in a folder of its own, as on a machine of its own.

    Args:
        folder: Folder of all machines.
        name: Name of the machine's folder in it.
        words: Options of the sweep.
        runs: Folder of its runs, which machines may share.
        before: Takes defences away.
        pruner: Whether its definition has a pruner.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        *words: str,
        runs: str = "../runs",
        before: Change = nothing,
        pruner: bool = False,
    ) -> None:
        self.folder = folder / name
        self.folder.mkdir()
        self.clock = self.folder / "clock.txt"
        self.full_disk: str | None = None
        self._runs, self._before = runs, before
        recipe = yaml.safe_load(TINY.read_text())
        recipe["trainer"] |= {"max_epochs": EPOCHS, "callbacks": [diary.callback(PAUSE)]}
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        sweep = {**SWEEP, **(REPORTED if pruner else {})}
        (self.folder / "sweep.yaml").write_text(yaml.safe_dump(sweep))
        options = ["--jobs", str(JOBS), "--threads", "1", "--heartbeat", str(HEARTBEAT)]
        self._words = ["sweep", "sweep.yaml", *options, "--runs_dir", runs, *words]
        self._stopped: list[int] = []

    @property
    def runs(self) -> Path:
        """The folder of the sweep's runs."""
        return self.folder / self._runs / "attacked"

    @property
    def diary(self) -> Path:
        return self.folder.parent / "diary.txt"

    def start(self, *fault: Any, **keywords: Any) -> None:
        self.process = faults.start(
            self._words, self.folder, *fault, before=self._prepare, **keywords
        )

    def _prepare(self) -> None:
        """Let workers write the diary, follow the clock, and have the faults that they shall."""
        os.environ[diary.VARIABLE] = str(self.diary)
        os.environ[clock.VARIABLE] = str(self.clock)
        if self.full_disk is not None:
            os.environ[worker.FULL_DISK] = self.full_disk
        tests = str(Path(__file__).parents[1])
        os.environ["PYTHONPATH"] = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
        clock.follow(self.clock)
        begin = coordinator.start_worker_server
        coordinator.start_worker_server = lambda module: begin("campaigns.worker")
        self._before()

    def freeze(self, processes: list[int] | None = None) -> None:
        """Stop processes where they are; all of the machine's if ``None``."""
        # The coordinator first, which would otherwise take a worker's place in time.
        self._stopped = processes or faults.machine(self.process)
        faults.signal_all(self._stopped, signal.SIGSTOP)

    def thaw(self) -> None:
        faults.signal_all(self._stopped, signal.SIGCONT)

    def ended(self) -> bool:
        return faults.ended(self.process)

    def wait(self, seconds: float = SECONDS) -> int | None:
        return faults.wait_until(self.process, time.monotonic() + seconds)

    def close(self) -> None:
        """Kill what lives."""
        if not hasattr(self, "process"):
            return
        with contextlib.suppress(ChildProcessError):
            if not self.ended():
                faults.signal_all([*faults.machine(self.process), *self._stopped], signal.SIGKILL)
                faults.wait(self.process)


@contextlib.contextmanager
def machines(*made: Machine) -> Iterator[None]:
    """Start machines at once, and kill at the end of the block what lives of them."""
    try:
        for each in made:
            each.start()
        yield
    finally:
        for each in made:
            each.close()


@functools.cache
def whole() -> Path:
    """The runs of a sweep that nothing disturbed."""
    folder = faults.kept_folder()
    machine = Machine(folder, "one")
    with machines(machine):
        code = machine.wait()
    assert code == 0, said(machine.folder)
    assert (unlike := not_held([machine], sqlite(machine), runs=machine.runs)) is None, unlike
    return machine.runs


@functools.cache
def server() -> Server:
    """The server of all attacks, which ends with this process."""
    made = Server()
    atexit.register(made.close)
    return made


def sqlite(machine: Machine) -> str:
    return storages.sqlite_url(machine.runs / "storage.db")


def records(url: str) -> list[dict[str, Any] | None]:
    """The record of each trial in a storage, ``None`` for one that has not finished."""
    opened = optuna.storages.RDBStorage(url)
    try:
        found = []
        for study in optuna.get_all_study_summaries(opened):
            loaded = optuna.load_study(study_name=study.study_name, storage=opened)
            for trial in loaded.get_trials():
                finished = trial.state == optuna.trial.TrialState.COMPLETE
                found.append(trial.user_attrs["record"] if finished else None)
        return found
    finally:
        opened.remove_session()
        opened.engine.dispose()


def not_held(
    made: list[Machine],
    url: str,
    *,
    deaths: int = 0,
    runs: Path | None = None,
    twice: bool = False,
) -> str | None:
    """What is not as promised when a sweep has ended.

    Args:
        made: The machines that worked on it.
        url: Its storage.
        deaths: Number of workers that were killed, each of which costs an epoch at most.
        runs: Folder of runs to compare with; those that nothing disturbed if ``None``.
        twice: Whether a run may be trained on two machines, neither of which knows of the other.
    """
    runs = runs or whole()
    found = records(url)
    planned = {path.name for path in runs.iterdir() if (path / "run.json").exists()}
    ended = [record["run_id"] for record in found if record is not None]
    if len(found) != len(ARMS) * (TRIALS + FINALS) or sorted(ended) != sorted(planned):
        return f"not the planned runs: {ended} of {len(found)}"
    for record in found:
        if record is not None and (unlike := _unlike(record, runs, made)):
            return unlike
    again = diary.repeated(made[0].diary)
    if len(again) > deaths and not twice:
        return f"trained again, for {deaths} deaths: {again}"
    if (mixed := diary.by_turns(made[0].diary)) and not twice:
        return f"trained by two processes at once: {mixed}"
    text = "".join(said(machine.folder) for machine in made)
    return f"a traceback: {text}" if "Traceback" in text else None


def _unlike(record: dict[str, Any], runs: Path, made: list[Machine]) -> str | None:
    name = record["run_id"]
    one = json.loads((runs / name / "run.json").read_text())
    keys = ("best_epoch", "best_score", "test", "status", "seed", "trial", "stage", "arm")
    unlike = [key for key in keys if record[key] != one[key]]
    if unlike:
        return f"the record of {name} has another {', '.join(unlike)}"
    folders = [m.runs / name for m in made if (m.runs / name / "run.json").exists()]
    finished = [
        f for f in folders if json.loads((f / "run.json").read_text())["status"] == "finished"
    ]
    if not finished:
        return f"{name} has no finished folder"
    for folder in finished:
        if parts := differences(folder, runs / name):
            return f"the files of {name} have another {', '.join(parts)}"
    return None


def ended_well(made: list[Machine], deadline: float) -> str | None:
    for machine in made:
        code = machine.wait(max(0.0, deadline - time.monotonic()))
        if code is None:
            return f"not at its end after {SECONDS} s: {said(machine.folder)}"
        if code != 0:
            return f"a coordinator ended with {code}: {said(machine.folder)}"
    return None


def until_they_work(made: list[Machine]) -> None:
    """Wait until each coordinator has a run: who begins without a database is told so at once."""
    while not all(": starts" in said(m.folder) or m.ended() for m in made):
        time.sleep(0.05)


def until_it_trains(made: list[Machine], epochs: int) -> None:
    """Wait until so many epochs have begun, or a coordinator has ended."""
    while len(diary.entries(made[0].diary)) < epochs and not any(m.ended() for m in made):
        time.sleep(0.05)


# Kills, of a sweep on an SQLite file.


def killed(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """Workers, the server that they are forked from, and coordinators, which start again."""
    machine = Machine(folder, "one", before=before, pruner=rng.random() < 0.5)
    deaths = 0
    with machines(machine):
        for _ in range(rng.randint(2, 4)):
            until_it_trains([machine], len(diary.entries(machine.diary)) + rng.randint(0, 4))
            time.sleep(rng.uniform(0, PAUSE))
            if machine.ended():
                break
            at_work = faults.workers(machine.process)
            match rng.randrange(4):
                case 0 if at_work:
                    faults.signal_all([rng.choice(at_work)], signal.SIGKILL)
                    deaths += 1
                case 1:
                    # The process that workers are forked from, and the one that cleans up after.
                    faults.signal_all(faults.children(machine.process), signal.SIGKILL)
                    deaths += JOBS
                case number:
                    stop = signal.SIGTERM if number == 2 else signal.SIGKILL
                    os.kill(machine.process, stop)
                    code = machine.wait(60)
                    if code not in (0, -stop, 128 + stop):
                        return f"ended with {code} after {stop.name}: {said(machine.folder)}"
                    deaths += JOBS
                    machine.start()
        failure = ended_well([machine], time.monotonic() + SECONDS)
    return failure or not_held([machine], sqlite(machine), deaths=deaths)


def full_disk(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """A disk that is full for the coordinator, or for its workers, from a file operation on."""
    machine = Machine(folder, "one", runs="runs", before=before)
    number = rng.randint(1, 120)
    if rng.random() < 0.3:
        number = rng.randint(1, 30)
        machine.start(faults.disk_full, number, lasting=True)
    else:
        machine.full_disk = str(number)
        machine.start()
    try:
        code = machine.wait()
        text = said(machine.folder)
        if code not in (0, 2) or "Traceback" in text or (code and "disk is full" not in text):
            return f"ended with {code} at operation {number}: {text}"
        machine.full_disk = None
        machine.start()
        failure = ended_well([machine], time.monotonic() + SECONDS)
    finally:
        machine.close()
    return failure or not_held([machine], sqlite(machine), deaths=JOBS)


def two_on_a_file(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """Two coordinators on one SQLite file: one works, and the other is refused."""
    made = [Machine(folder, name, before=before) for name in ("one", "two")]
    with machines(*made):
        codes = [machine.wait() for machine in made]
    if sorted(codes, key=str) != [0, 2]:
        return f"they ended with {codes}: {said(made[0].folder)}{said(made[1].folder)}"
    return not_held(made, sqlite(made[0]))


# Restarts of a database on which two coordinators work.


def on_a_database(
    rng: random.Random, folder: Path, before: Change = nothing, *, shared: bool | None = None
) -> tuple[list[Machine], str]:
    """Two machines on an empty database, which may share the folder of runs."""
    url = server().new_database()
    pruner = rng.random() < 0.5
    shared = rng.random() < 0.5 if shared is None else shared
    runs = "../runs" if shared else "runs"
    words = ("--storage", url)
    made = [
        Machine(folder, name, *words, runs=runs, before=before, pruner=pruner)
        for name in ("one", "two")
    ]
    return made, url


def two_at_once(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """Two coordinators begin one sweep at the same moment."""
    made, url = on_a_database(rng, folder, before)
    with machines(*made):
        failure = ended_well(made, time.monotonic() + SECONDS)
    return failure or not_held(made, url)


def database_restarts(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """A database that is killed, or a connection of it, and starts again, up to four times."""
    made, url = on_a_database(rng, folder, before)
    with machines(*made):
        until_they_work(made)
        for _ in range(rng.randint(2, 4)):
            time.sleep(rng.uniform(0, 2.0))
            if rng.random() < 0.5:
                server().kill_a_connection(rng.randrange(100))
            else:
                server().kill()
                server().start()
        failure = ended_well(made, time.monotonic() + SECONDS)
    return failure or not_held(made, url)


def database_away(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
    """A database that is not there for 20 seconds."""
    made, url = on_a_database(rng, folder, before)
    with machines(*made):
        until_they_work(made)
        time.sleep(rng.uniform(0, 2.0))
        server().stop()
        try:
            time.sleep(20)
        finally:
            server().start()
        failure = ended_well(made, time.monotonic() + SECONDS)
    return failure or not_held(made, url)


# Processes that are stopped where they are, as a debugger, Ctrl-Z or a suspended machine does.


def frozen(
    which: Callable[[list[Machine]], list[tuple[Machine, list[int]]]],
    shortest: float,
    longest: float,
    *,
    shared: bool | None = None,
    jump: bool = False,
    twice: bool = False,
) -> Callable[..., str | None]:
    """An attack that freezes processes of two machines for some seconds.

    Args:
        which: The processes of each machine.
        shortest: Shortest time, in seconds.
        longest: Longest time.
        shared: Whether they share the folder of runs; by chance if ``None``.
        jump: Whether the clocks of machines jump meanwhile, by an hour at most, either way.
        twice: Whether a run may be trained on both machines.
    """

    def attempt(rng: random.Random, folder: Path, before: Change = nothing) -> str | None:
        made, url = on_a_database(rng, folder, before, shared=shared)
        with machines(*made):
            until_they_work(made)
            time.sleep(rng.uniform(0, 2.0))
            for machine, processes in which(made):
                machine.freeze(processes)
                if jump:
                    # Written whole, for others read it.
                    (machine.folder / "part").write_text(str(rng.uniform(-3600, 3600)))
                    os.replace(machine.folder / "part", machine.clock)
            time.sleep(rng.uniform(shortest, longest))
            for machine in made:
                # One after the other, as machines wake.
                machine.thaw()
                time.sleep(rng.uniform(0, HEARTBEAT / 2))
            failure = ended_well(made, time.monotonic() + SECONDS)
        return failure or not_held(made, url, twice=twice)

    return attempt


def a_coordinator(made: list[Machine]) -> list[tuple[Machine, list[int]]]:
    return [(made[0], [made[0].process])]


def a_worker(made: list[Machine]) -> list[tuple[Machine, list[int]]]:
    return [(made[0], faults.workers(made[0].process)[:1] or [made[0].process])]


def a_machine(made: list[Machine]) -> list[tuple[Machine, list[int]]]:
    return [(made[0], faults.machine(made[0].process))]


def all_machines(made: list[Machine]) -> list[tuple[Machine, list[int]]]:
    return [(machine, faults.machine(machine.process)) for machine in made]


coordinator_frozen = frozen(a_coordinator, DEAD, 3 * DEAD, shared=True)
worker_frozen = frozen(a_worker, 0.5, 2 * DEAD)
machine_suspended = frozen(a_machine, 0.2, DEAD / 3, jump=True)
machine_taken_for_dead = frozen(a_machine, DEAD, 3 * DEAD, jump=True, twice=True)
all_suspended = frozen(all_machines, DEAD, 3 * DEAD, jump=True)

KILLED = "kills of a sweep's workers, server, coordinator"
FULL = "a full disk in a sweep"
TWO_ON_A_FILE = "two sweeps on one SQLite file"
TWO_AT_ONCE = "two coordinators begin one sweep"
RESTARTS = "a database is killed and restarts"
AWAY = "a database is away for 20 s"
COORDINATOR = "a coordinator is frozen"
WORKER = "a worker is frozen"
MACHINE = "a machine sleeps, its clock jumps"
DEAD_MACHINE = "a machine sleeps and is taken for dead"
ALL_MACHINES = "all machines sleep, clocks jump"

ATTACKS: dict[str, faults.Attempt] = {
    KILLED: killed,
    FULL: full_disk,
    TWO_ON_A_FILE: two_on_a_file,
    TWO_AT_ONCE: two_at_once,
    RESTARTS: database_restarts,
    AWAY: database_away,
    COORDINATOR: coordinator_frozen,
    WORKER: worker_frozen,
    MACHINE: machine_suspended,
    DEAD_MACHINE: machine_taken_for_dead,
    ALL_MACHINES: all_suspended,
}

OF_A_DATABASE = (
    TWO_AT_ONCE,
    RESTARTS,
    AWAY,
    COORDINATOR,
    WORKER,
    MACHINE,
    DEAD_MACHINE,
    ALL_MACHINES,
)


# Sweeps that lack a defence.


def in_workers(*names: str) -> None:
    """Take defences of workers away, too."""
    os.environ[worker.WITHOUT] = " ".join(names)


def without_resuming() -> None:
    """A trial fails with the first worker that dies of it."""
    studies.MAX_WORKER_DEATHS = 1


def without_a_full_disk() -> None:
    """A full disk is the run's own fault, or the program's."""
    fits.without_a_sentence()
    in_workers("without_a_sentence")


def without_a_file_lock() -> None:
    class Nothing:
        def release(self) -> None:
            pass

    databases._own_file = lambda path, name: Nothing()  # type: ignore[assignment, return-value]


def without_a_sweep_lock() -> None:
    nothing: Any = lambda self: contextlib.nullcontext(lambda: None)  # noqa: E731
    databases.PostgresqlStorage.lock = nothing  # type: ignore[method-assign]


def without_patience() -> None:
    """A storage that does not answer is a fault at once."""
    storages.WAIT_SECONDS = 0.0


def without_asking_who_trains() -> None:
    """Whose coordinator is silent is dead; and that a run is being trained is a fault."""
    find = studies.Studies.__init__

    def init(self: Any, *arguments: Any, **keywords: Any) -> None:
        find(self, *arguments, **{**keywords, "in_use": lambda run_id: False})

    studies.Studies.__init__ = init  # type: ignore[method-assign]
    in_workers("without_leaving")


def without_observing() -> None:
    """Signs of life are compared with this machine's own clock."""

    def give_sign(self: Any, key: int) -> None:
        sign = f"{self._name}-{time.time()}"
        studies.optuna_private.give_sign_of_life(self.storage.optuna, key, sign)

    def look(self: Any, signs: Any) -> set[int]:
        times = {key: sign.split()[0].rpartition("-")[2] for key, sign in signs.items()}
        return {key for key, at in times.items() if at != "None" and time.time() - float(at) > DEAD}

    studies.Studies._give_sign = give_sign  # type: ignore[method-assign]
    liveness.Watch.look = look  # type: ignore[method-assign]


def without_a_cap() -> None:
    """All time counts that has passed since the last look, also that of a suspended machine."""
    liveness.min = lambda passed, interval: passed  # type: ignore[attr-defined]


def without_signs() -> None:
    """A coordinator gives a sign with a claim, and none after it."""
    studies.Studies.beat = lambda self: None  # type: ignore[method-assign]


def without_leaving_what_ended() -> None:
    """That another machine has ended a trial meanwhile is a fault."""
    studies.UpdateFinishedTrialError = worker.NeverRaised  # type: ignore[misc, assignment]


def lacking(attempt: Callable[..., str | None], before: Change) -> faults.Attempt:
    return lambda rng, folder: attempt(rng, folder, before)


def control(attack: str, before: Change) -> tuple[str, faults.Attempt]:
    return attack, lacking(ATTACKS[attack], before)


CONTROLS: faults.Controls = {
    "resuming what a worker died of": control(KILLED, without_resuming),
    "the sentence for a full disk, in a sweep": control(FULL, without_a_full_disk),
    "the lock of an SQLite file": control(TWO_ON_A_FILE, without_a_file_lock),
    "the lock of a sweep": control(TWO_AT_ONCE, without_a_sweep_lock),
    "waiting for a database that restarts": control(RESTARTS, without_patience),
    "waiting for a database that is away": control(AWAY, without_patience),
    "asking whether a run is being trained": control(COORDINATOR, without_asking_who_trains),
    "signs of life": control(WORKER, without_signs),
    "the rule that no clocks are compared": control(MACHINE, without_observing),
    "leaving what another machine has ended": control(DEAD_MACHINE, without_leaving_what_ended),
    # In folders of their own, where no lock of a run stands behind it.
    "the rule that own sleep does not count": (
        ALL_MACHINES,
        lacking(frozen(all_machines, DEAD, 3 * DEAD, shared=False, jump=True), without_a_cap),
    ),
}
