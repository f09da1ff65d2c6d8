"""Turn the layers of any model into binary layers, in place."""

import gc
from collections.abc import Callable, Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from types import MethodType
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from bclightning.nn.batch_norm import BatchNorm
from bclightning.nn.latent import binary_layers
from bclightning.nn.layers import BinaryLayer, check_binarization
from bclightning.nn.loading import BINARY_LAYERS
from bclightning.vocabulary import Binarization

Skip = Callable[[str, nn.Module], bool] | Collection[str]
"""Which modules stay real: a function of (name, module), or name patterns (``"*.attention"``)."""

# A lookup is not a product, and a normalization has one real scale per channel (section 2.5).
_STAYS_REAL = (
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.PReLU,
    BatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LazyInstanceNorm1d,
    nn.LazyInstanceNorm2d,
    nn.LazyInstanceNorm3d,
)


def convert_to_binary(
    model: nn.Module, binarization: Binarization = "deterministic", skip: Skip = ()
) -> nn.Module:
    """Make every `Linear` and `Conv2d` of a model binary, in place.

    The layers stay the same objects, so whatever else refers to one (a list, a closure) computes
    with binary weights too, and so do the weights: they become the latent weights, under the same
    names, so a trained float model is a warm start and an optimizer may be made before or
    afterwards. Every optimizer of torch clips them to [-1, 1] after its steps; what changes weights
    without one calls `clip_latent_weights_`.

    Normalizations and embeddings stay real. Any other kind of layer with a weight matrix is an
    error, never silently left real, and so is a layer whose weight is computed (by weight
    normalization, pruning or any parametrization), as it has no latent weight to clip, or shared
    with a layer that stays real, which would be clipped with it.

    Args:
        model: The model to convert.
        binarization: ``"deterministic"`` or ``"stochastic"``.
        skip: The modules to leave real, with everything inside them: patterns for module names (as
            in ``named_modules()``, shell wildcards allowed), or a function of (name, module).

    Returns:
        The model.

    Raises:
        ValueError: There is nothing to convert, a pattern matches nothing, or the binarization is
            neither of the two.
        TypeError: A layer cannot be converted; the message gives its name and type.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> convert_to_binary(model, "stochastic", skip=["2"])
        Sequential(
          (0): BinaryLinear(in_features=4, out_features=8, bias=True, binarization='stochastic')
          (1): ReLU()
          (2): Linear(in_features=8, out_features=2, bias=True)
        )
    """
    check_binarization(binarization)
    skipped = skipped_modules(model, skip)
    wanted = {name: module for name, module in model.named_modules() if id(module) not in skipped}
    _refuse_what_cannot_be_converted(wanted)
    layers = {name: module for name, module in wanted.items() if type(module) in BINARY_LAYERS}
    if not layers:
        raise ValueError(
            f"no Linear or Conv2d to convert in {type(model).__name__}"
            + (": all of them are skipped" if skipped else "")
        )
    refuse_shared_weights(model, layers)
    _refuse_kept_methods(layers)
    for layer in layers.values():
        BINARY_LAYERS[type(layer)].from_float(layer, binarization)
    _leave_fused_paths(model)
    return model


def skipped_modules(model: nn.Module, skip: Skip, *, must_match: bool = True) -> set[int]:
    """The identities of the modules that stay real: those that match and all modules inside them.

    Args:
        model: The model.
        skip: The modules to leave real, as for `convert_to_binary`.
        must_match: Whether a pattern that matches nothing is an error.

    Raises:
        ValueError: A pattern matches nothing.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> skipped_modules(model, ["0"]) == {id(model[0])}
        True
    """
    named = list(model.named_modules(remove_duplicate=False))
    if callable(skip):
        matched = [module for name, module in named if skip(name, module)]
    else:
        patterns = (skip,) if isinstance(skip, str) else skip
        matched = []
        for pattern in patterns:
            found = [module for name, module in named if fnmatchcase(name, pattern)]
            if must_match and not found:
                raise ValueError(
                    f"skip={pattern!r} matches no module of {type(model).__name__}; "
                    f"its modules are {', '.join(name for name, _ in named if name)}"
                )
            matched.extend(found)
    return {id(inner) for module in matched for inner in module.modules()}


