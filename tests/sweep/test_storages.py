"""A storage that is not there just now, is somebody else's, or is damaged: waited for or said."""

import contextlib
import io
import os
import shutil
import socket
import sqlite3
import threading
import time
from dataclasses import replace

import optuna
import pytest
import sqlalchemy
from optuna.trial import TrialState
from rich.console import Console

from bclightning.cli.sweep_view import print_state
from bclightning.errors import MachineError, UserError
from bclightning.runs.record import RunRecord
from bclightning.sweep import databases, storages
from bclightning.sweep.definition import Definition
from bclightning.sweep.studies import Studies

SWEEP = Definition.parse(
    {
        "recipe": "digits.yaml",
        "arms": ["none"],
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1.0, "log": True}},
        "trials": 3,
        "final_seeds": 1,
    },
    "kept",
)


@contextlib.contextmanager
def opened(storage, definition=SWEEP, **options):
    studies = Studies(definition, storage, **options)
    try:
        yield studies
    finally:
        studies.close()


def end(studies, claimed, score=1.0):
    record = RunRecord(claimed.run_id, "kept", "none", "digits", 0, status="finished")
    studies.finish(claimed, replace(record, best_score=score))


class Wire:
    """A wire to a server, which can be cut and mended."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.ends: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.open = True
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if not self.open:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.server_port))
                self.ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self, seconds: float) -> None:
        """Cut all connections, and let no new one through for some time."""
        self.open = False
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        threading.Timer(seconds, self.mend).start()

    def mend(self) -> None:
        self.open = True


@pytest.fixture
def database(postgresql):
    """A database of its own on the server."""
    name = f"t{os.urandom(4).hex()}"
    url = sqlalchemy.make_url(postgresql)
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return url.set(database=name)


@pytest.fixture
def wire(database):
    wire = Wire(database.port)
    yield wire
    wire.listener.close()


def text(url: sqlalchemy.URL) -> str:
    return url.render_as_string(hide_password=False)


@pytest.mark.slow
def test_a_database_that_restarts_is_waited_for_and_nothing_is_done_twice(database, wire):
    url = database.set(host="127.0.0.1", port=wire.port)
    said = []
    with opened(text(url)) as studies:
        studies.storage.notify = said.append
        wire.cut(1.5)
        studies.prepare("a recipe")
        for number in range(3):
            wire.cut(0.0)
            claimed = studies.claim()
            assert claimed.number == number
            wire.cut(1.0)
            assert not studies.report(claimed, 1, 2.0)
            wire.cut(0.0)
            studies.beat()
            wire.cut(1.0)
            end(studies, claimed)
        wire.cut(1.0)
        studies.advance()
        end(studies, studies.claim())
        wire.cut(1.0)
        assert studies.finished()
        trials = [studies.trials("none", stage) for stage in ("tune", "final")]
    assert [[t.state for t in some] for some in trials] == [
        [TrialState.COMPLETE] * 3,
        [TrialState.COMPLETE],
    ]
    assert [t.intermediate_values for t in trials[0]] == [{1: 2.0}] * 3
    waits = [sentence for sentence in said if sentence.startswith("waiting for the storage")]
    assert len(waits) >= 4
    assert said.count(f"the storage {url.render_as_string()} answers again") == len(waits)
    assert database.password not in "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize("table", ["trials", "trial_system_attributes", "trial_params"])
def test_a_database_that_is_lost_between_two_queries_of_a_read_is_waited_for(database, wire, table):
    """Optuna goes on in the transaction that broke, which is another error than a broken one."""
    with opened(text(database.set(host="127.0.0.1", port=wire.port))) as studies:
        studies.prepare("a recipe")
        cuts = []

        @sqlalchemy.event.listens_for(studies.storage._rdb.engine, "before_cursor_execute")
        def cut(connection, cursor, statement, *rest):
            if f"FROM {table}" in statement and not cuts:
                cuts.append(table)
                wire.cut(0.0)

        assert [trial.state for trial in studies.trials("none", "tune")] == [TrialState.WAITING] * 3
        assert cuts == [table]


@pytest.mark.slow
def test_a_database_that_stays_away_is_given_up(database, wire):
    with opened(text(database.set(host="127.0.0.1", port=wire.port))) as studies:
        studies.prepare("a recipe")
        studies.storage.wait_seconds = 1.0
        wire.cut(3.0)
        began = time.monotonic()
        with pytest.raises(MachineError, match="nothing is lost: the same command resumes"):
            studies.claim()
        assert time.monotonic() - began < 3
        with studies.storage.impatient(), pytest.raises(MachineError):
            studies.claim()


@pytest.mark.slow
def test_who_holds_a_lock_for_long_is_named_and_a_look_needs_none(database, monkeypatch):
    monkeypatch.setattr(databases, "LOCK_SECONDS", 0.3)
    with opened(text(database)) as frozen, opened(text(database)) as other:
        frozen.prepare("a recipe")
        claimed = other.claim()
        said = []
        other.storage.notify = said.append
        other.storage.wait_seconds = 1.0
        with frozen.storage.lock():
            with pytest.raises(MachineError, match="nothing is lost") as error:
                other.advance()
            # Trials are claimed without it, and looked at.
            assert other.claim().number == 1
            with opened(text(database), create=False) as look:
                assert not print_state(Console(file=io.StringIO()), look)
        holder = f"process {os.getpid()} on {socket.gethostname()}"[:40]
        assert f"the sweep's lock is held by bcl sweep, {holder}" in str(error.value)
        assert any(holder in sentence for sentence in said)
        # Whoever had it is thawed.
        other.advance()
        end(other, claimed)


@pytest.mark.slow
def test_a_look_at_a_database_makes_nothing(database):
    for _ in range(2):
        with pytest.raises(UserError, match="the sweep kept has not started"):
            Studies(SWEEP, text(database), create=False)
    engine = sqlalchemy.create_engine(database)
    assert sqlalchemy.inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.slow
def test_a_clock_that_jumps_takes_no_trial_from_whoever_lives(database, monkeypatch):
    """The database's clock once decided who was alive; here it may show what it will."""
    now = [0.0]
    with (
        opened(text(database)) as one,
        opened(text(database)) as two,
    ):
        for studies in (one, two):
            monkeypatch.setattr(studies._watch, "_clock", lambda: now[0])
        one.prepare("a recipe")
        claimed = one.claim()
        for _ in range(6):
            now[0] += 3600.0
            one.beat()
            two.advance()
        assert two.claim().number == 1
        # It dies: three times ten seconds of silence are enough, and no jump of an hour is.
        for passed in (10.0, 10.0, 3600.0):
            assert two.trials("none", "tune")[0].state == TrialState.RUNNING
            now[0] += passed
            two.advance()
        assert two.claim().number == 0
        # After all it lives, and its run ends.
        one.beat()
        end(one, claimed, 4.0)
        one.requeue(claimed)
        first = two.trials("none", "tune")[0]
        assert (first.state, first.value) == (TrialState.COMPLETE, 4.0)


