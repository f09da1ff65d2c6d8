"""What W&B calls a run's metrics: results first, layers last, and each share in percent."""

from collections.abc import Mapping, Sequence

# In a chart's title, which is cut, and in a table's heading the name is all there is.
PERCENT = "_pct"

# W&B draws no chart of what begins so: a chart of epochs over steps is a staircase.
EPOCH = "_epoch"

BEST_EPOCH = "best/epoch"
"""The best epoch, counted from 1 as in the terminal."""

# Sections are sorted by name, and charts in leet are too: train, val, weights.
_LAYERS = "weights"

_OF_LAYERS = {"flip_ratio": "flips", "saturation": "saturation"}
_HISTOGRAM = "weights"

_RENAMED = {
    "learning_rate": "train/learning_rate",
    "features/first_layer": f"{_LAYERS}/1_features",
}


def wandb_name(metric: str) -> str:
    """The name of a metric in W&B, which says where it is in percent.

    Example:
        >>> wandb_name("val/error"), wandb_name("learning_rate"), wandb_name("val/loss")
        ('val/error_pct', 'train/learning_rate', 'val/loss')
    """
    return f"{metric}{PERCENT}" if is_error(metric) else _RENAMED.get(metric, metric)


def is_error(metric: str) -> bool:
    """Whether a metric is a classification error in percent, as everywhere in this package."""
    return metric.endswith("/error")


def wandb_metrics(metrics: Mapping[str, float], layers: Sequence[str]) -> dict[str, float]:
    """Metrics as W&B shows them.

    Errors have their accuracy beside them, epochs count from 1, and what is said of a layer begins
    with its number, so that names can be told apart when they are cut.

    Args:
        metrics: Metrics as they are logged.
        layers: Names of the network's layers with weights, in its order.

    Example:
        >>> wandb_metrics({"epoch": 0, "val/error": 2.5, "flip_ratio/hidden.0": 0.25}, ["hidden.0"])
        {'_epoch': 1, 'val/error_pct': 2.5, 'val/accuracy_pct': 97.5, 'weights/1_flips_pct/hidden_0\
': 25.0}
    """
    shown: dict[str, float] = {}
    for metric, value in metrics.items():
        kind, _, layer = metric.partition("/")
        if metric == "epoch":
            shown[EPOCH] = int(value) + 1
        elif kind in _OF_LAYERS and layer:
            shown[_of_layer(f"{_OF_LAYERS[kind]}{PERCENT}", layer, layers)] = 100.0 * value
        else:
            shown[wandb_name(metric)] = value
        if is_error(metric):
            shown[f"{metric.removesuffix('error')}accuracy{PERCENT}"] = 100.0 - value
    return shown


def wandb_media(key: str, layers: Sequence[str]) -> str:
    """The name of a histogram or an image.

    Example:
        >>> wandb_media("weights/output.linear", ["hidden.0.linear", "output.linear"])
        'weights/2_histogram/output_linear'
    """
    kind, _, layer = key.partition("/")
    return _of_layer("histogram", layer, layers) if kind == _HISTOGRAM else wandb_name(key)


def _of_layer(what: str, layer: str, layers: Sequence[str]) -> str:
    # W&B takes a dot for the way into a nested value.
    name = layer.replace(".", "_")
    if layer not in layers:
        return f"{_LAYERS}/{what}/{name}"
    # As many digits as the last one has, since names are sorted as text.
    number = f"{layers.index(layer) + 1:0{len(str(len(layers)))}}"
    return f"{_LAYERS}/{number}_{what}/{name}"
