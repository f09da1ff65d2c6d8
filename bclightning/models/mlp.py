"""The permutation-invariant network of the paper's MNIST experiment (section 3.1)."""

from itertools import pairwise

from torch import Tensor, nn

from bclightning.models.blocks import Blocks
from bclightning.vocabulary import Regularizer


class MLP(nn.Module):
    """A multilayer perceptron on images as unordered vectors of pixels (section 3.1).

    Each hidden layer is a product, batch normalization and ReLU; the output layer is a product and
    batch normalization. With the regularizer ``dropout``, the hidden units are dropped out before
    the next layer's product.

    Args:
        in_features: Number of pixels times channels.
        hidden: Width of each hidden layer.
        classes: Number of outputs.
        regularizer: ``none``, ``dropout``, ``deterministic`` or ``stochastic``.
        dropout: Probability of dropping a hidden unit, if the regularizer is ``dropout``.
        input_dropout: Probability of dropping a pixel, with any regularizer; `None` drops none. The
            paper only says "50% Dropout"; Srivastava et al. (2014) drop 20 % of the pixels.
        batch_norm_momentum: Weight of the newest batch in the running averages.
        batch_norm_eps: Number that batch normalization adds to the variance.

    Raises:
        ValueError: A width is not positive, the regularizer is unknown, or a probability is not in
            [0, 1).

    Example:
        >>> import torch
        >>> MLP(regularizer="stochastic")(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        in_features: int = 784,
        hidden: list[int] | tuple[int, ...] = (1024, 1024, 1024),
        classes: int = 10,
        regularizer: Regularizer = "deterministic",
        dropout: float = 0.5,
        input_dropout: float | None = None,
        batch_norm_momentum: float = 0.15,
        batch_norm_eps: float = 1e-4,
    ) -> None:
        super().__init__()
        widths = [in_features, *hidden]
        if min([*widths, classes]) < 1:
            raise ValueError(
                f"every layer needs at least one unit, but the widths are {[*widths, classes]}"
            )
        self.regularizer = regularizer
        blocks = Blocks(regularizer, dropout, batch_norm_momentum, batch_norm_eps)
        rates = [input_dropout or 0.0, *[None] * len(hidden)]
        self.hidden = nn.Sequential(
            *(
                blocks.dense(fan_in, fan_out, input_dropout=rate)
                for (fan_in, fan_out), rate in zip(pairwise(widths), rates[:-1], strict=True)
            )
        )
        self.output = blocks.dense(widths[-1], classes, input_dropout=rates[-1], last=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map images of shape (batch, ...) to scores of shape (batch, classes)."""
        return self.output(self.hidden(images.flatten(1)))
