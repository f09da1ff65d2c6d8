"""Files of tensors that carry a checksum: a single changed bit, and they are refused.

Such a file is a safetensors file whose metadata hold the SHA-256 of the whole file, computed with
zeros in the place of the digest. The checksum finds damage; it has no key and proves no origin.
Nothing in such a file executes, and nothing of it is used before the digest has been checked. Equal
tensors and metadata make equal files.
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

# A network of a thousand layers has a header of a tenth of this.
_MAX_HEADER_BYTES = 2**20

_ZERO_DIGEST = b"0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


class DamagedFileError(UserError):
    """A file is damaged, or is not what it claims to be."""


def with_checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The content of a file with a checksum.

    Args:
        tensors: The tensors, by name.
        metadata: What else the file holds, as texts; the checksum is added as ``sha256``.

    Raises:
        ValueError: The metadata already have an entry ``sha256``.

    Example:
        >>> import torch
        >>> content = with_checksum({"a": torch.zeros(1)}, {"what": "an example"})
        >>> len(content), safetensors.torch.load(content)
        (180, {'a': tensor([0.])})
    """
    if "sha256" in metadata:
        raise ValueError("metadata must not contain sha256, which is computed here")
    saved = safetensors.torch.save(tensors)
    (length,) = struct.unpack_from("<Q", saved)
    entries = json.loads(saved[8 : 8 + length])
    # Our own header, since safetensors writes metadata in random order.
    known = {"sha256": _ZERO_DIGEST.decode(), **metadata}
    header = json.dumps({"__metadata__": known, **entries}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    content = bytearray(struct.pack("<Q", len(header)) + header + saved[8 + length :])
    start = content.index(_ZERO_DIGEST)
    content[start : start + len(_ZERO_DIGEST)] = hashlib.sha256(content).hexdigest().encode()
    return bytes(content)


def write_checked(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Write a file with a checksum, whole or not at all, and return its digest."""
    content = with_checksum(tensors, metadata)
    with replacing(path) as file:
        file.write(content)
    return _metadata(content)["sha256"]


def read_checked(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a file with a checksum, after the checksum was verified.

    The bytes that are verified are those that are parsed: the file is read once, and may change or
    be deleted afterwards.

    Raises:
        DamagedFileError: The file has no checksum, or does not match it.
        UserError: There is no such file, or it cannot be read.
    """
    damaged = DamagedFileError(
        f"{path} is damaged, or was not written by bcl export; export the run again, or copy the "
        "file again from where it came"
    )
    try:
        content = _verified(path)
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
        raise DamagedFileError(f"{path} is not a valid safetensors file: {error}") from error


def _verified(path: Path) -> bytes | None:
    """The file's content if it matches its checksum, else ``None``."""
    with path.open("rb") as file:
        beginning = file.read(8)
        if len(beginning) < 8:
            return None
        (length,) = struct.unpack("<Q", beginning)
        # A damaged length must not make us allocate more memory than the file has bytes.
        if length > min(os.fstat(file.fileno()).st_size - 8, _MAX_HEADER_BYTES):
            return None
        place = _DIGEST.search(file.read(length))
        if place is None:
            return None
        file.seek(0)
        content = file.read()
    start, stop = (8 + side for side in place.span(1))
    digest = hashlib.sha256()
    whole = memoryview(content)
    for part in (whole[:start], _ZERO_DIGEST, whole[stop:]):
        digest.update(part)
    return content if digest.hexdigest().encode() == place.group(1) else None


def _metadata(content: bytes) -> dict[str, str]:
    (length,) = struct.unpack_from("<Q", content)
    found: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return found
