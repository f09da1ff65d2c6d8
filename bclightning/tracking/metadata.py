"""What W&B records by itself of command, host and commit, without any secret in it."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence

HIDDEN = "***"

_SECRET = r"pass|secret|token|jwt|credential|api_?-?key"

# All before the last @ is the user's and the password's: a password may hold any sign.
_USER_OF_URL = re.compile(r"(://).*@", re.DOTALL)
_QUERY_OF_URL = re.compile(r"(://[^?]*\?).*", re.DOTALL)
_SETTING = re.compile(rf"([\w.-]*(?:{_SECRET})[\w.-]*\s*[=:]).*", re.DOTALL | re.IGNORECASE)
_OPTION = re.compile(rf"-[\w.-]*(?:{_SECRET})[\w.-]*", re.IGNORECASE)


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command line without passwords and keys.

    Args:
        words: The words of the command line.

    Returns:
        As many words: without user, password and query of a URL, and without the value of whatever
        is called a password, a secret, a token or a key.

    Example:
        >>> without_secrets(["--storage", "postgresql://me:open-sesame@host/db", "--token=x"])
        ['--storage', 'postgresql://***@host/db', '--token=***']
    """
    shown = []
    for place, word in enumerate(words):
        if place and _OPTION.fullmatch(words[place - 1]):
            shown.append(HIDDEN)
            continue
        word = _USER_OF_URL.sub(rf"\1{HIDDEN}@", word)
        word = _QUERY_OF_URL.sub(rf"\1{HIDDEN}", word)
        shown.append(_SETTING.sub(rf"\1{HIDDEN}", word))
    return shown


@contextlib.contextmanager
def command_without_secrets() -> Iterator[None]:
    """Let W&B, which reads the command line when a run starts, read one without secrets."""
    words = sys.argv
    sys.argv = [*words[:1], *without_secrets(words[1:])]
    try:
        yield
    finally:
        sys.argv = words


def secret_of_slurm(environment: Mapping[str, str] = os.environ) -> str | None:
    """A variable of Slurm's that holds a secret, which W&B would record with all the others.

    Example:
        >>> secret_of_slurm({"SLURM_JWT": "x", "SLURM_JOB_ID": "1"})
        'SLURM_JWT'
    """
    names = (name for name in sorted(environment) if name.startswith("SLURM_"))
    return next((name for name in names if re.search(_SECRET, name, re.IGNORECASE)), None)
