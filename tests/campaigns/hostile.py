"""Run folders that somebody sent: a random value of the configuration names what to call."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import yaml
from campaigns import faults, fits

import bclightning.runs.allowed_code

CANARY = "executed.txt"
COMMANDS = (
    *(["test"], ["validate"], ["summary"], ["export"], ["predict"]),
    *(["reproduce", "--epochs", "1"], ["fit", "--resume"]),
)
TOUCH = {"cmd": f"touch {CANARY}", "mode": "r", "buffering": -1}
PLANTED = f"""
from pathlib import Path
Path({CANARY!r}).touch()
class Net: pass
"""


def payload(rng: Random) -> Any:
    """What runs a shell command, or imports a module that does, where it is called."""
    graph = {
        "class_path": "torch.fx.symbolic_trace",
        "init_args": {"root": "os.popen", "concrete_args": TOUCH},
    }
    planted = rng.choice(["planted.Net", "planted.anything"])
    return rng.choice(
        [
            graph,
            [graph],
            yaml.safe_dump(graph),
            {"class_path": "os.popen", "init_args": TOUCH},
            {"class_path": "os.popen", "dict_kwargs": TOUCH},
            {"class_path": planted},
            {"class_path": planted, "init_args": {}},
            [{"class_path": planted}],
            planted,
        ]
    )


def places(content: Any, keys: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where values stand in a configuration."""
    if keys:
        yield keys
    if isinstance(content, dict):
        for key, inner in content.items():
            yield from places(inner, (*keys, key))


def put(content: Any, keys: tuple[Any, ...], value: Any) -> None:
    for key in keys[:-1]:
        content = content[key]
    content[keys[-1]] = value


def sent_run(rng: Random, folder: Path, before: faults.Change = faults.nothing) -> str | None:
    """Open a run of another's as data: nothing is called, and a refusal is a sentence."""
    run = folder / "sent"
    shutil.copytree(fits.whole(0)[0], run)
    (folder / "planted.py").write_text(PLANTED)
    content = yaml.safe_load((run / "config.yaml").read_text())
    # Half of the time where a class is named, which a random place seldom is.
    named = [("model", "network"), ("data",), ("trainer", "callbacks"), ("trainer", "plugins")]
    keys = rng.choice(named) if rng.random() < 0.5 else rng.choice(list(places(content)))
    put(content, keys, payload(rng))
    (run / "config.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    record = run / "run.json"
    if rng.random() < 0.5:
        # A run that is not finished would be trained.
        record.write_text(record.read_text().replace('"finished"', '"running"'))
    command, *options = rng.choice(COMMANDS)
    code = faults.run([command, *options, "sent"], folder, before=before)
    said = faults.said(folder)
    where = f"{'.'.join(keys)} under {command}"
    if (folder / CANARY).exists():
        return f"{where} was called"
    if code not in (0, 1, 2) or "Traceback" in said:
        return f"{where} ended with {code}: {said}"
    return None


def without_the_limit() -> None:
    """Take every run for one that was made here."""
    bclightning.runs.allowed_code.made_here = lambda text: True  # type: ignore[assignment]


SENT = "a run that somebody sent"

ATTACKS: dict[str, faults.Attempt] = {SENT: sent_run}
CONTROLS: faults.Controls = {
    "the limit of what a sent run may name": (
        SENT,
        lambda rng, folder: sent_run(rng, folder, without_the_limit),
    ),
}
