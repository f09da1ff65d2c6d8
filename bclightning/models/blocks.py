"""The blocks that the paper's networks are built of, for each of the four regularizers."""

from collections import OrderedDict

from torch import nn

from bclightning.nn import BinaryConv2d, BinaryLinear
from bclightning.vocabulary import REGULARIZERS, Binarization, Regularizer


class Blocks:
    """Makes the blocks of one network: product, normalization, activation, in the paper's order.

    The parts have the same names with all four regularizers, and so have the keys of
    ``state_dict()``: two networks differ only in the kind of their weights or in the dropout. Real
    weights are initialized Glorot-uniform, as in the authors' full-precision network, and binary
    ones uniformly in [-1, 1]. No product has a bias, since a batch normalization follows each of
    them (section 2.5).

    Args:
        regularizer: ``none``, ``dropout``, ``deterministic`` or ``stochastic``.
        dropout: Probability of dropping a unit, if the regularizer is ``dropout``.
        momentum: Weight of the newest batch in the running averages of batch normalization.
        eps: Number that batch normalization adds to the variance.

    Raises:
        ValueError: The regularizer is unknown, or the probability is not in [0, 1).

    Example:
        >>> [name for name, _ in Blocks("stochastic").dense(4, 2).named_children()]
        ['linear', 'norm', 'activation']
    """

    def __init__(
        self,
        regularizer: Regularizer,
        dropout: float = 0.5,
        momentum: float = 0.1,
        eps: float = 1e-4,
    ) -> None:
        if regularizer not in REGULARIZERS:
            raise ValueError(
                f"regularizer must be one of {', '.join(REGULARIZERS)}, not {regularizer!r}"
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
        """A dense block; `input_dropout` replaces the regularizer's rate, `last` leaves ReLU out.

        Example:
            >>> [name for name, _ in Blocks("dropout").dense(4, 2, last=True).named_children()]
            ['dropout', 'linear', 'norm']
        """
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
        """A block of a 3x3 convolution that keeps the image size; `pool` then halves it.

        Example:
            >>> [name for name, _ in Blocks("none").convolution(3, 8, pool=True).named_children()]
            ['conv', 'pool', 'norm', 'activation']
        """
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
        raise ValueError(f"a dropout probability must be in [0, 1), not {dropout}")
    return dropout
