"""The convolutional network of the paper's CIFAR-10 and SVHN experiments (sections 3.2 and 3.3)."""

import torch
from torch import Tensor, nn

from bclightning.models.blocks import Blocks
from bclightning.vocabulary import Regularizer


class ConvNet(nn.Module):
    """Pairs of 3x3 convolutions, each pair halving the image, and two dense layers (section 3.2).

    ``2x128C3-MP2-2x256C3-MP2-2x512C3-MP2-2x1024FC-10`` in the paper's notation, with the default
    channels. A block is a convolution, max-pooling in every second one, batch normalization and
    ReLU.

    Args:
        image_size: Height and width of the images, in pixels.
        in_channels: Number of channels of the images.
        channels: Number of channels of each pair of convolutions.
        hidden: Width of the two dense layers.
        classes: Number of outputs.
        width: Factor on all channels and on `hidden`, for smaller budgets.
        regularizer: ``none``, ``dropout``, ``deterministic`` or ``stochastic``.
        dropout: Probability of dropping an input of a dense layer, if the regularizer is
            ``dropout``.
        batch_norm_momentum: Weight of the newest batch in the running averages.
        batch_norm_eps: Number that batch normalization adds to the variance.

    Raises:
        ValueError: A size is not positive, the image is too small to be halved by every pair, the
            regularizer is unknown, or the probability is not in [0, 1).

    Example:
        >>> import torch
        >>> ConvNet(width=0.125)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        image_size: int = 32,
        in_channels: int = 3,
        channels: list[int] | tuple[int, ...] = (128, 256, 512),
        hidden: int = 1024,
        classes: int = 10,
        width: float = 1.0,
        regularizer: Regularizer = "deterministic",
        dropout: float = 0.5,
        batch_norm_momentum: float = 0.1,
        batch_norm_eps: float = 1e-4,
    ) -> None:
        super().__init__()
        widths = [round(width * size) for size in channels]
        hidden = round(width * hidden)
        if min([in_channels, *widths, hidden, classes]) < 1:
            raise ValueError(
                "every layer needs at least one unit: raise the width factor "
                f"({width}), the channels ({list(channels)}) or hidden"
            )
        side = image_size >> len(widths)
        if side < 1:
            raise ValueError(
                f"images of {image_size} pixels cannot be halved {len(widths)} times; "
                "give fewer channels"
            )
        self.regularizer = regularizer
        blocks = Blocks(regularizer, dropout, batch_norm_momentum, batch_norm_eps)
        convolutions = []
        fan_in = in_channels
        for size in widths:
            convolutions.append(blocks.convolution(fan_in, size, pool=False))
            convolutions.append(blocks.convolution(size, size, pool=True))
            fan_in = size
        self.features = nn.Sequential(*convolutions)
        self.hidden = nn.Sequential(
            blocks.dense(fan_in * side * side, hidden), blocks.dense(hidden, hidden)
        )
        self.output = blocks.dense(hidden, classes, last=True)

    def forward(self, images: Tensor) -> Tensor:
        """Map images of shape (batch, channels, size, size) to scores of shape (batch, classes)."""
        # With the channels last in memory, a step on a CPU takes a quarter less time; the layers
        # keep the layout of their inputs.
        images = images.contiguous(memory_format=torch.channels_last)
        return self.output(self.hidden(self.features(images).flatten(1)))
