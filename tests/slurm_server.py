"""A Slurm of our own on this machine, for as long as a block lasts: Debian's package slurm-wlm."""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

# Where Debian has the daemons, which is not on every user's path.
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SchedulerType=sched/builtin
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MinJobAge=600
KillWait=30
NodeName={host} NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def installed() -> bool:
    """Whether Slurm's daemons are there, and may be started: they need to be root's."""
    programs = ("slurmctld", "slurmd", "munged", "srun")
    return os.geteuid() == 0 and all(shutil.which(name, path=PATH) for name in programs)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """Start it, and yield the environment of its commands."""
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    # Munge asks that nobody else could have written to the way to its socket.
    folder.chmod(0o755)
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    config = folder / "slurm.conf"
    config.write_text(
        CONFIG.format(host=host, folder=folder, controller=_free_port(), node=_free_port())
    )
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(config)}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed", "key")]
    daemons = (
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D", "-f", str(config)],
        ["slurmd", "-D", "-f", str(config), "-N", host],
    )
    with contextlib.ExitStack() as started:
        for command in daemons:
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = started.enter_context(subprocess.Popen(command, env=environment, **quiet))
            started.callback(process.terminate)
            if command[0] == "munged":
                _wait_for(lambda: (folder / "munge.socket").exists(), folder)
        _wait_for(lambda: "idle" in _answer(environment, "sinfo", "--noheader"), folder)
        yield environment
        _answer(environment, "scancel", "--full", "--user=root")


def _answer(environment: dict[str, str], *command: str) -> str:
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout


def _wait_for(condition, folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            logs = {path.name: path.read_text()[-2000:] for path in folder.glob("*.log")}
            raise RuntimeError(f"Slurm did not start: {logs}")
        time.sleep(0.2)
