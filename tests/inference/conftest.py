"""What these tests share: seeded randomness."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seeded():
    """The same weights and images each time."""
    torch.manual_seed(0)
