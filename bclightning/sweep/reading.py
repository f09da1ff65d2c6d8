"""A look at a sweep's studies, which disturbs nobody who works on them."""

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bclightning.errors import UserError
from bclightning.sweep.definition import Definition
from bclightning.sweep.storages import damaged, sqlite_file, sqlite_url
from bclightning.sweep.studies import Studies


@contextlib.contextmanager
def reading(definition: Definition, storage: str) -> Iterator[Studies]:
    """Open the studies of a sweep to read them, also while a coordinator works on them.

    An SQLite file is one coordinator's, which has it locked: what is read is a copy of it.

    Args:
        definition: The sweep's definition.
        storage: URL of its storage.

    Raises:
        UserError: There are no such studies, or they cannot be read.
    """
    with tempfile.TemporaryDirectory() as copies:
        original, file = storage, sqlite_file(storage)
        if file is not None and file.is_file():
            storage = _copy(file, Path(copies))
        try:
            studies = Studies(definition, storage, create=False)
        except UserError as error:
            # What is said is true of the file, and its copy is nobody's concern.
            raise UserError(str(error).replace(storage, original)) from error
        try:
            yield studies
        finally:
            studies.close()


def _copy(source: Path, folder: Path) -> str:
    target = folder / "storage.db"
    try:
        with (
            contextlib.closing(sqlite3.connect(source)) as original,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            original.backup(copy)
    except sqlite3.OperationalError as error:
        raise UserError(f"the storage {source} cannot be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise UserError(damaged(str(source), str(error))) from error
    return sqlite_url(target)
