"""The digits that scikit-learn ships."""

import torch

from bclightning.data import Digits


def test_digits_are_split_evenly_and_centred_with_the_training_mean():
    splits = Digits().loaded_splits()
    for name, share in (("val", 30), ("test", 30)):
        assert (splits[name].labels.bincount() - share).abs().max() <= 2
    assert splits["train"].images.mean(0).abs().max() < 1e-6
    assert splits["test"].images.mean(0).abs().max() > 1e-3
    rows = torch.cat([split.images.flatten(1) for split in splits.values()])
    assert len(rows) == 1797
