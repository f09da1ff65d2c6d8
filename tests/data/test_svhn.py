"""SVHN from small files in the real format."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bclightning.data import SVHN
from bclightning.data.svhn import PREPROCESSING, last_of_each_class, read_mat
from bclightning.errors import DataError


def test_svhn_splits_are_the_papers(svhn_root):
    data = SVHN(str(svhn_root))
    data.prepare_data()
    assert data.split_sizes() == {"train": 100, "val": 50, "test": 40}
    splits = data.loaded_splits()
    assert splits["val"].labels.bincount().tolist() == [5] * 10
    # File order within each split, and every image somewhere: 40 of train's 60, 60 of extra's 90.
    assert splits["train"].labels.tolist() == [i % 10 for i in range(40)] + [
        i % 10 for i in range(60)
    ]
    files = [read_mat(svhn_root / file.name) for file in SVHN.files]
    stored = torch.cat([splits[split].images for split in ("train", "val", "test")]).numpy()
    expected = np.concatenate(
        [files[0][0][:40], files[1][0][:60], files[0][0][40:], files[1][0][60:], files[2][0]]
    )
    assert np.array_equal(stored, expected)
    assert splits["test"].labels.tolist() == [i % 10 for i in range(40)]


def test_svhn_batches_are_normalized_as_they_are_used(svhn_root):
    data = SVHN(str(svhn_root), batch_size=10)
    data.prepare_data()
    images, _ = next(iter(data.val_dataloader()))
    raw = data.loaded_splits()["val"].images
    assert raw.dtype == torch.uint8
    assert torch.equal(images, PREPROCESSING.apply(raw))
    assert all(images[:, channel].std() > 0.1 for channel in range(3))


def test_matlabs_axes_and_its_label_ten_are_understood(svhn_root):
    images, labels = read_mat(svhn_root / "test_32x32.mat")
    assert images.shape == (40, 3, 32, 32)
    # The fixture's bright rows stand where the class says, for the digit 0 too.
    for image, label in zip(images[:20], labels[:20], strict=True):
        rows = image.mean((0, 2))
        assert rows.argmax() in range(2 * label, 2 * label + 3)


@pytest.mark.parametrize("content", [b"", b"MATLAB", b"\x00" * 500])
def test_what_is_no_matlab_file_is_refused(tmp_path, content):
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(DataError, match="not a file of SVHN's format 2"):
        read_mat(tmp_path / "x.mat")


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(0, 3))
def test_the_last_of_each_class_are_held_out(labels, count):
    array = np.array(labels, dtype=np.int64)
    if any(labels.count(c) < count for c in range(3)):
        with pytest.raises(DataError, match="too few to hold out"):
            last_of_each_class(array, count, 3)
        return
    chosen = last_of_each_class(array, count, 3)
    for c in range(3):
        places = [i for i, label in enumerate(labels) if label == c]
        assert [i for i in places if chosen[i]] == places[len(places) - count :]
