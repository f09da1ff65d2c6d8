"""The squared hinge loss against a loop."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bclightning.functional import squared_hinge_loss


@given(
    arrays(np.float64, (3, 4), elements=st.floats(-3, 3)),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
def test_it_is_the_mean_of_squared_hinges_over_batch_and_classes(scores, labels):
    total = 0.0
    for row, label in zip(scores, labels, strict=True):
        for column, score in enumerate(row):
            target = 1 if column == label else -1
            total += max(0.0, 1 - target * score) ** 2
    loss = squared_hinge_loss(torch.tensor(scores), torch.tensor(labels))
    assert abs(loss.item() - total / 12) < 1e-9


def test_scores_beyond_the_margin_cost_nothing_and_have_no_gradient():
    scores = torch.tensor([[2.0, -1.5]], requires_grad=True)
    loss = squared_hinge_loss(scores, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(scores.grad, torch.zeros(1, 2))
