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
from bclightning.formatting import printable
from bclightning.storage import replacing

# A network of a thousand layers has a header of a tenth of this.
_MAX_HEADER_BYTES = 2**20

# Of 6e10 binary weights. A file takes as much memory as it has bytes, and may have more bytes than
# its disk: what was never written takes no space.
_MAX_BITS = 33

# Characters of a text from a file that an error shows.
_MAX_SHOWN = 300

# What an invalid safetensors file raises: its parser, and torch where a tensor has no values.
_INVALID = (
    SafetensorError,
    ValueError,
    KeyError,
    TypeError,
    RuntimeError,
    RecursionError,
    OverflowError,
    AssertionError,
)

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
        # The tensors first, as that parser refuses what is nested or no table of texts.
        tensors = safetensors.torch.load(content)
        return _metadata(content), tensors
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except IsADirectoryError as error:
        raise UserError(f"{path} is a folder; give the file of a packed model") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except _INVALID as error:
        raise DamagedFileError(
            f"{path} is not a valid safetensors file: {first_line(error)}"
        ) from error


def _verified(path: Path) -> bytes | None:
    """The file's content if it matches its checksum, else ``None``."""
    with path.open("rb") as file:
        beginning = file.read(8)
        if len(beginning) < 8:
            return None
        (length,) = struct.unpack("<Q", beginning)
        if os.fstat(file.fileno()).st_size > 2**_MAX_BITS:
            raise ValueError(f"it has more than 2**{_MAX_BITS} bytes, which no packed model has")
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
    found = json.loads(content[8 : 8 + length])["__metadata__"]
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError("its metadata are not a table of texts")
    return found


def first_line(error: BaseException) -> str:
    r"""What an error says, in one line of a length that can be read, safe to print.

    Example:
        >>> first_line(ValueError("a name\nin a file"))
        'a name'
    """
    lines = str(error).splitlines() or [type(error).__name__]
    return shortened(lines[0])


def shortened(text: str) -> str:
    """A text from a file as it may stand in an error: safe to print, and not all of it if long.

    Example:
        >>> shortened("9" * 5000)[-5:]
        '99...'
    """
    return printable(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}...")