@pytest.mark.slow
def test_whoever_was_frozen_does_not_requeue_what_is_another_ones(database, monkeypatch):
    now = [0.0]
    with opened(text(database)) as frozen, opened(text(database)) as other:
        monkeypatch.setattr(other._watch, "_clock", lambda: now[0])
        frozen.prepare("a recipe")
        lost, kept = frozen.claim(), frozen.claim()
        for _ in range(4):
            now[0] += 10.0
            other.advance()
        claimed = other.claim()
        assert claimed.number == lost.number
        # The frozen one wakes up: what nobody has taken meanwhile is its own again.
        frozen.beat()
        assert [t.state for t in other.trials("none", "tune")[:2]] == [TrialState.RUNNING] * 2
        # It is stopped, and gives back what it has, which is not what the other one has.
        for trial in (lost, kept):
            frozen.requeue(trial)
        states = [t.state for t in other.trials("none", "tune")[:2]]
        assert states == [TrialState.RUNNING, TrialState.WAITING]


@pytest.mark.slow
def test_whoever_was_frozen_does_not_fail_what_is_another_ones(database, monkeypatch):
    """Its worker may find that the run is there, or that its folder is gone."""
    now = [0.0]
    with opened(text(database)) as frozen, opened(text(database)) as other:
        monkeypatch.setattr(other._watch, "_clock", lambda: now[0])
        frozen.prepare("a recipe")
        lost = frozen.claim()
        for _ in range(4):
            now[0] += 10.0
            other.advance()
        claimed = other.claim()
        assert claimed.number == lost.number
        frozen.fail(lost, "the run folder exists")
        assert other.trials("none", "tune")[0].state == TrialState.RUNNING
        end(other, claimed)
        assert other.trials("none", "tune")[0].state == TrialState.COMPLETE
        # What is its own it may fail, and so may whoever has it now.
        mine = frozen.claim()
        frozen.fail(mine, "NaN or infinity")
        assert other.trials("none", "tune")[mine.number].state == TrialState.FAIL


