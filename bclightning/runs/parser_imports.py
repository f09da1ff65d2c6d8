"""What the parser may import, for as long as it reads what is data and not code.

The one module with a private name of jsonargparse: its public `set_parsing_settings` can only add
to what is denied or allowed, for the whole process and for good, while the same process reads a
stranger's run and then its user's own configuration.
"""

import contextlib
import re
import threading
from collections.abc import Iterable, Iterator

from jsonargparse import _common, set_parsing_settings

_DENIED = re.compile(r"Importing '([^']+)' is not allowed")

_SETTINGS: dict[str, object] = _common.parsing_settings

# The settings are those of the process: threads that read take turns.
_lock = threading.RLock()


@contextlib.contextmanager
def imports_limited_to(paths: Iterable[str]) -> Iterator[None]:
    """Let the parser import nothing that a value names, but for some import paths.

    The parser asks before it imports, and asks again where what it got is defined, so that
    ``package.os.system`` is no way around.

    Args:
        paths: Import paths of classes, or of packages, which stand for all that is in them.

    Raises:
        ValueError: A path is not of identifiers with dots, or of the parser itself.
    """
    with _lock:
        before = dict(_SETTINGS)
        try:
            # Begin with nothing, since an entry of an outer scope would stay.
            _SETTINGS["import_path_verdicts"] = {}
            set_parsing_settings(import_path_denylist=["*"], import_path_allowlist=list(paths))
            yield
        finally:
            _SETTINGS.update(before)


def denied_import(message: str) -> str | None:
    """The import path that the parser was not allowed, from the message of its error.

    Example:
        >>> denied_import("Importing 'os.system' is not allowed, denied by the '*' entry")
        'os.system'
    """
    found = _DENIED.search(message)
    return found[1] if found else None
