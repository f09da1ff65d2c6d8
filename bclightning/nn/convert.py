"""Turn the layers of any model into binary layers, in place."""

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from bclightning.nn.batch_norm import BatchNorm
from bclightning.nn.layers import BinaryConv2d, BinaryLayer, BinaryLinear
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
    """Make every `Linear` and `Conv2d` of a model binary, in place; do so before its optimizer.

    The weights stay the same `Parameter` objects under the same names: they become the latent
    weights, so a trained float model is a warm start. Normalizations and embeddings stay real. Any
    other kind of layer with a weight matrix is an error, never silently left real, and so is a
    layer whose weight is computed (by weight normalization, pruning or any parametrization), as it
    has no latent weight to clip.

    Args:
        model: The model to convert; if it is itself a `Linear` or `Conv2d`, use the result.
        binarization: ``"deterministic"`` or ``"stochastic"``.
        skip: The modules to leave real, with everything inside them: patterns for module names (as
            in ``named_modules()``, shell wildcards allowed), or a function of (name, module).

    Returns:
        The model, or its replacement when the model itself is a layer.

    Raises:
        ValueError: There is nothing to convert, or a pattern matches nothing.
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
    skipped = skipped_modules(model, skip)
    # A module may appear in several places, which must all get the same replacement.
    places = [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if id(module) not in skipped
    ]
    _refuse_what_cannot_be_converted(places)

    replacements: dict[int, BinaryLayer] = {}
    for name, module in places:
        if type(module) in (nn.Linear, nn.Conv2d):
            if id(module) not in replacements:
                replacements[id(module)] = _binary(module, binarization)
            _replace(model, name, replacements[id(module)])
    if not replacements:
        raise ValueError(
            f"no Linear or Conv2d to convert in {type(model).__name__}"
            + (": all of them are skipped" if skipped else "")
        )
    return replacements.get(id(model), model)


def skipped_modules(model: nn.Module, skip: Skip) -> set[int]:
    """The identities of the modules that stay real: those that match and all modules inside them.

    Args:
        model: The model.
        skip: The modules to leave real, as for `convert_to_binary`.

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
            if not found:
                raise ValueError(
                    f"skip={pattern!r} matches no module of {type(model).__name__}; "
                    f"its modules are {', '.join(name for name, _ in named if name)}"
                )
            matched.extend(found)
    return {id(inner) for module in matched for inner in module.modules()}


def _refuse_what_cannot_be_converted(places: list[tuple[str, nn.Module]]) -> None:
    for name, module in places:
        where = f"{name or 'the model itself'} ({type(module).__name__})"
        if isinstance(module, BinaryLayer):
            raise TypeError(f"{where} is binary already; convert a model once, or skip the layer")
        if isinstance(module, _STAYS_REAL):
            continue
        own = dict(module.named_parameters(recurse=False))
        if type(module) in (nn.Linear, nn.Conv2d) and "weight" in own:
            continue
        if _has_weight_matrix(module) or isinstance(module, nn.modules.lazy.LazyModuleMixin):
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


def _binary(module: nn.Module, binarization: Binarization) -> BinaryLayer:
    match module:
        case nn.Linear():
            return BinaryLinear.from_float(module, binarization)
        case nn.Conv2d():
            return BinaryConv2d.from_float(module, binarization)
        case _:
            raise TypeError(f"{type(module).__name__} has no binary counterpart")


def _replace(model: nn.Module, name: str, layer: BinaryLayer) -> None:
    if not name:
        return
    parent_name, _, child_name = name.rpartition(".")
    parent = model.get_submodule(parent_name)
    setattr(parent, child_name, layer)
    if isinstance(parent, nn.TransformerEncoderLayer):
        # In evaluation, torch's fused path reads the latent weights and skips the layers' forward.
        # It runs only where this attribute names an activation that it supports.
        parent.activation_relu_or_gelu = 0
