"""Which files this user's own runs and sweeps wrote: a keyed checksum in the file's last line."""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bclightning.storage import expanded

_TAG = "# made here: "
_KEY = re.compile(r"[0-9a-f]{64}")

# Packages that nothing in the current folder is taken for, since every configuration names them.
_NEVER_OWN = {"bclightning", "lightning", "torch", "torchmetrics"}


def key_file() -> Path | None:
    """The file of the user's key, in the folder of the user's settings; ``None`` without a home."""
    settings = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(settings):
        return Path(settings) / "bclightning" / "key"
    try:
        return Path.home() / ".config" / "bclightning" / "key"
    except RuntimeError:
        return None


def signed(text: str) -> str:
    """A text with the line that says that this user wrote it.

    The key is made at the first use. Where it can be neither read nor written, as without a home,
    the text stays as it is, and is taken for a stranger's later.

    Args:
        text: Lines, each with its end.
    """
    key = _read_key() or _make_key()
    return text if key is None else f"{text}{_TAG}{_checksum(key, text)}\n"


def made_here(text: str) -> bool:
    r"""Whether a text is one that `signed` returned to this user, unchanged.

    Example:
        >>> made_here("seed_everything: 1\n")
        False
    """
    body, tag, checksum = text.rpartition(_TAG)
    key = _read_key() if tag else None
    return key is not None and hmac.compare_digest(_checksum(key, body), checksum.strip())


def definition_is_code(source: Any) -> bool:
    """Whether a sweep's definition is its user's own, as a configuration is.

    One that lies in a page, or in the folder of a sweep, and was not made here is data.

    Args:
        source: The definition's file or bare name; anything else is its user's own.
    """
    path = expanded(source) if isinstance(source, str | os.PathLike) else None
    if path is None or not path.is_file():
        return True
    if not (path.parent / "storage.db").exists() and not any(path.parent.glob("*/run.json")):
        return True
    return made_here(path.read_text(encoding="utf-8", errors="replace"))


def find_own_modules(content: Any = None) -> None:
    """Let Python find modules in the current folder too.

    Where a configuration names a module that lies there, the folder comes before everything that is
    installed, as with ``python``: ``data.Mine`` is in the user's own ``data.py``. Else it comes
    last, so that nothing in a folder that was sent takes the place of a library.

    Not before it is known that code is read: the current folder may be one that was sent.

    Args:
        content: The configuration, or whatever else names modules, as plain data.
    """
    place = os.getcwd()
    if any(_is_here(name) for name in _modules_named_in(content)):
        sys.path[:] = [place, *(path for path in sys.path if path != place)]
    elif place not in sys.path:
        sys.path.append(place)


def _modules_named_in(content: Any) -> set[str]:
    """The modules or packages of the import paths in a configuration."""
    match content:
        case str():
            names = content.split(".")
            named = len(names) > 1 and all(name.isidentifier() for name in names)
            return {names[0]} - _NEVER_OWN if named else set()
        case Mapping():
            return _modules_named_in(list(content.values()))
        case list() | tuple():
            return {name for inner in content for name in _modules_named_in(inner)}
    return set()


def _is_here(module: str) -> bool:
    return Path(f"{module}.py").is_file() or Path(module).is_dir()


def _checksum(key: str, text: str) -> str:
    return hmac.new(bytes.fromhex(key), text.encode(), hashlib.sha256).hexdigest()


def _read_key() -> str | None:
    path = key_file()
    try:
        key = "" if path is None else path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return key if _KEY.fullmatch(key) else None


def _make_key() -> str | None:
    path = key_file()
    if path is None:
        return None
    temporary = path.with_name(f".key-{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
        # Whole or not at all, and never in the place of another process's.
        os.link(temporary, path)
    except OSError:
        pass
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return _read_key()
