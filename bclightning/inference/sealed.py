"""Files of tensors that are refused when a single bit of them has changed.

A sealed file is a safetensors file whose metadata hold the SHA-256 of the whole file, computed with
zeros in the place of the digest. Nothing in such a file executes, and nothing of it is believed
before the digest has been checked.
"""

import hashlib
import mmap
import re
import struct
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
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
    content = bytearray(save(tensors, {**metadata, "sha256": _UNSEALED.decode()}))
    place = _SEAL.search(content)
    if place is None:
        raise ValueError("safetensors did not write the metadata as it used to")
    start, stop = place.span(1)
    content[start:stop] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def write_sealed(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Write a sealed file, whole or not at all, and return its digest."""
    content = seal(tensors, metadata)
    with replacing(path) as file:
        file.write(content)
    return digest_of(path)


def digest_of(path: Path) -> str:
    """The digest of a sealed file, which was checked.

    Raises:
        DamagedFileError: The file is not sealed, or has changed since it was.
        UserError: There is no such file.
    """
    damaged = DamagedFileError(
        f"{path} is damaged, or was not written by bcl export; export the run again, or copy the "
        "file again from where it came"
    )
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if len(data) < 8:
                raise damaged
            (header,) = struct.unpack("<Q", data[:8])
            if header > min(len(data) - 8, _LONGEST_HEADER):
                raise damaged
            place = _SEAL.search(data, 8, 8 + header)
            if place is None:
                raise damaged
            start, stop = place.span(1)
            digest = hashlib.sha256()
            with memoryview(data) as whole:
                for part in (whole[:start], memoryview(_UNSEALED), whole[stop:]):
                    digest.update(part)
                    part.release()
            found = place.group(1).decode()
            # The match holds the map open.
            del place
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except (OSError, ValueError) as error:  # a folder, or an empty file, which cannot be mapped
        raise damaged from error
    if digest.hexdigest() != found:
        raise damaged
    return found


def read_sealed(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a sealed file, after its digest was checked.

    Raises:
        DamagedFileError: The file is not sealed, or has changed since it was.
        UserError: There is no such file.
    """
    digest_of(path)
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return file.metadata() or {}, tensors
    except SafetensorError as error:
        raise DamagedFileError(f"{path} is no file of tensors: {error}") from error
