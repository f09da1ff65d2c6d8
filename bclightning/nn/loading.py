"""What a float layer does when it loads the latent weight of a binary one."""

import warnings
from typing import Any

from torch import nn

from bclightning.functional import _torch_private
from bclightning.nn.layers import STATE_KEY, BinaryConv2d, BinaryLayer, BinaryLinear

BINARY_LAYERS: dict[type[nn.Module], type[BinaryLayer]] = {
    kind.real_class: kind for kind in (BinaryLinear, BinaryConv2d)
}
"""The binary form of each of torch's layers that has one."""


def watch_float_layers() -> None:
    """Let float layers notice from now on that they load a latent weight, and warn."""
    for kind in BINARY_LAYERS:
        _torch_private.after_loading(kind, _notice)


def _notice(layer: nn.Module, metadata: dict[str, Any]) -> None:
    note = metadata.get(STATE_KEY)
    if note is None or isinstance(layer, BinaryLayer):
        return
    binarization = note["binarization"]
    if note.get("convert") and type(layer) in BINARY_LAYERS:
        BINARY_LAYERS[type(layer)].from_float(layer, binarization)
        return
    # The same words for each layer, so that they are shown once.
    warnings.warn(
        f"weights that were trained as the latent weights of a {binarization} binary layer are "
        f"loaded into a real one, which computes with them as they are; for a network with binary "
        f"weights, call bclightning.convert_to_binary(model, {binarization!r}) before loading",
        stacklevel=2,
    )
