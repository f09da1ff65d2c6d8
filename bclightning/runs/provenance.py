"""Where a figure comes from: versions, commit, machine."""

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import bclightning

LIBRARIES = ("torch", "lightning", "torchmetrics", "numpy", "wandb", "optuna")


def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that decide results."""
    return {
        "bclightning": bclightning.__version__,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


def git_state() -> dict[str, Any] | None:
    """Commit and dirty flag of this package's own repository, ``None`` when it has none.

    An installed package lies in whatever repository its environment was made in, which says
    nothing of the code; so the repository must track this package.
    """
    folder = Path(bclightning.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    changes = git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def machine(device: torch.device) -> dict[str, Any]:
    """The device, the processor and the number of threads."""
    on_gpu = device.type == "cuda"
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
