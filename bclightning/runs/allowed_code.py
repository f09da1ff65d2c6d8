"""What a run folder, a page or a sweep's storage may call: classes, and only allowed ones.

A configuration that its user names with ``--config`` is code: whatever it names is called. One that
lies in a run folder is data, unless this user's own run wrote it (`bclightning.runs.origin`), since
somebody else may have made it.
"""

import contextlib
import functools
import inspect
import os
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn
from jsonargparse import Namespace
from lightning.pytorch import (
    Callback,
    LightningDataModule,
    LightningModule,
    accelerators,
    callbacks,
    plugins,
    strategies,
)

import bclightning
from bclightning import data, models, nn, training
from bclightning.errors import UserError
from bclightning.runs.folder import RunFolder
from bclightning.runs.origin import definition_is_code, find_own_modules, made_here
from bclightning.runs.parser_imports import denied_import, imports_limited_to
from bclightning.runs.recipes import read_config

OPTION = "--allow_code"

# The same for all commands: names with commas between.
VARIABLE = "BCL_ALLOW_CODE"

HELP = (
    "Package or module whose classes a run that was not made here may use, beside those of "
    f"bclightning, torch.nn and Lightning; may be repeated, or set {VARIABLE}."
)

_BASES = (torch.nn.Module, LightningModule, LightningDataModule, Callback)

# Lightning's classes that write where an argument says, call what an argument names, or import
# further packages are not among these.
_OF_LIGHTNING = (
    (
        callbacks,
        "BackboneFinetuning BatchSizeFinder DeviceStatsMonitor EarlyStopping EMAWeightAveraging "
        "GradientAccumulationScheduler LearningRateFinder LearningRateMonitor ModelPruning "
        "ModelSummary RichModelSummary RichProgressBar StochasticWeightAveraging "
        "ThroughputMonitor Timer TQDMProgressBar WeightAveraging",
    ),
    (accelerators, "CPUAccelerator CUDAAccelerator MPSAccelerator"),
    (strategies, "DDPStrategy FSDPStrategy ModelParallelStrategy SingleDeviceStrategy"),
    (plugins, "DoublePrecision FSDPPrecision HalfPrecision MixedPrecision Precision"),
)


