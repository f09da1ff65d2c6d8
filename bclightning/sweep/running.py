"""A whole sweep on this machine, as a function."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.hyperparameters import is_place
from bclightning.runs.interrupt import Interrupted, interruptible
from bclightning.runs.record import RunRecord
from bclightning.storage import expanded, full_disk, home_expanded, write_text
from bclightning.sweep.definition import Definition
from bclightning.sweep.inputs import checksums, read_recipe, with_nested_files

if TYPE_CHECKING:
    from bclightning.sweep.view import View

# The recipe that a sweep was begun with, in the sweep's folder.
RECIPE_COPY = "recipe.yaml"


def sweep(
    definition: Definition | Mapping[str, Any] | str | Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    storage: str | None = None,
    runs_dir: str | Path = "results/runs",
    options: Mapping[str, Any] | None = None,
    heartbeat: int = 10,
    view: "View | None" = None,
    allow_code: Sequence[str] = (),
) -> list[RunRecord]:
    """Run a sweep, or resume one: a study of trials for each arm, then final runs on fresh seeds.

    Only the final runs touch the test set. Whatever is killed meanwhile, a worker or this process,
    the same call resumes the sweep. Nothing is printed; what runs print is in the files
    ``worker-0.log`` and so on in the sweep's folder.

    Runs train in processes of their own, which are not forked from this one and do not import its
    main module: a script needs no ``if __name__ == "__main__":``, and classes that a recipe names
    must be in a module that can be imported.

    Args:
        definition: A definition, a mapping with the keys of the YAML file and a ``name``, the path
            of a YAML file, or the bare name of a shipped definition.
        jobs: Number of worker processes.
        threads: Number of threads of each worker; the cores divided by the workers if ``None``.
        storage: URL of the studies: a PostgreSQL database or a storage server, which several
            machines can share; if ``None``, an SQLite file in the sweep's folder.
        runs_dir: Folder of all runs: the sweep's lie in the folder of its name in it.
        options: Options of all runs that say where things are and where runs are logged, by dotted
            name, as ``{"data.root": "/data", "wandb.mode": "offline"}``.
        heartbeat: Seconds between signs of life. A coordinator whose signs have stopped for three
            times as long is taken for dead, and others resume its trials.
        view: What is told of events; nothing is if ``None``.
        allow_code: Packages whose classes a definition may name that lies in a page or in another's
            sweep, beside bclightning, torch.nn and Lightning. Any other definition is code.

    Returns:
        The records of all trials and final runs that ended, wherever they ran. A failed one has the
        status ``failed`` and a reason.

    Raises:
        UserError: Something is wrong with the definition, an argument, the machine or the storage.
        Interrupted: The sweep was stopped by Ctrl-C or SIGTERM.

    Example:
        >>> try:
        ...     sweep({"name": "mine", "recipe": "digits.yaml", "arms": ["none"]}, jobs=0)
        ... except UserError as error:
        ...     print(error)
        jobs must be an integer of at least 1, got 0
    """
    source = definition
    definition = Definition.load(source)
    _check_arguments(jobs, threads, heartbeat, options or {})
    # What needs no torch has been checked. Workers' server and this process now import it at once.
    from bclightning.sweep.coordinator import Coordinator, start_worker_server

    start_worker_server("bclightning.sweep.worker")
    from bclightning.runs.allowed_code import allowed_in_definition
    from bclightning.sweep.check import check
    from bclightning.sweep.studies import Studies
    from bclightning.sweep.view import View
    from bclightning.sweep.worker import work

    recipe_text, recipe = read_recipe(definition.recipe)
    options_of_arms = [definition.overrides, definition.arms, definition.choices]
    files = checksums([recipe, *options_of_arms])
    allowed = allowed_in_definition(source, allow_code)
    recipe = with_nested_files(recipe, allowed)
    runs_dir = expanded(runs_dir)
    everywhere = {**home_expanded(dict(options or {})), "runs_dir": str(runs_dir)}
    monitor = check(definition, recipe, everywhere, allowed)
    folder = Path(runs_dir) / definition.name
    _make(folder)
    view = view or View()
    with interruptible():
        url = storage or default_storage(definition, runs_dir)
        studies = Studies(
            definition,
            url,
            heartbeat,
            in_use=lambda run_id: RunFolder(folder / run_id).in_use(),
        )
        studies.storage.notify = view.notice
        try:
            studies.prepare(recipe_text, monitor, files)
            _keep_inputs(folder, definition, recipe_text, code=allowed is None)
            view.start(studies, jobs)
            try:
                read_later = checksums([recipe, *options_of_arms])
                coordinator = Coordinator(
                    studies, folder, recipe, view, work, everywhere, allowed, read_later
                )
                coordinator.run(jobs, threads)
            except Interrupted as interruption:
                interruption.sweep = True
                raise
            finally:
                view.stop()
            return studies.records()
        finally:
            studies.close()


def default_storage(definition: Definition, runs_dir: str | Path) -> str:
    """The URL of the SQLite file in a sweep's folder.

    Example:
        >>> digits = Definition.load({"name": "digits", "recipe": "digits.yaml", "arms": ["none"]})
        >>> default_storage(digits, "results/runs")
        'sqlite:///results/runs/digits/storage.db'
    """
    # Imported here: who only asks for the URL need not wait for what opens it.
    from bclightning.sweep.storages import sqlite_url

    return sqlite_url(expanded(runs_dir) / definition.name / "storage.db")


def _check_arguments(
    jobs: int, threads: int | None, heartbeat: int, options: Mapping[str, Any]
) -> None:
    for name, number in (("jobs", jobs), ("threads", threads), ("heartbeat", heartbeat)):
        if number is not None and (not isinstance(number, int) or number < 1):
            raise UserError(f"{name} must be an integer of at least 1, got {number!r}")
    for key in options:
        if not is_place(key):
            raise UserError(
                f"options: {key} changes what is trained; give it in the definition's overrides"
            )


def _keep_inputs(folder: Path, definition: Definition, recipe_text: str, code: bool) -> None:
    """Keep the definition and the recipe, as they were read, beside the runs made of them."""
    from bclightning.runs.origin import signed

    text = yaml.safe_dump(definition.plain(), sort_keys=False)
    # What was read as data does not become code by being written again.
    write_text(folder / "sweep.yaml", signed(text) if code else text)
    write_text(folder / RECIPE_COPY, recipe_text)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise full_disk(error, folder) or UserError(
            f"the folder {folder} cannot be created: {error.strerror}; give another runs_dir"
        ) from error
