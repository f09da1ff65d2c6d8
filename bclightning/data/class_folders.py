"""Which images lie in which class folders, in torchvision's layout."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bclightning.errors import DataError
from bclightning.formatting import printable
from bclightning.image_files import SUFFIXES

logger = logging.getLogger(__name__)

SPLIT_FOLDERS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What the folder of each split may be called."""

LAYOUT = "expected ROOT/train/CLASS/IMAGE (and val, test beside train), or ROOT/CLASS/IMAGE"

# Of systems and programs, and no classes.
_IGNORED = ("__MACOSX", "bclightning-cache")


@dataclass(frozen=True)
class ClassFolders:
    """The images of a folder.

    Attributes:
        class_names: Names of the classes, sorted.
        splits: Paths of each split's images below the root, with slashes, sorted, and their class
            indices. ``train`` alone where there are no folders of splits.
    """

    class_names: tuple[str, ...]
    splits: dict[str, list[tuple[str, int]]]


def find_images(root: Path) -> ClassFolders:
    """Find the class folders below a folder, and the images in them, at any depth.

    Hidden files and folders are left out, and so are files that are no images by their names.

    Args:
        root: The folder.

    Raises:
        DataError: There is no such folder, it has another layout, a class has no images or is
            missing in a split, there is one class only, or links lead round in a circle.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise DataError(
            f"the folder of images {printable(str(root))} {what}; name one with --data.root DIR"
        )
    folders = split_folders(root)
    by_split = {split: _by_class(folder, root) for split, folder in folders.items()}
    classes = tuple(by_split["train"])
    for split, found in by_split.items():
        _check_classes(folders[split], found, classes, folders["train"])
    return ClassFolders(
        classes,
        {
            split: [
                (name, label)
                for label, of_class in enumerate(classes)
                for name in sorted(found[of_class])
            ]
            for split, found in by_split.items()
        },
    )


def class_names_of(root: Path) -> tuple[str, ...]:
    """Names of the classes, without a look into their folders.

    Args:
        root: The folder of images.

    Raises:
        DataError: There is no such folder, or it has another layout.
    """
    if not root.is_dir():
        return find_images(root).class_names
    return tuple(sorted(folder.name for folder in _folders(split_folders(root)["train"])))


def split_folders(root: Path) -> dict[str, Path]:
    """The folders of the splits: `root` itself for ``train`` where there are none.

    Args:
        root: The folder of images, which exists.

    Raises:
        DataError: Two folders are one split's.
    """
    inside = {folder.name: folder for folder in _folders(root)}
    found: dict[str, Path] = {}
    for split, names in SPLIT_FOLDERS.items():
        here = [inside[name] for name in names if name in inside]
        if len(here) > 1:
            both = " and ".join(folder.name for folder in here)
            raise DataError(f"{printable(str(root))} has {both}, two folders of one split")
        if here:
            found[split] = here[0]
    if "train" not in found or not _folders(found["train"]):
        # A folder of this name that holds images is a class, as trains are.
        return {"train": root}
    others = sorted(set(inside) - {folder.name for folder in found.values()})
    if others:
        logger.warning(
            "%s is no split and is left out, beside %s",
            printable(", ".join(others)),
            ", ".join(folder.name for folder in found.values()),
        )
    return found


def _folders(folder: Path) -> list[Path]:
    return [
        Path(entry.path)
        for entry in _entries(folder)
        if entry.is_dir() and entry.name not in _IGNORED
    ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(
            f"the folder {printable(str(folder))} cannot be read: {error.strerror}"
        ) from error


def _by_class(folder: Path, root: Path) -> dict[str, list[str]]:
    """Paths of the images of each class below the root, by the class's name."""
    others: Counter[str] = Counter()
    found: dict[str, list[str]] = {}
    for of_class in sorted(_folders(folder), key=lambda path: path.name):
        try:
            of_class.name.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the class folder {printable(str(of_class))} has a name that is not UTF-8; "
                "rename it"
            ) from error
        found[of_class.name] = [
            path.relative_to(root).as_posix() for path in _images(of_class, others)
        ]
    if not found:
        raise DataError(f"{printable(str(folder))} holds no class folders: {LAYOUT}")
    if others:
        kinds = ", ".join(sorted(printable(kind) for kind in others)[:5])
        logger.warning(
            "files in %s that are left out, since they are no PNG, JPEG, BMP or WebP: %d (%s)",
            printable(str(folder)),
            others.total(),
            kinds,
        )
    return found


def _images(folder: Path, others: Counter[str]) -> Iterator[Path]:
    """The images below a folder; `others` counts the rest by the ends of their names."""
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:
        path, above = waiting.pop()
        status = path.stat()
        place = (status.st_dev, status.st_ino)
        if place in above:
            raise DataError(
                f"the link {printable(str(path))} leads to a folder that it lies in; remove it"
            )
        for entry in _entries(path):
            if entry.is_dir():
                waiting.append((Path(entry.path), above | {place}))
            elif Path(entry.name).suffix.lower() in SUFFIXES:
                yield Path(entry.path)
            else:
                others[Path(entry.name).suffix or entry.name] += 1


def _check_classes(
    folder: Path, found: Mapping[str, Sequence[str]], classes: Sequence[str], training: Path
) -> None:
    shown = printable(str(folder))
    if len(found) < 2 and folder == training:
        raise DataError(
            f"{shown} holds one class folder, {printable(classes[0])!r}, and a classifier needs "
            f"two classes: {LAYOUT}"
        )
    for name in sorted(set(found) ^ set(classes)):
        here, there = (folder, training) if name in found else (training, folder)
        raise DataError(
            f"the class {printable(name)!r} is in {printable(str(here))} and not in "
            f"{printable(str(there))}; every split needs the same class folders"
        )
    for name, images in found.items():
        if not images:
            raise DataError(
                f"the class {printable(name)!r} in {shown} has no images (PNG, JPEG, BMP or WebP); "
                "add some, or remove the folder"
            )
