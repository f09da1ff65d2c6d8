"""Files of tensors that are refused when a single bit of them has changed.

A sealed file is a safetensors file whose metadata hold the SHA-256 of the whole file, computed with
zeros in the place of the digest. Nothing in such a file executes, and nothing of it is believed
before the digest has been checked. Equal tensors and metadata make equal files.
"""

import hashlib
import json
import os
import re
import struct
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from bclightning.errors import UserError
from bclightning.storage import replacing

# The header of a network of a thousand layers has a tenth of it.
_LONGEST_HEADER = 2**20

_UNSEALED = b"0" * 64
_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class DamagedFileError(UserError):
    """A file is not whole, or not what it says it is."""


def seal(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The content of a sealed file.

    Example:
        >>> import torch
        >>> len(seal({"a": torch.zeros(1)}, {"what": "an example"}))
        180
    """
    saved = safetensors.torch.save(tensors)
    (length,) = struct.unpack_from("<Q", saved)
    entries = json.loads(saved[8 : 8 + length])
    # Written by ourselves, since safetensors puts metadata in an order of chance.
    known = {"sha256": _UNSEALED.decode(), **metadata}
    header = json.dumps({"__metadata__": known, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    content = bytearray(struct.pack("<Q", len(header)) + header + saved[8 + length :])
    place = _SEAL.search(content)
    if place is None:
        raise ValueError("there is no place for the digest")
    start, stop = place.span(1)
    content[start:stop] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def write_sealed(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Write a sealed file, whole or not at all, and return its digest."""
    content = seal(tensors, metadata)
    with replacing(path) as file:
        file.write(content)
    return _metadata(content)["sha256"]


def read_sealed(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a sealed file, after its digest was checked.

    What is checked is what is returned: the file is read once, and may change or go afterwards.

    Raises:
        DamagedFileError: The file is not sealed, or has changed since it was.
        UserError: There is no such file.
    """
    damaged = DamagedFileError(
        f"{path} is damaged, or was not written by bcl export; export the run again, or copy the "
        "file again from where it came"
    )
    try:
        content = _checked(path)
        if content is None:
            raise damaged
        return _metadata(content), safetensors.torch.load(content)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give the file of a packed model") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedFileError(f"{path} is no file of tensors: {error}") from error


def _checked(path: Path) -> bytes | None:
    """The file's content where its digest is that of the content, else ``None``."""
    with path.open("rb") as file:
        beginning = file.read(8)
        if len(beginning) < 8:
            return None
        (length,) = struct.unpack("<Q", beginning)
        # A damaged length must not ask for more memory than the file is worth.
        if length > min(os.fstat(file.fileno()).st_size - 8, _LONGEST_HEADER):
            return None
        place = _SEAL.search(file.read(length))
        if place is None:
            return None
        file.seek(0)
        content = file.read()
    start, stop = (8 + side for side in place.span(1))
    digest = hashlib.sha256()
    whole = memoryview(content)
    for part in (whole[:start], _UNSEALED, whole[stop:]):
        digest.update(part)
    return content if digest.hexdigest().encode() == place.group(1) else None


def _metadata(content: bytes) -> dict[str, str]:
    (length,) = struct.unpack_from("<Q", content)
    found: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found
