"""The four arms of the paper's comparison, as the blocks that a network is built of."""

from collections import OrderedDict
from typing import Literal, get_args

from torch import nn

from bclightning.nn import Binarization, BinaryConv2d, BinaryLinear

Regularizer = Literal["none", "dropout", "deterministic", "stochastic"]
"""The rows of the paper's table 2: real weights, real weights with dropout, and binary weights."""


class Blocks:
    """Makes the blocks of one network: product, normalization, activation, in the paper's order.

    The names of the parts are the same for all four arms, and so are the keys of ``state_dict()``:
    what differs between two arms is the kind of the product's weights, or the dropout alone. Real
    weights start Glorot-uniform, as the authors' full-precision twin did, and binary ones uniform
    in [-1, 1]. No product has a bias, since a batch normalization follows each (section 2.5).

    Args:
        regularizer: ``none``, ``dropout``, ``deterministic`` or ``stochastic``.
        dropout: Probability to drop a unit, when the regularizer is dropout.
        momentum: Weight of the newest batch in the running averages of batch normalization.
        eps: Added to the variance by batch normalization.

    Raises:
        ValueError: The regularizer is unknown or the probability not in [0, 1).

    Example:
        >>> list(Blocks("stochastic").dense(4, 2)._modules)
        ['linear', 'norm', 'activation']
    """

    def __init__(
        self,
        regularizer: Regularizer,
        dropout: float = 0.5,
        momentum: float = 0.1,
        eps: float = 1e-4,
    ) -> None:
        if regularizer not in get_args(Regularizer):
            raise ValueError(
                f"regularizer is {', '.join(get_args(Regularizer))}, and not {regularizer!r}"
            )
        self.regularizer = regularizer
        self.dropout = _probability(dropout)
        self.momentum = momentum
        self.eps = eps

    def dense(
        self,
        in_features: int,
        out_features: int,
        *,
        input_dropout: float | None = None,
        last: bool = False,
    ) -> nn.Sequential:
        """A dense block; `input_dropout` in place of the regularizer's, `last` without ReLU."""
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        dropout = self.dropout if self.regularizer == "dropout" else 0.0
        if input_dropout is not None:
            dropout = _probability(input_dropout)
        if dropout:
            parts["dropout"] = nn.Dropout(dropout)
        parts["linear"] = self._linear(in_features, out_features)
        parts["norm"] = nn.BatchNorm1d(out_features, eps=self.eps, momentum=self.momentum)
        if not last:
            parts["activation"] = nn.ReLU()
        return nn.Sequential(parts)

    def convolution(self, in_channels: int, out_channels: int, *, pool: bool) -> nn.Sequential:
        """A 3x3 convolution that keeps the size, halved by `pool` before the normalization."""
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        parts["conv"] = self._conv(in_channels, out_channels)
        if pool:
            parts["pool"] = nn.MaxPool2d(2)
        parts["norm"] = nn.BatchNorm2d(out_channels, eps=self.eps, momentum=self.momentum)
        parts["activation"] = nn.ReLU()
        return nn.Sequential(parts)

    @property
    def _binarization(self) -> Binarization | None:
        match self.regularizer:
            case "deterministic" | "stochastic":
                return self.regularizer
            case _:
                return None

    def _linear(self, in_features: int, out_features: int) -> nn.Linear:
        if self._binarization:
            return BinaryLinear(
                in_features, out_features, bias=False, binarization=self._binarization
            )
        layer = nn.Linear(in_features, out_features, bias=False)
        nn.init.xavier_uniform_(layer.weight)
        return layer

    def _conv(self, in_channels: int, out_channels: int) -> nn.Conv2d:
        if self._binarization:
            return BinaryConv2d(
                in_channels, out_channels, 3, padding=1, bias=False, binarization=self._binarization
            )
        layer = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        nn.init.xavier_uniform_(layer.weight)
        return layer


def _probability(dropout: float) -> float:
    if not 0 <= dropout < 1:
        raise ValueError(f"a dropout probability lies in [0, 1), and {dropout} does not")
    return dropout