@dataclass(frozen=True)
class AllowedCode:
    """What a configuration may name that is data.

    Args:
        packages: Packages, modules or classes that the user allows beside this package, torch.nn
            and Lightning. A function is only allowed by its whole path.
        where: Where the configuration was read, for errors.

    Raises:
        UserError: An entry is not an import path, or not one that can be allowed.

    Example:
        >>> AllowedCode().permits("bclightning.models.MLP"), AllowedCode().permits("os.popen")
        (True, False)
        >>> AllowedCode(("timm",)).permits("timm.models.resnet.ResNet")
        True
    """

    packages: tuple[str, ...] = ()
    where: str = "the configuration"

    def __post_init__(self) -> None:
        """Check the packages."""
        for entry in self.packages:
            names = entry.split(".")
            if not all(name.isidentifier() for name in names) or names[0] == "jsonargparse":
                raise UserError(
                    f"{OPTION} {entry} is not the name of a package or of a class in one; "
                    f"write it as in Python's import, as {OPTION} mypackage"
                )

    def permits(self, path: str) -> bool:
        """Whether an import path may be named, if it turns out to be a class's."""
        return path in _known_classes() or any(
            path == entry or path.startswith(f"{entry}.") for entry in self.packages
        )

    def check(self, content: Mapping[str, Any]) -> None:
        """Check plain data before the parser sees it.

        Args:
            content: The configuration as it was read.

        Raises:
            UserError: It names what is not allowed, or is not such as a run writes.
        """
        for group in (content, content.get("trainer"), content.get("data")):
            for key in group if isinstance(group, Mapping) else ():
                if not isinstance(key, str) or "." in key or key == "config":
                    raise UserError(
                        f"{self.where} has the option {key!r}, and a run's configuration has no "
                        "such option; name the file with --config if you trust it like a program"
                    )
        for path in _class_paths(content):
            if not isinstance(path, str) or ("." in path and not self.permits(path)):
                raise self._refusal(str(path))

    def check_parsed(self, value: Any) -> None:
        """Check what the parser made of a configuration, before anything of it is called.

        Args:
            value: The configuration, or a part of it.

        Raises:
            UserError: It holds what can be called and is not an allowed class.
        """
        match value:
            case Namespace() | Mapping():
                content = vars(value) if isinstance(value, Namespace) else value
                path = content.get("class_path")
                owner = self._check_class(path) if isinstance(path, str) else None
                for key, inner in content.items():
                    if owner is not None and key in ("init_args", "dict_kwargs"):
                        self._check_arguments(owner, inner)
                    else:
                        self.check_parsed(inner)
            case list() | tuple() | set() | frozenset():
                for inner in value:
                    self.check_parsed(inner)
            case _ if (callable(value) or inspect.ismodule(value)) and not _is_path(value):
                self._check_object(value, _path_of(value))

    def _check_class(self, path: str) -> Any:
        if not self.permits(path):
            raise self._refusal(path)
        # The parser has imported it already.
        found = pkgutil.resolve_name(path)
        self._check_object(found, path)
        return found

    def _check_arguments(self, owner: Any, arguments: Namespace | Mapping[str, Any] | None) -> None:
        content = vars(arguments) if isinstance(arguments, Namespace) else arguments or {}
        for name, value in content.items():
            # A default that is a function is the owner's choice.
            if not _is_default(owner, name, value):
                self.check_parsed(value)

    def _check_object(self, value: Any, path: str) -> None:
        if path in self.packages or _path_of(value) in self._definitions():
            return
        if not inspect.isclass(value):
            raise self._refusal(path, "it is not a class")
        if not self.permits(_path_of(value)):
            raise self._refusal(_path_of(value))

    @contextlib.contextmanager
    def limiting_parser(self) -> Iterator[None]:
        """Let the parser import nothing else while it reads and builds a configuration.

        Raises:
            UserError: It names something else; nothing was imported.
        """
        with imports_limited_to([*_known_classes(), *self.packages, *self._definitions()]):
            try:
                yield
            except Exception as error:
                denied = denied_import(f"{error} {error.__cause__}")
                if denied is None:
                    raise
                raise self._refusal(denied) from error

    def _definitions(self) -> set[str]:
        """Where the objects are defined that the user allows by their whole path."""
        found = set()
        for entry in self.packages:
            if "." in entry:
                with contextlib.suppress(ImportError, AttributeError):
                    allowed = pkgutil.resolve_name(entry)
                    if not inspect.ismodule(allowed):
                        found.add(_path_of(allowed))
        return found

    def _refusal(self, path: str, reason: str = "") -> UserError:
        package = path.partition(".")[0]
        whole = bool(reason) or package in ("torch", "lightning", "bclightning")
        known = "it is not a class of bclightning, torch.nn or Lightning that any run may use"
        return UserError(
            f"{path} is not called, since {reason or known}, and {self.where} was not made by a "
            f"run of yours; if you trust that code, allow it with {OPTION} "
            f"{path if whole else package}"
        )


def allowed_code(packages: Sequence[str] = (), where: str = "the configuration") -> AllowedCode:
    """What a configuration may name that is data: what the environment allows, and `packages`.

    Args:
        packages: Packages that are allowed beside those of the environment.
        where: Where the configuration was read, for errors.
    """
    everywhere = os.environ.get(VARIABLE, "").replace(",", " ").split()
    return AllowedCode(tuple(dict.fromkeys([*everywhere, *packages])), where)


