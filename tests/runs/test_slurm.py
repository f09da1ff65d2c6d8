"""Under a real Slurm: whose processes are one run, what is requeued, and a sweep on all tasks."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slurm_server
import yaml

from bclightning.errors import UserError
from bclightning.runs.config import RunConfig
from bclightning.runs.run import fit
from bclightning.runs.slurm import refuse_copies, resumed_when_requeued

EXAMPLES = Path(__file__).parents[2] / "examples" / "slurm"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """The environment of the commands of a Slurm of our own, which has `bcl`."""
    if not slurm_server.installed():
        pytest.skip("needs Debian's package slurm-wlm, and to be root")
    folder = tmp_path_factory.mktemp("slurm")
    programs = folder / "bin"
    programs.mkdir()
    bcl = programs / "bcl"
    bcl.write_text(f'#!/bin/sh\nexec {sys.executable} -m bclightning "$@"\n')
    bcl.chmod(0o755)
    with slurm_server.running(folder / "server") as environment:
        yield {**environment, "PATH": f"{programs}:{environment['PATH']}"}


def call(slurm, *command, seconds=200) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, env=slurm, capture_output=True, text=True, timeout=seconds, check=False
    )


def wait_for(condition, said, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, said()
        time.sleep(0.3)


def short(tiny, name="short.yaml", **change) -> str:
    content = yaml.safe_load(Path(tiny).read_text())
    content["trainer"].update(change)
    Path(name).write_text(yaml.safe_dump(content))
    return name


@pytest.mark.slow
def test_one_run_in_a_job_of_two_tasks(folder, tiny, slurm):
    """Lightning takes each task for a process of one run: it ended with a traceback."""
    recipe = short(tiny, max_epochs=1)
    fit = ["bcl", "fit", "--config", recipe]
    copies = call(slurm, "srun", "--ntasks=2", *fit)
    assert copies.returncode == 2
    assert "srun starts this command 2 times, and each would train the same run" in copies.stderr
    assert "Traceback" not in copies.stderr
    assert not Path("results").exists()
    # A step of one task in a job of two is a run.
    script = f"srun --ntasks=1 {' '.join(fit)} --run_id alone"
    alone = call(slurm, "salloc", "--ntasks=2", "sh", "-c", script)
    assert alone.returncode == 0, alone.stderr
    assert json.loads(Path("results/runs/digits/alone/run.json").read_text())["test"]


@pytest.mark.slow
def test_a_sweep_on_all_tasks_of_a_job(folder, tiny, slurm, postgresql):
    """Each task has a coordinator, and its runs are those of nobody else."""
    sweep = {
        "recipe": short(tiny, max_epochs=2),
        "name": "tasks",
        "arms": ["none"],
        "final_seeds": 6,
    }
    Path("tasks.yaml").write_text(yaml.safe_dump(sweep))
    words = ["tasks.yaml", "--storage", postgresql]
    done = call(slurm, "srun", "--ntasks=2", "--label", "bcl", "sweep", *words)
    assert done.returncode == 0, done.stderr
    for task in (0, 1):
        assert f"{task}: tasks-none-s" in done.stdout
    found = sorted(Path("results/runs/tasks").glob("*/run.json"))
    records = [json.loads(path.read_text()) for path in found]
    assert [record["run_id"] for record in records] == [f"tasks-none-s{s}" for s in range(1, 7)]
    assert {record["status"] for record in records} == {"finished"}
    assert all(record["test"] for record in records)
    logs = sorted(path.name for path in Path("results/runs/tasks").glob("worker-*.log"))
    assert logs == ["worker-0-0.log", "worker-1-0.log"]


@pytest.mark.slow
def test_a_requeued_job_resumes_its_run(folder, tiny, slurm):
    recipe = short(tiny, max_epochs=60)
    submit = ["sbatch", "--parsable", "--cpus-per-task=1", "--output=log", "--open-mode=append"]
    sent = call({**slurm, "CONFIG": recipe}, *submit, EXAMPLES / "fit.sbatch")
    job = sent.stdout.strip()
    assert job, sent.stderr

    def said():
        return (Path("log").read_text() if Path("log").exists() else "") + str(
            call(slurm, "scontrol", "show", "job", job).stdout
        )

    run = Path(f"results/runs/digits/slurm-{job}-s0")
    wait_for(lambda: (run / "checkpoints" / "last.ckpt").exists(), said)
    assert call(slurm, "scontrol", "requeue", job).returncode == 0
    wait_for(lambda: "JobState=PENDING" in said(), said)
    kept = (run / "metrics.csv").read_text().splitlines()
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    # Slurm lets a requeued job wait for two minutes.
    call(slurm, "scontrol", "update", f"jobid={job}", "starttime=now")
    wait_for(lambda: "JobState=COMPLETED" in said(), said, 300)
    assert "Restarts=1" in said()
    record = json.loads((run / "run.json").read_text())
    assert (record["status"], record["epochs"]) == ("finished", 60)
    rows = (run / "metrics.csv").read_text().splitlines()
    assert len(rows) == 61
    assert rows[: len(kept)] == kept


@pytest.mark.slow
def test_the_example_of_a_sweep(folder, tiny, slurm):
    """Without a database: the job's first node serves a file."""
    pytest.importorskip("grpc")
    sweep = {"recipe": short(tiny, max_epochs=1), "arms": ["none"], "final_seeds": 2}
    Path("mine.yaml").write_text(yaml.safe_dump(sweep))
    submit = ["sbatch", "--wait", "--cpus-per-task=1", "--ntasks-per-node=2", "--output=log"]
    done = call(slurm, *submit, EXAMPLES / "sweep.sbatch", "mine.yaml")
    said = Path("log").read_text()
    assert done.returncode == 0, said
    for seed in (1, 2):
        assert f"mine-none-s{seed}: finished" in said


