"""Runs under Slurm: which processes belong to one run, and what a requeued job resumes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

    from bclightning.runs.config import RunConfig


def environment_plugins(
    devices: object, nodes: object, environ: Mapping[str, str]
) -> "list[ClusterEnvironment]":
    """What keeps Lightning from taking all tasks of a job for the processes of one run.

    A job may have several tasks for other reasons: a sweep has a coordinator in each, whose workers
    train a run of their own. A run on one device is alone, whatever the job is.

    Args:
        devices: The trainer's ``devices``.
        nodes: The trainer's ``num_nodes``.
        environ: Environment variables.

    Example:
        >>> environment_plugins(1, 1, {})
        []
        >>> environment_plugins(2, 1, {"SLURM_NTASKS": "2"})
        []
        >>> [type(plugin).__name__ for plugin in environment_plugins(1, 1, {"SLURM_NTASKS": "2"})]
        ['LightningEnvironment']
    """
    if "SLURM_NTASKS" not in environ or devices not in (1, "1") or nodes not in (1, None):
        return []
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    return [LightningEnvironment()]


def first_if_alone(
    devices: object, nodes: object, environ: Mapping[str, str]
) -> "list[ClusterEnvironment]":
    """Let this process be the first one, which writes and locks, where a run is on one device.

    By its number among the job's tasks it may be another one to Lightning.

    Returns:
        What keeps Lightning to it; see `environment_plugins`.
    """
    alone = environment_plugins(devices, nodes, environ)
    for environment in alone:
        environment.set_global_rank(0)
    return alone


def refuse_copies(devices: object, nodes: object, environ: Mapping[str, str]) -> None:
    """Refuse to train one run in each of several tasks that ``srun`` started with one command.

    Args:
        devices: The trainer's ``devices``.
        nodes: The trainer's ``num_nodes``.
        environ: Environment variables.

    Raises:
        UserError: There are several, and the run is not distributed over them.

    Example:
        >>> refuse_copies(1, 1, {"SLURM_STEP_NUM_TASKS": "1"})
    """
    tasks = int(environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if tasks > 1 and devices in (1, "1") and nodes in (1, None):
        raise UserError(
            f"srun starts this command {tasks} times, and each would train the same run: give srun "
            "--ntasks=1; for one run on several devices also --trainer.devices and "
            "--trainer.num_nodes with --ntasks-per-node; for different runs a job array"
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in environ:
        raise UserError(
            "a run on several devices needs as many tasks on each node: give srun "
            f"--ntasks-per-node={devices} in place of --ntasks={tasks}"
        )


def resumed_when_requeued(config: "RunConfig", environ: Mapping[str, str]) -> "RunConfig":
    """The configuration that resumes a run where Slurm runs a job once more.

    Slurm requeues a job, after a node failed or on preemption, with the very command that began it.

    Args:
        config: Configuration that the command describes.
        environ: Environment variables.

    Returns:
        The same, or that of the run of that name where the job was requeued and there is one.
    """
    run_id = config["run_id"]
    if not int(environ.get("SLURM_RESTART_COUNT", "0")) or run_id is None or config.run is not None:
        return config
    try:
        folder = RunFolder.find(str(run_id), config["runs_dir"])
    except UserError:
        # It was killed before it had a folder.
        return config
    if config["experiment"] not in (None, folder.path.parent.name):
        return config
    config.set_name(folder.path.parent.name, folder.run_id)
    return config.of_run(folder)
