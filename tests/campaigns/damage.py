"""Damaged files: cut off, with flipped bits, or with other text where values stand."""

import functools
import signal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from campaigns import faults, fits
from stopped_runs import same

import bclightning.inference.checksum
import bclightning.runs.checkpoint_io
from bclightning import inference
from bclightning.errors import UserError
from bclightning.runs.checkpoint_io import load_checkpoint
from bclightning.runs.metrics_csv import MetricsTable
from bclightning.runs.record import RunRecord
from bclightning.sweep.definition import Definition
from bclightning.yaml_files import read_yaml

SECONDS = 20
HOSTILE = (
    *("null", "-1", "1e999", "NaN", "[]", "{}", '""', '"\x1b]0;x"', "true", "9" * 400),
    *("[" * 5000, "&a [*a, *a]", "!!python/name:os.system", "../../x", "\ufeff", "\x00"),
)


@functools.cache
def run() -> Path:
    """The folder of a whole run, with a packed model beside its files."""
    folder = fits.whole(0)[0]
    words = ["export", str(folder), "--output", str(folder / "model.safetensors")]
    assert faults.run(words, folder.parents[3]) == 0, faults.said(folder.parents[3])
    return folder


def damaged(rng: Random, content: bytes) -> bytes:
    """A file cut off, or with one bit or a few bytes changed."""
    at = rng.randrange(len(content))
    match rng.randrange(3):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        case _:
            return content[:at] + rng.randbytes(rng.randint(1, 9)) + content[at + 1 :]


def edited(rng: Random, content: bytes) -> bytes:
    """A text in which something else stands in place of a word, or is cut or repeated."""
    text = content.decode()
    start = rng.randrange(len(text))
    end = min(len(text), start + rng.choice([0, 1, 3, 12, 80]))
    return (text[:start] + rng.choice([*HOSTILE, text[start:end] * 2, ""]) + text[end:]).encode()


def refused_or(
    expected: Callable[[Any], bool], read: Callable[[Path], Any], path: Path
) -> str | None:
    """Whether a file is read within some seconds, as expected, or refused in a sentence."""

    def late(number: int, frame: Any) -> None:
        raise TimeoutError(f"not read within {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        content = read(path)
    except UserError as error:
        return None if "\n" not in str(error) else f"more than a sentence: {error}"
    finally:
        signal.alarm(0)
    return None if expected(content) else "read as something else"


def attack(
    name: str,
    change: Callable[[Random, bytes], bytes],
    read: Callable[[Path], Any],
    equal: Callable[[Any, Any], bool] | None = None,
) -> Callable[[Random, Path], str | None]:
    """An attack on one file of a run: refused, or, with `equal`, read as the whole file is."""

    def attempt(rng: Random, folder: Path) -> str | None:
        whole = run() / name
        path = folder / whole.name
        path.write_bytes(change(rng, whole.read_bytes()))
        if equal is None:
            return refused_or(lambda content: True, read, path)
        return refused_or(lambda content: equal(content, read(whole)), read, path)

    return attempt


def same_scores(one: Any, other: Any) -> bool:
    images = torch.randint(0, 17, (4, 1, 8, 8), dtype=torch.uint8)
    return torch.equal(one(images), other(images))


def read_definition(path: Path) -> Definition:
    return Definition.load(str(path))


def definition(rng: Random, folder: Path) -> str | None:
    sweeps = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
    path = folder / "sweep.yaml"
    path.write_bytes(edited(rng, rng.choice(sweeps).read_bytes()))
    return refused_or(lambda content: True, read_definition, path)


PACKED = ("model.safetensors", damaged, inference.load, same_scores)
CHECKPOINT = ("checkpoints/last.ckpt", damaged, load_checkpoint, same)

ATTACKS = {
    "a packed model": attack(*PACKED),
    "a checkpoint": attack(*CHECKPOINT),
    "a record": attack("run.json", edited, RunRecord.read),
    "metrics": attack("metrics.csv", edited, MetricsTable),
    "a configuration": attack("config.yaml", edited, read_yaml),
    "a sweep's definition": definition,
}


def without(module: Any, name: str, nothing: Any, parts: tuple) -> Callable:
    """An attack while a check of the package is taken away."""

    def attempt(rng: Random, folder: Path) -> str | None:
        kept = getattr(module, name)
        setattr(module, name, nothing)
        try:
            return attack(*parts)(rng, folder)
        finally:
            setattr(module, name, kept)

    return attempt


CONTROLS: faults.Controls = {
    "a packed model's checksum": (
        "a packed model",
        without(
            bclightning.inference.checksum, "_verified", lambda path: path.read_bytes(), PACKED
        ),
    ),
    "a checkpoint's checksums": (
        "a checkpoint",
        without(bclightning.runs.checkpoint_io, "require_intact", lambda path: None, CHECKPOINT),
    ),
}
