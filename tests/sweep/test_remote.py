"""A storage server for machines without a database: the promises of one, and its own."""

import argparse
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest
import yaml

from bclightning.cli import storage
from bclightning.cli.main import main
from bclightning.errors import MachineError, UserError
from bclightning.runs.record import RunRecord
from bclightning.sweep import remote
from bclightning.sweep.definition import Definition
from bclightning.sweep.remote import served
from bclightning.sweep.studies import Studies
from bclightning.vocabulary import DEFAULT_PORT

SWEEP = Definition.parse(
    {
        "recipe": "digits.yaml",
        "arms": ["none"],
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1.0, "log": True}},
        "trials": 12,
        "final_seeds": 1,
    },
    "far",
)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def opened(url, definition=SWEEP, **options):
    studies = Studies(definition, url, **options)
    try:
        yield studies
    finally:
        studies.close()


def end(studies, claimed):
    record = RunRecord(claimed.run_id, "far", "none", "digits", 0, status="finished")
    studies.finish(claimed, replace(record, best_score=1.0))


@pytest.fixture
def server(tmp_path):
    """The URL of a server on a file of its own."""
    port = free_port()
    with served(tmp_path / "sweeps.db", "localhost", port):
        yield f"grpc://localhost:{port}"


def test_coordinators_share_the_trials_out(server):
    found = [[] for _ in range(3)]

    def work(mine):
        with opened(server) as studies:
            studies.prepare("a recipe")
            while (claimed := studies.claim()) is not None:
                mine.append(claimed.number)
                studies.report(claimed, 1, 2.0)
                studies.beat()
                end(studies, claimed)
                studies.advance()

    threads = [threading.Thread(target=work, args=(mine,)) for mine in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Twelve trials and one final run, each once, although all three prepared and began them.
    assert sorted(number for mine in found for number in mine) == sorted([*range(12), 0])
    with opened(server, create=False) as look:
        assert look.finished()
        assert len(look.records()) == 13


def test_a_lock_is_held_by_one_is_named_and_falls_with_its_holder(server, monkeypatch):
    monkeypatch.setattr(remote, "LOCK_SECONDS", 0.3)
    hold = (
        "import sys, time\n"
        "import sqlalchemy\n"
        "from bclightning.sweep.remote import RemoteStorage\n"
        "storage = RemoteStorage(sqlalchemy.make_url(sys.argv[1]), 'far')\n"
        "with storage.lock() as check:\n"
        "    check()\n"
        "    print('held', flush=True)\n"
        "    time.sleep(60)\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, server], stdout=subprocess.PIPE, text=True
    )
    with holder, opened(server) as studies:
        assert holder.stdout.readline() == "held\n"
        studies.storage.wait_seconds = 0.5
        with pytest.raises(MachineError, match=f"lock is held by process {holder.pid} on "):
            studies.prepare("a recipe")
        holder.kill()
        studies.storage.wait_seconds = 20.0
        studies.prepare("a recipe")
        assert studies.claim().number == 0
        # Those of sweeps of other names are others.
        with studies.storage.lock(), opened(server, replace(SWEEP, name="near")) as other:
            other.prepare("a recipe")


def test_a_server_that_is_started_again_is_waited_for(tmp_path):
    port = free_port()
    url, file = f"grpc://localhost:{port}", tmp_path / "sweeps.db"
    said = []
    with contextlib.ExitStack() as first:
        first.enter_context(served(file, "localhost", port))
        studies = Studies(SWEEP, url)
        studies.storage.notify = said.append
        studies.prepare("a recipe")
        claimed = studies.claim()
    with contextlib.ExitStack() as again, contextlib.closing(studies):
        start = threading.Timer(1.0, lambda: again.enter_context(served(file, "localhost", port)))
        start.start()
        end(studies, claimed)
        assert studies.claim().number == 1
        start.join()
    assert [sentence.partition("(")[0] for sentence in said] == [
        f"waiting for the storage {url} ",
        f"the storage {url} answers again",
    ]


def test_what_cannot_be_used_is_said(tmp_path, server, refused):
    nobody = f"grpc://localhost:{free_port()}"
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(remote, "READY_SECONDS", 0.5)
        with pytest.raises(UserError, match=f"no storage server answers at {nobody}; start one"):
            Studies(SWEEP, nobody)
    for url in ("grpc:///file", "grpc://localhost:1/x"):
        with pytest.raises(UserError, match="--storage must be"):
            Studies(SWEEP, url)
    with pytest.raises(UserError, match="the sweep far has not started"):
        Studies(SWEEP, server, create=False)
    port = server.rpartition(":")[2]
    said = refused("storage", str(tmp_path / "other.db"), "--port", port)
    assert f"nothing can be served at localhost:{port}" in said
    said = refused("storage", str(tmp_path / "sweeps.db"), "--port", str(free_port()))
    assert "is running already" in said


def test_without_grpc_it_is_said_what_to_install(tmp_path, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "bclightning.sweep.remote")
    with pytest.raises(UserError, match=r"pip install 'bclightning\[grpc\]'"):
        Studies(SWEEP, "grpc://localhost:13000")
    assert "pip install 'bclightning[grpc]'" in refused("storage", str(tmp_path / "sweeps.db"))


@pytest.mark.slow
def test_two_coordinators_one_of_them_killed_and_the_server_too(folder, tiny):
    """As on two machines: each has a folder of runs of its own."""
    definition = {
        "recipe": tiny,
        "arms": ["none", "stochastic"],
        "overrides": {"trainer.max_epochs": 4},
        "space": {"model.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        "trials": 3,
        "final_seeds": 2,
    }
    (folder / "far.yaml").write_text(yaml.safe_dump(definition))
    port = free_port()
    bcl = [sys.executable, "-m", "bclightning"]
    serve = [*bcl, "storage", "sweeps.db", "--port", str(port)]
    url = f"grpc://localhost:{port}"

    def start(name):
        words = ["sweep", "far.yaml", "--storage", url, "--heartbeat", "1", "--runs_dir", name]
        with open(f"{name}.log", "ab") as log:
            return subprocess.Popen([*bcl, *words], stdout=log, stderr=log)

    def said(name):
        return (folder / f"{name}.log").read_text()

    server = subprocess.Popen(serve, stdout=subprocess.PIPE)
    assert server.stdout.readline() == f"serving sweeps.db at {url}\n".encode()
    one, two = start("one"), start("two")
    deadline = time.monotonic() + 200
    while ": finished" not in said("one") or ": finished" not in said("two"):
        assert time.monotonic() < deadline, said("one") + said("two")
        time.sleep(0.1)
    one.kill()
    server.kill()
    server.communicate()
    one.wait()
    server = subprocess.Popen(serve, stdout=subprocess.DEVNULL)
    assert two.wait(300) == 0, said("two")
    with opened(url, Definition.read(folder / "far.yaml"), create=False) as look:
        records = look.records()
    assert sorted(record.run_id for record in records) == sorted(
        [
            *(f"far-{arm}-t{n:03}" for arm in ("none", "stochastic") for n in range(3)),
            *(f"far-{arm}-s{n}" for arm in ("none", "stochastic") for n in (1, 2)),
        ]
    )
    assert {record.status for record in records} == {"finished"}
    server.terminate()
    assert server.wait(20) == 143
    os.chdir(folder)
    with served("sweeps.db", "localhost", port):
        main(["sweep", "far.yaml", "--storage", url, "--status"])


def test_the_server_and_its_address_have_one_port_unless_another_is_given(monkeypatch):
    parser = argparse.ArgumentParser()
    storage.add_arguments(parser)
    assert parser.parse_args(["sweeps.db"]).port == DEFAULT_PORT
    monkeypatch.setattr(remote, "READY_SECONDS", 0.1)
    monkeypatch.setattr(remote, "DEFAULT_PORT", port := free_port())
    with pytest.raises(UserError, match=f"grpc://localhost:{port};"):
        Studies(SWEEP, "grpc://localhost")
