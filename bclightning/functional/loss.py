"""The squared hinge loss, with which the paper trains its networks (section 3.1, "L2-SVM")."""

import torch
from torch import Tensor
from torch.nn import functional


def squared_hinge_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Average ``max(0, 1 - t * y)**2`` over batch and classes, with targets t of ±1 (section 3.1).

    Args:
        scores: Network outputs y of shape (batch, classes).
        labels: Class indices of shape (batch,), int64.

    Returns:
        The loss, a scalar.

    Example:
        >>> scores = torch.tensor([[2.0, -1.0], [0.0, 0.0]])
        >>> squared_hinge_loss(scores, torch.tensor([0, 1]))
        tensor(0.5000)
    """
    targets = torch.full_like(scores, -1.0).scatter_(1, labels.unsqueeze(1), 1.0)
    return functional.relu(1 - targets * scores).square().mean()