def open_config(
    folder: RunFolder, packages: Sequence[str] = ()
) -> tuple[dict[str, Any], AllowedCode | None]:
    """Read the configuration of a run.

    Args:
        folder: The run's folder.
        packages: Packages that are allowed beside those of the environment.

    Returns:
        The content, and what it may name; ``None`` where this user's own run wrote it, so that it
        is code like the configuration that it was made from.

    Raises:
        UserError: It cannot be read, it names what is not allowed, or files of the folder are links
            that lead out of it.
    """
    content = read_config(folder.config)
    if made_here(folder.config.read_text(encoding="utf-8")):
        find_own_modules(content)
        return content, None
    allowed = allowed_code(packages, str(folder.config))
    allowed.check(content)
    _refuse_links(folder)
    if allowed.packages:
        find_own_modules([f"{package}.any" for package in allowed.packages])
    return _without_places(content), allowed


def allowed_in_definition(source: Any, packages: Sequence[str] = ()) -> AllowedCode | None:
    """What a sweep's definition may name; ``None`` where it is code.

    Args:
        source: The definition's file or bare name, or the definition.
        packages: Packages that are allowed beside those of the environment.
    """
    if definition_is_code(source):
        return None
    return allowed_code(packages, str(source))


def code_named_in(content: Any) -> list[str]:
    """The import paths in a configuration that is code.

    Args:
        content: Plain data.

    Example:
        >>> code_named_in({"data": "own.Data", "seed_everything": 1})
        ['own.Data']
    """
    match content:
        case str():
            names = content.split(".")
            return [content] if len(names) > 1 and all(n.isidentifier() for n in names) else []
        case Mapping():
            return code_named_in(list(content.values()))
        case list() | tuple():
            return [path for inner in content for path in code_named_in(inner)]
    return []


@functools.cache
def _known_classes() -> frozenset[str]:
    """Import paths of the classes that any configuration may name."""
    found = set()
    for module in (data, models, nn, training, torch.nn):
        for name, value in vars(module).items():
            if inspect.isclass(value) and issubclass(value, _BASES):
                found |= {f"{module.__name__}.{name}", _path_of(value)}
                if module is not torch.nn and name in dir(bclightning):
                    found.add(f"bclightning.{name}")
    for module, names in _OF_LIGHTNING:
        for name in names.split():
            found |= {f"{module.__name__}.{name}", _path_of(getattr(module, name))}
    return frozenset(found)


def _path_of(value: Any) -> str:
    """Where a class or a function is defined."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


def _class_paths(content: Any) -> Iterator[Any]:
    match content:
        case Mapping():
            for key, inner in content.items():
                if str(key).rpartition(".")[2] == "class_path":
                    yield inner
                yield from _class_paths(inner)
        case list() | tuple():
            for inner in content:
                yield from _class_paths(inner)


def _is_path(value: Any) -> bool:
    # The parser's paths can be called.
    return isinstance(value, os.PathLike)


def _is_default(owner: Any, name: str, value: Any) -> bool:
    """Whether a value is the owner's own default, as a function often is."""
    with contextlib.suppress(TypeError, ValueError):
        parameter = inspect.signature(owner).parameters.get(name)
        return parameter is not None and parameter.default is value
    return False


def _refuse_links(folder: RunFolder) -> None:
    inside = folder.path.resolve()
    for path in folder.path.rglob("*"):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise UserError(
                f"{path} is a link that leads out of the run's folder, which was not made here; "
                "replace it by a copy of the file"
            )


def _without_places(content: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the folders that are written to, which are another machine's."""
    content = dict(content)
    if isinstance(content.get("trainer"), dict):
        content["trainer"] = {**content["trainer"], "default_root_dir": None}
    group = content.get("data")
    arguments = group.get("init_args") if isinstance(group, dict) else None
    if isinstance(group, dict) and isinstance(arguments, dict) and "cache_dir" in arguments:
        content["data"] = {**group, "init_args": {**arguments, "cache_dir": None}}
    return content
