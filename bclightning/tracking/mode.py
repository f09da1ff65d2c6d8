"""How runs reach W&B, decided without asking and without waiting."""

import netrc
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bclightning.errors import UserError

Mode = Literal["online", "offline", "disabled"]

DEFAULT_SERVER = "https://api.wandb.ai"

# What W&B takes for WANDB_MODE, with older names of its own.
KNOWN_MODES: dict[str, Mode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


@dataclass
class WandbOptions:
    """How runs reach W&B.

    Args:
        mode: ``online``, ``offline`` or ``disabled``; when left out, ``WANDB_MODE`` from the
            environment, else online where a key is found, else offline.
        project: The project that runs are logged to.
        entity: The user or team that owns the project; the key's own when left out.
        tags: More tags for the run.
        metadata: Whether W&B records command line, host and git commit; passwords are left out.
        log_model: Whether the network with one bit a binary weight, as `bcl export` writes it, is
            logged as an artifact where W&B is online.
        init_timeout: Seconds to wait for the server when a run starts, before going offline.
        finish_timeout: Seconds to wait for the last upload when a run ends.
    """

    mode: Mode | None = None
    project: str = "bclightning"
    entity: str | None = None
    tags: list[str] = field(default_factory=list)
    metadata: bool = True
    log_model: bool = False
    init_timeout: float = 20.0
    finish_timeout: float = 60.0


def decide_mode(settings: WandbOptions, environment: Mapping[str, str]) -> tuple[Mode, str]:
    """Decide whether a run is logged online, offline or not at all, without asking or waiting.

    Returns:
        The mode, and a sentence that says why.

    Raises:
        UserError: Runs would go online to a server whose URL holds a password.

    Example:
        >>> decide_mode(WandbOptions(mode="offline"), {})
        ('offline', 'W&B: offline, as --wandb.mode says')
    """
    mode, why = _decide(settings, environment)
    if mode == "online" and urllib.parse.urlsplit(_server(environment)).password:
        raise UserError(
            "WANDB_BASE_URL holds a password, which W&B would write into the run's logs; take it "
            "out of the URL, and give the key by wandb login or WANDB_API_KEY"
        )
    return mode, why


def _decide(settings: WandbOptions, environment: Mapping[str, str]) -> tuple[Mode, str]:
    if settings.mode is not None:
        return settings.mode, f"W&B: {settings.mode}, as --wandb.mode says"
    named = environment.get("WANDB_MODE", "")
    if named in KNOWN_MODES:
        return KNOWN_MODES[named], f"W&B: {KNOWN_MODES[named]}, as WANDB_MODE says"
    if has_key(environment):
        return "online", "W&B: online, since an API key was found"
    return "offline", "W&B: offline, as there is no API key (wandb login; bcl sync uploads later)"


def has_key(environment: Mapping[str, str]) -> bool:
    """Whether an API key is there, in the environment or in the user's netrc file.

    Example:
        >>> has_key({"WANDB_API_KEY": "0123456789"})
        True
    """
    return bool(environment.get("WANDB_API_KEY")) or _in_netrc(environment)


def _server(environment: Mapping[str, str]) -> str:
    return environment.get("WANDB_BASE_URL", DEFAULT_SERVER)


def _in_netrc(environment: Mapping[str, str]) -> bool:
    host = urllib.parse.urlsplit(_server(environment)).hostname or ""
    home = environment.get("HOME", "")
    path = Path(environment.get("NETRC") or Path(home) / ".netrc")
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
