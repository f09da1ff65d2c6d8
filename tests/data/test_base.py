"""Batches and orders that all data sets share."""

import lightning
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bclightning.data import CIFAR10, Digits
from bclightning.data.base import EpochSampler, ImageTensors
from bclightning.errors import UserError
from bclightning.seeds import RunSeeds, derive_seed

counts, seeds, epochs = st.integers(1, 60), st.integers(0, 2**31), st.integers(0, 10**4)


def order(count: int, seed: int, epoch: int, before: tuple[int, ...] = ()) -> list[int]:
    sampler = EpochSampler(count, RunSeeds(seed))
    for other in before:
        sampler.set_epoch(other)
        list(sampler)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(counts, seeds, epochs)
def test_an_epochs_order_is_a_permutation_whatever_came_before(count, seed, epoch):
    once = order(count, seed, epoch)
    assert sorted(once) == list(range(count))
    assert order(count, seed, epoch, before=(0, 3)) == once


def test_orders_differ_between_epochs_and_seeds():
    orders = {tuple(order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_a_batch_is_one_indexing_operation(monkeypatch):
    calls = []
    monkeypatch.setattr(ImageTensors, "__getitem__", lambda *_: pytest.fail("image by image"))
    whole = ImageTensors.__getitems__
    monkeypatch.setattr(
        ImageTensors, "__getitems__", lambda self, i: calls.append(len(i)) or whole(self, i)
    )
    for _ in Digits(batch_size=100).train_dataloader():
        pass
    assert calls == [100] * 11


def test_training_batches_are_full_and_evaluation_drops_nothing():
    data = Digits(batch_size=100, eval_batch_size=64)
    assert [len(labels) for _, labels in data.train_dataloader()] == [100] * 11
    assert [len(labels) for _, labels in data.val_dataloader()] == [64] * 4 + [44]
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 300


def test_an_epoch_is_the_same_in_a_fresh_data_module_and_in_an_old_one():
    def labels(data: Digits, epoch: int) -> list[int]:
        loader = data.train_dataloader()
        loader.sampler.set_epoch(epoch)
        return torch.cat([labels for _, labels in loader]).tolist()

    old = Digits(seed=3)
    first = labels(old, 0)
    assert labels(old, 1) == labels(Digits(seed=3), 1) != first


@pytest.fixture
def torchs_generator():
    """Torch's global generator, put back after the test."""
    with torch.random.fork_rng():
        yield


def test_the_runs_seed_is_the_default(torchs_generator, monkeypatch):
    # Lightning's function sets the variable too, which is not what is read.
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    lightning.seed_everything(17, verbose=False)
    monkeypatch.setenv("PL_GLOBAL_SEED", "18")
    assert Digits().seed is None
    assert Digits().seeds == RunSeeds(17)
    assert Digits(seed=2).seed == 2
    assert Digits(seed=2).seeds == RunSeeds(2)


def test_an_initial_seed_of_64_bits_is_taken_modulo_32_bits(torchs_generator):
    torch.manual_seed(2**40 + 5)
    assert Digits().seeds == RunSeeds(5)


def loaded_order(loader) -> list[int]:
    return list(loader.sampler)


@pytest.mark.parametrize("version", [1, 2])
def test_a_runs_seeds_replace_the_default_and_keep_a_seed_of_the_data_modules_own(
    torchs_generator, version
):
    torch.manual_seed(1)
    data, own = Digits(), Digits(seed=3)
    before = data.train_dataloader()
    data.use_seeds(7, version)
    own.use_seeds(7, version)
    assert data.seeds == RunSeeds(7, version)
    assert own.seeds == RunSeeds(3, version)
    # A loader keeps the seeds of the time when it was made.
    assert loaded_order(before) == loaded_order(Digits(seed=1).train_dataloader())
    assert loaded_order(data.train_dataloader()) == list(EpochSampler(1197, RunSeeds(7, version)))
    assert loaded_order(own.train_dataloader()) == list(EpochSampler(1197, RunSeeds(3, version)))


def test_an_order_of_version_1_is_that_of_recorded_runs():
    sampler = EpochSampler(8, RunSeeds(7, version=1))
    sampler.set_epoch(3)
    assert list(sampler) == [1, 5, 2, 0, 7, 6, 3, 4]
    generator = torch.Generator().manual_seed(derive_seed(7, 3))
    assert list(sampler) == torch.randperm(8, generator=generator).tolist()


def test_an_unknown_version_of_seeding_is_refused():
    with pytest.raises(ValueError, match="seeding version must be 1 or 2, and is 0"):
        Digits().use_seeds(7, 0)


def test_statistics_take_a_fixed_spread_of_training_images():
    data = Digits(eval_batch_size=30)
    everything = torch.cat([images for images, _ in data.statistics_dataloader()])
    assert torch.equal(everything, data.loaded_splits()["train"].images)
    some = torch.cat([images for images, _ in data.statistics_dataloader(100)])
    assert len(some) == 100
    assert torch.equal(some[[0, -1]], everything[[0, -1]])
    assert torch.equal(some, torch.cat([i for i, _ in data.statistics_dataloader(100)]))


def test_one_image_is_what_the_batch_holds():
    data = Digits().loaded_splits()["val"]
    image, label = data[5]
    images, labels = data.__getitems__([5])
    assert torch.equal(image, images[0])
    assert label == labels[0]


@pytest.mark.parametrize("key", ["batch_size", "eval_batch_size"])
def test_a_batch_of_nothing_is_refused(key):
    with pytest.raises(ValueError, match=f"{key} must be at least 1, and is 0"):
        Digits(**{key: 0})


def test_a_negative_seed_or_no_images_for_statistics_are_refused():
    with pytest.raises(ValueError, match="seed must not be negative"):
        Digits(seed=-1)
    with pytest.raises(ValueError, match="at least one image, and the limit is 0"):
        Digits().statistics_dataloader(0)


def test_a_batch_of_more_than_there_is_is_refused():
    with pytest.raises(UserError, match="2000 is more than the 1197 training images of digits"):
        Digits(batch_size=2000).setup("fit")


@pytest.mark.parametrize("place", ["argument", "variable"])
def test_the_data_folder_may_be_below_home(monkeypatch, tmp_path, place):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("BCL_DATA", raising=False)
    if place == "variable":
        monkeypatch.setenv("BCL_DATA", "~/sets")
    data = CIFAR10("~/sets" if place == "argument" else None)
    assert data.root == tmp_path / "sets"
    assert data.cache_dir == tmp_path / "sets" / "bclightning-cache"
    assert CIFAR10(cache_dir="~/cache").cache_dir == tmp_path / "cache"


def test_an_empty_variable_names_no_data_folder(monkeypatch):
    monkeypatch.setenv("BCL_DATA", "")
    assert str(Digits().root) == "data"