def refuse_shared_weights(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Raise an error if a real part of a model holds the weight of one of its binary layers.

    It would be clipped with the binary layer's, and an embedding of clipped vectors is another one.

    Args:
        model: The model.
        layers: Its layers that are binary or will be, by name.

    Raises:
        TypeError: Such a part; the message gives both names.

    Example:
        >>> model = nn.ModuleDict({"embed": nn.Embedding(4, 2), "head": nn.Linear(2, 4)})
        >>> model["head"].weight = model["embed"].weight
        >>> refuse_shared_weights(model, {"head": model["head"]})
        Traceback (most recent call last):
        ...
        TypeError: embed (Embedding) shares its weight with head, which would be binary; give ...
    """
    binary = {id(layer) for layer in layers.values()}
    owners = {_memory(layer.weight): name for name, layer in layers.items()}
    for name, module in model.named_modules():
        if id(module) in binary:
            continue
        for key, parameter in module.named_parameters(recurse=False):
            owner = owners.get(_memory(parameter))
            if owner is not None:
                raise TypeError(
                    f"{name or 'the model itself'} ({type(module).__name__}) shares its {key} with "
                    f"{owner or 'the model itself'}, which would be binary; give one of them a "
                    f"weight of its own, or leave both real with skip=[{owner!r}]"
                )


def _memory(parameter: Any) -> int:
    """What two parameters have in common that share their memory, or are one."""
    try:
        return parameter.untyped_storage().data_ptr() or id(parameter)
    except (NotImplementedError, RuntimeError, ValueError):  # a lazy or a wrapping one has none
        return id(parameter)


def _refuse_kept_methods(layers: dict[str, nn.Module]) -> None:
    """Raise an error if something keeps a float layer's own way to compute, which would stay real.

    A reference to the layer sees what it became; one to its ``forward`` alone does not.
    """
    kept = _kept_methods(layers.values())
    if kept:
        gc.collect()  # what is left of something that is no longer used does not count
        kept = _kept_methods(layers.values())
    for name, layer in layers.items():
        if id(layer) in kept or "forward" in vars(layer):
            raise TypeError(
                f"{name or 'the model itself'} ({type(layer).__name__}) has its forward method "
                "kept or replaced somewhere, which would go on computing with real weights; keep "
                f"the layer itself there, or leave it real with skip=[{name!r}]"
            )


def _kept_methods(layers: Iterable[nn.Module]) -> set[int]:
    return {
        id(holder.__self__)
        for holder in gc.get_referrers(*layers)
        if isinstance(holder, MethodType) and holder.__name__ == "forward"
    }


def _refuse_what_cannot_be_converted(modules: dict[str, nn.Module]) -> None:
    for name, module in modules.items():
        where = f"{name or 'the model itself'} ({type(module).__name__})"
        if isinstance(module, BinaryLayer):
            raise TypeError(f"{where} is binary already; convert a model once, or skip the layer")
        if isinstance(module, _STAYS_REAL):
            continue
        own = dict(module.named_parameters(recurse=False))
        if type(module) in BINARY_LAYERS and "weight" in own:
            continue
        if isinstance(module, nn.modules.lazy.LazyModuleMixin) or _has_weight_matrix(module):
            raise TypeError(
                f"{where} cannot be made binary: only a Linear or Conv2d whose weight is a "
                f"parameter can; leave it real with skip=[{name!r}], or replace it first"
            )


def _has_weight_matrix(module: nn.Module) -> bool:
    owned = dict(module.named_parameters(recurse=False))
    if is_parametrized(module):
        # The parameters of such a tensor are further inside, under other names.
        owned |= {
            f"{key}.{name}": original
            for key, source in module.get_submodule("parametrizations").named_children()
            for name, original in source.named_parameters(recurse=False)
        }
    return any("weight" in key and parameter.dim() >= 2 for key, parameter in owned.items())


def _leave_fused_paths(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and binary_layers(module):
            # In evaluation, torch's fused path reads the latent weights and skips the layers'
            # forward. It runs only where this attribute names an activation that it supports.
            module.activation_relu_or_gelu = 0
