"""NumPy's files as named arrays, without executing anything."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from bclightning.errors import DataError
from bclightning.formatting import printable

LAYOUT = (
    "expected arrays images and labels, or train_images, train_labels, val_images and so on: in "
    "one .npz file, in .npy files of these names, or in train.npz, val.npz and test.npz"
)

Array = npt.NDArray[Any]

# What NumPy raises for a file that is not what it should be.
_DAMAGED = (ValueError, EOFError, OSError, KeyError, SyntaxError, zipfile.BadZipFile, MemoryError)


@dataclass(frozen=True)
class ArrayFile:
    """Where an array lies.

    Attributes:
        path: A ``.npy`` or ``.npz`` file.
        member: Name of the array in a ``.npz`` file.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        """What the array is called in an error."""
        member = "" if self.member is None else f"[{self.member}]"
        return printable(f"{self.path}{member}")

    def load(self) -> Array:
        """The array: mapped if it is a ``.npy`` file, in memory otherwise.

        Raises:
            DataError: The file is damaged, or holds Python objects.
        """
        try:
            if self.member is None:
                # Copy-on-write, since torch has no read-only tensors.
                return np.lib.format.open_memmap(self.path, mode="c")
            with np.load(self.path, allow_pickle=False) as members:
                array: Array = members[self.member]
                return array
        except _DAMAGED as error:
            raise self._unusable(error) from error

    def shape(self) -> tuple[int, ...]:
        """The array's shape, from its header.

        Raises:
            DataError: The file is damaged.
        """
        try:
            if self.member is None:
                return self.load().shape
            with (
                zipfile.ZipFile(self.path) as members,
                members.open(f"{self.member}.npy") as content,
            ):
                return _header_shape(content)
        except _DAMAGED as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> DataError:
        said = " ".join(str(error).split()) or type(error).__name__
        if "allow_pickle" in said or "Python objects" in said:
            return DataError(
                f"{self} holds Python objects, which are not loaded since they could execute code; "
                "save an array of numbers"
            )
        return DataError(f"{self} cannot be read: {printable(said)}")


def find_arrays(root: Path) -> Mapping[str, ArrayFile]:
    """The arrays of a ``.npz`` file, or of the ``.npy`` and ``.npz`` files in a folder, by name.

    Args:
        root: The file or the folder.

    Returns:
        The arrays; those of ``train.npz`` have ``train_`` before their names.

    Raises:
        DataError: There is no such file or folder, or nothing of this kind in it.
    """
    shown = printable(str(root))
    if not root.exists():
        raise DataError(f"there is no file or folder {shown}; name one with --data.root")
    if root.is_file():
        if root.suffix == ".npy":
            raise DataError(f"{shown} is one array without labels: {LAYOUT}")
        return _members(root)
    arrays: dict[str, ArrayFile] = {}
    archives = sorted(root.glob("*.npz"))
    for path in archives:
        alone = len(archives) == 1 and not any(root.glob("*.npy")) and path.stem != "train"
        prefix = "" if alone else f"{path.stem}_"
        arrays |= {f"{prefix}{name}": file for name, file in _members(path).items()}
    arrays |= {path.stem: ArrayFile(path) for path in sorted(root.glob("*.npy"))}
    if not arrays:
        raise DataError(f"{shown} holds no .npz and no .npy files: {LAYOUT}")
    return arrays


def _members(path: Path) -> dict[str, ArrayFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{printable(str(path))} is no .npz file, or damaged") from error
    return {name: ArrayFile(path, name) for name in names}


def _header_shape(content: IO[bytes]) -> tuple[int, ...]:
    version = np.lib.format.read_magic(content)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"an array of format version {version}")
    shape: tuple[int, ...] = read(content)[0]
    return shape