def test_several_tasks_must_be_the_devices_of_one_run():
    tasks = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    with pytest.raises(UserError, match="starts this command 2 times"):
        refuse_copies(1, 1, tasks)
    with pytest.raises(UserError, match="give srun --ntasks-per-node=2 in place of --ntasks=2"):
        refuse_copies(2, 1, tasks)
    refuse_copies(2, 1, {**tasks, "SLURM_NTASKS_PER_NODE": "2"})
    refuse_copies(1, 1, {"SLURM_NTASKS": "2"})


@pytest.mark.parametrize("experiment", [None, "digits", "other"])
def test_a_requeued_command_is_the_run_that_it_began(folder, tiny, experiment):
    again = {"SLURM_RESTART_COUNT": "1"}
    named = {"run_id": "mine", "trainer.max_epochs": 1, "experiment": experiment}
    config = RunConfig.load(tiny, named)
    assert resumed_when_requeued(config, again) is config
    begun = RunConfig.load(tiny, {**named, "experiment": "digits"})
    path = Path("results/runs/digits/mine/config.yaml")
    path.parent.mkdir(parents=True)
    begun.write(path)
    # Nobody else's command takes a run that exists for its own.
    assert resumed_when_requeued(config, {}) is config
    assert resumed_when_requeued(config, {"SLURM_RESTART_COUNT": "0"}) is config
    resumed = resumed_when_requeued(config, again)
    if experiment == "other":
        assert resumed is config
    else:
        assert (resumed.run.path, resumed.changed) == (path.parent, [])
        other = RunConfig.load(tiny, {**named, "model.learning_rate": 0.5})
        assert resumed_when_requeued(other, again).changed == ["--model.learning_rate"]


STOPPED_AND_RESUMED = """
import os
import signal
import sys
from pathlib import Path

from lightning.pytorch import Callback

from bclightning import RunConfig, fit
from bclightning.runs.folder import RunFolder
from bclightning.runs.interrupt import Interrupted


class Stops(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, module):
        assert RunFolder(Path("results/runs/digits/mine")).in_use()
        if trainer.current_epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGTERM)


try:
    fit(RunConfig.load(sys.argv[1], {"run_id": "mine"}), callbacks=[Stops(1)])
except Interrupted:
    record = fit(RunConfig.from_run("mine"), callbacks=[Stops(None)])
    assert record.test and record.status == "finished"
"""


def test_a_task_of_any_number_writes_what_it_trains(folder, tiny):
    """Lightning takes a process by its number among a job's tasks for one that writes nothing.

    Until there was a trainer it was one: it wrote to the folder of an earlier run, if its parent
    had trained one, and held no lock on the run that it resumed.
    """
    tasks = {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"}
    job = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "job", "BCL_RUN_FOLDER": str(folder / "earlier")}
    command = [sys.executable, "-c", STOPPED_AND_RESUMED, tiny]
    subprocess.run(command, env={**os.environ, **tasks, **job}, check=True)
    (path,) = folder.rglob("run.json")
    assert path == folder / "results/runs/digits/mine/run.json"
    assert json.loads(path.read_text())["status"] == "finished"


def test_a_run_leaves_no_word_of_its_folder_to_later_processes(folder, tiny):
    fit(RunConfig.load(tiny, {"trainer.max_epochs": 1}))
    assert "BCL_RUN_FOLDER" not in os.environ