def test_a_run_that_is_trained_is_left_to_its_process(tmp_path):
    """On a file, which no other coordinator has: a worker outlived its own, or it is by hand."""
    storage = f"sqlite:///{tmp_path / 'storage.db'}"
    trained = {"kept-none-t000"}
    with opened(storage) as before:
        before.prepare("a recipe")
        assert before.claim().run_id == "kept-none-t000"
        assert before.claim().run_id == "kept-none-t001"
    with opened(storage, in_use=lambda run_id: run_id in trained) as studies:
        studies.prepare("a recipe")
        assert [studies.claim().number, studies.claim().number] == [1, 2]
        assert studies.claim() is None
        assert not studies.finished()
        trained.clear()
        studies.advance()
        claimed = studies.claim()
        assert claimed.number == 0
        # Somebody was faster with its folder.
        trained.add(claimed.run_id)
        studies.let_go(claimed)
        studies.advance()
        assert studies.claim() is None


def test_own_trials_are_never_taken_back(tmp_path):
    """Whatever clock jumps: by the storage's the workers had long been silent."""
    path = tmp_path / "storage.db"
    with opened(f"sqlite:///{path}", heartbeat=1) as studies:
        studies.prepare("a recipe")
        claimed = studies.claim()
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE trial_heartbeats SET heartbeat = '2001-01-01'")
            connection.execute("UPDATE trials SET datetime_start = '2001-01-01'")
        for _ in range(3):
            studies.advance()
        assert [studies.claim().number, studies.claim().number] == [1, 2]
        assert studies.claim() is None
        end(studies, claimed)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The storage of a sweep with a trial that ended, one that failed, and one that runs."""
    path = tmp_path_factory.mktemp("kept") / "storage.db"
    with opened(f"sqlite:///{path}") as studies:
        studies.prepare("a recipe")
        end(studies, studies.claim())
        studies.fail(studies.claim(), "the loss is NaN")
        studies.report(studies.claim(), 1, 5.0)
    return path


MUTATIONS = [
    "UPDATE alembic_version SET version_num = 'v0.9.0.a'",
    "UPDATE alembic_version SET version_num = 'nonsense'",
    "DELETE FROM alembic_version",
    "UPDATE version_info SET schema_version = 99",
    "UPDATE trial_user_attributes SET value_json = '{'",
    "UPDATE trial_user_attributes SET value_json = '[]'",
    "UPDATE trial_user_attributes SET value_json = '7' WHERE key = 'record'",
    "UPDATE trial_user_attributes SET value_json = '\"a\\u001b[2Jb\"' WHERE key = 'reason'",
    "UPDATE trial_system_attributes SET value_json = 'x'",
    "UPDATE trial_system_attributes SET value_json = '7'",
    "UPDATE study_user_attributes SET value_json = '7'",
    "UPDATE study_user_attributes SET value_json = '{]'",
    "UPDATE study_system_attributes SET value_json = '7'",
    "UPDATE study_system_attributes SET value_json = '[]'",
    "DELETE FROM study_user_attributes",
    "UPDATE trial_params SET distribution_json = '{}'",
    "UPDATE trial_params SET distribution_json = '['",
    "UPDATE trial_params SET param_value = 'text'",
    "DELETE FROM trial_params",
    "DELETE FROM trial_values",
    "UPDATE trial_values SET value = NULL",
    "UPDATE trial_values SET value_type = 'other'",
    "UPDATE trials SET state = 'DREAMING'",
    "UPDATE trials SET state = 'COMPLETE'",
    "UPDATE trials SET number = 7",
    "UPDATE trials SET number = NULL",
    "UPDATE trials SET datetime_start = 'yesterday'",
    "DELETE FROM trials WHERE number = 0",
    "DELETE FROM trials",
    "UPDATE trial_intermediate_values SET intermediate_value = 'x'",
    "DROP TABLE trials",
    "DROP TABLE trial_user_attributes",
    "ALTER TABLE trials RENAME COLUMN state TO mood",
    "UPDATE study_directions SET direction = 'SIDEWAYS'",
    "DELETE FROM study_directions",
    "DELETE FROM studies",
]


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_storage_that_was_changed_is_used_or_refused_in_a_sentence(kept, tmp_path, mutation):
    path = tmp_path / "storage.db"
    shutil.copy(kept, path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(mutation)
    said = io.StringIO()
    try:
        with opened(f"sqlite:///{path}") as studies:
            studies.prepare("a recipe")
            print_state(Console(file=said), studies)
            studies.records()
            while (claimed := studies.claim()) is not None:
                studies.report(claimed, 2, 1.0)
                studies.requeue_or_fail(claimed, 1)
                end(studies, studies.claim())
                studies.advance()
    except UserError as error:
        said.write(str(error))
    assert "nothing is lost" not in said.getvalue()
    assert "\x1b" not in said.getvalue()
    # It is let go in either case.
    path.unlink()
    with opened(f"sqlite:///{path}") as studies:
        studies.prepare("a recipe")


@pytest.mark.parametrize("place", [0, 30, 5000, 20000])
def test_damage_is_called_damage(kept, tmp_path, place):
    content = bytearray(kept.read_bytes())
    content[place : place + 4096] = b"\xff" * 4096
    path = tmp_path / "storage.db"
    path.write_bytes(content)
    with pytest.raises(UserError) as error, opened(f"sqlite:///{path}") as studies:
        studies.prepare("a recipe")
    assert "nothing is lost" not in str(error.value)
    assert "damaged" in str(error.value)


def test_a_file_that_another_program_has_locked_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(storages, "_PAUSES", (0.1,))
    path = tmp_path / "storage.db"
    with opened(f"sqlite:///{path}") as studies:
        studies.prepare("a recipe")
        said = []
        studies.storage.notify = said.append
        # SQLite itself waits for five seconds before it says so.
        for engine in (studies.storage._rdb.engine,):
            with engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        threading.Timer(0.5, lambda: other.execute("COMMIT")).start()
        assert studies.claim().number == 0
        other.close()


@pytest.mark.slow
def test_a_thousand_trials_are_soon_prepared(tmp_path):
    many = replace(SWEEP, trials=1000)
    began = time.process_time()
    with opened(f"sqlite:///{tmp_path / 'storage.db'}", many) as studies:
        studies.prepare("a recipe")
        assert len(studies.trials("none", "tune")) == 1000
    assert time.process_time() - began < 20


def test_what_optuna_shows_has_no_private_attributes(tmp_path):
    """Signs of life are no results: they are kept apart from what users see of a trial."""
    storage = f"sqlite:///{tmp_path / 'storage.db'}"
    with opened(storage) as studies:
        studies.prepare("a recipe")
        studies.claim()
        studies.beat()
    study = optuna.load_study(study_name="kept-none-tune", storage=storage)
    assert study.get_trials()[0].user_attrs == {}


@pytest.mark.slow
def test_whoever_loses_a_claim_leaves_no_sign(database, monkeypatch):
    """The winner would take the trial for lost, and give no further sign of life for it."""
    with opened(text(database)) as winner, opened(text(database)) as loser:
        winner.prepare("a recipe")
        real = loser._claim

        def late(arm, stage, number):
            if number == 0:
                assert winner.claim().number == 0
            return real(arm, stage, number)

        monkeypatch.setattr(loser, "_claim", late)
        assert loser.claim().number == 1
        first = winner.trials("none", "tune")[0]
        assert winner._has(first)
        assert not loser._has(first)


@pytest.mark.slow
def test_a_claim_is_a_sign_of_life_at_once(database, monkeypatch):
    """Who has watched a dead worker does not take its trial's next one for dead at once."""
    now = [0.0]
    with (
        opened(text(database)) as dead,
        opened(text(database)) as new,
        opened(text(database)) as observer,
    ):
        monkeypatch.setattr(observer._watch, "_clock", lambda: now[0])
        dead.prepare("a recipe")
        claimed = dead.claim()
        for _ in range(3):
            observer.advance()
            now[0] += 9.9
        # Another coordinator was faster to see it, and claims it; its first sign is on the way.
        dead.requeue(claimed)
        monkeypatch.setattr(new, "_give_sign", lambda key: None)
        assert new.claim().number == 0
        for _ in range(2):
            now[0] += 9.9
            observer.advance()
        assert observer.trials("none", "tune")[0].state == TrialState.RUNNING


def test_a_claim_that_is_cut_off_loses_no_trial(tmp_path, monkeypatch):
    """The storage fails between a claim and its first sign of life, and another one is made."""
    with opened(f"sqlite:///{tmp_path / 'storage.db'}") as studies:
        studies.prepare("a recipe")
        real, failures = studies._give_sign, [storages.Passing("it is away")]

        def give(key):
            if failures:
                raise failures.pop()
            real(key)

        monkeypatch.setattr(studies, "_give_sign", give)
        assert studies.claim().number == 1
        studies.advance()
        assert studies.claim().number == 0
