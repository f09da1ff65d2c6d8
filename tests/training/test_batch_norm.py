"""Validation of stochastic networks is not misled by batch-norm statistics of sampled weights."""

import copy

import pytest
import torch
from bare_trainer import bare_trainer
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bclightning.data import Digits
from bclightning.evaluation import errors_by_weights
from bclightning.models import MLP
from bclightning.nn import (
    BinaryLinear,
    preserving_batch_norm,
    reestimate_batch_norm_,
)
from bclightning.training import BinaryConnect, Classifier, ClipWeights, ReestimateBatchNorm


def trained(method: str, callbacks=()) -> tuple[Classifier, Digits, dict]:
    torch.manual_seed(0)
    model = Classifier(MLP(64, [32], regularizer=method), learning_rate=0.01)
    data = Digits(seed=0)
    trainer = bare_trainer(2, num_sanity_val_steps=0, callbacks=list(callbacks))
    trainer.fit(model, datamodule=data)
    return model, data, trainer.callback_metrics


def error(model: Classifier, loader: DataLoader) -> float:
    model.eval()
    images, labels = next(iter(loader))
    with torch.inference_mode():
        return 100 * float((model(images).argmax(1) != labels).float().mean())


def test_a_stochastic_network_is_validated_with_statistics_of_its_real_weights():
    model, data, metrics = trained("stochastic")
    with preserving_batch_norm(model):
        reestimate_batch_norm_(model, (images for images, _ in data.statistics_dataloader(5000)))
        assert float(metrics["val/error"]) == pytest.approx(
            error(model, data.val_dataloader()), abs=1e-4
        )
    # The running averages that training left are back, and would have said something else.
    assert abs(error(model, data.val_dataloader()) - float(metrics["val/error"])) > 1


def test_a_deterministic_network_is_validated_as_it_is():
    model, data, metrics = trained("deterministic")
    assert float(metrics["val/error"]) == pytest.approx(
        error(model, data.val_dataloader()), abs=1e-4
    )


def test_statistics_take_a_bounded_number_of_training_images(monkeypatch):
    seen = []
    run = Classifier.statistics_step
    monkeypatch.setattr(
        Classifier,
        "statistics_step",
        lambda self, batch: seen.append(len(batch[0])) or run(self, batch),
    )
    callback = ReestimateBatchNorm(images=100)
    monkeypatch.setattr(Classifier, "configure_callbacks", lambda self: [callback])
    trained("stochastic")
    assert seen == [100, 100]


def batches(count: int, **settings) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 64, generator=generator)
    return DataLoader(TensorDataset(images, images[:, :10].argmax(1)), 20, **settings)


def stochastic(tracking: bool = True) -> Classifier:
    torch.manual_seed(0)
    return Classifier(
        nn.Sequential(
            BinaryLinear(64, 32, binarization="stochastic"),
            nn.BatchNorm1d(32, track_running_stats=tracking),
            nn.ReLU(),
            nn.Linear(32, 10),
        )
    )


@pytest.mark.parametrize("tracking", [True, False])
def test_loaders_of_ones_own_and_the_check_before_training_will_do(tracking):
    trainer = bare_trainer()
    trainer.fit(stochastic(tracking), batches(200), batches(40))
    assert trainer.num_sanity_val_steps == 2
    assert "val/error" in trainer.callback_metrics


def test_an_epoch_under_way_goes_on_after_validation():
    seen = []
    model = stochastic()
    model.on_train_batch_start = lambda batch, batch_idx: seen.append(len(batch[0]))
    loader = batches(200, num_workers=1, persistent_workers=True)
    bare_trainer(val_check_interval=0.5).fit(model, loader, batches(40))
    assert sum(seen) == 200


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluation_by_itself_has_statistics_of_the_real_weights_too(split):
    model, data, metrics = trained("stochastic")
    before = copy.deepcopy(model.state_dict())
    trainer = bare_trainer()
    if split == "val":
        (result,) = trainer.validate(model, datamodule=data, verbose=False)
        assert result["val/error"] == float(metrics["val/error"])
    else:
        (result,) = trainer.test(model, datamodule=Digits(seed=0), verbose=False)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    loader = data.val_dataloader() if split == "val" else data.test_dataloader()
    with preserving_batch_norm(model):
        reestimate_batch_norm_(model, (images for images, _ in data.statistics_dataloader(5000)))
        assert result[f"{split}/error"] == pytest.approx(error(model, loader), abs=1e-4)
    assert abs(result[f"{split}/error"] - error(model, loader)) > 1


def test_a_classifier_s_training_is_as_if_it_had_not_been_there(monkeypatch):
    weights = [value.clone() for value in trained("stochastic")[0].state_dict().values()]
    monkeypatch.setattr(Classifier, "configure_callbacks", lambda self: [ClipWeights()])
    without = trained("stochastic")[0].state_dict().values()
    assert all(map(torch.equal, weights, without))


def test_the_error_of_averaged_weights_is_the_one_under_their_label():
    """That of real weights and re-estimated statistics, as the test-time methods compute it."""
    model, data, metrics = trained("stochastic", [EMAWeightAveraging(decay=0.9)])
    # At the end of training Lightning leaves the averaged weights in place.
    kinds = errors_by_weights(
        model, data.val_dataloader(), data.statistics_dataloader(5000), ["real"]
    )
    as_trained, again = (kind.value for kind in kinds)
    assert float(metrics["val/error"]) == pytest.approx(again, abs=1e-4)
    assert again != as_trained


class Data(LightningDataModule):
    """One that loads training data only when it is told that they are needed."""

    def setup(self, stage):
        if stage == "fit":
            self.training = batches(200)

    def train_dataloader(self):
        return self.training

    def test_dataloader(self):
        return batches(40)


class WithData(Classifier):
    def train_dataloader(self):
        return batches(200)


def missing():
    raise FileNotFoundError("no such file")


def noted_statistics(monkeypatch) -> list[Tensor]:
    """The running means of each evaluation."""
    means = []
    evaluate = Classifier.test_step

    def test_step(self, batch, batch_idx):
        means.append(self.network[1].running_mean.clone())
        evaluate(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "test_step", test_step)
    return means


@pytest.mark.parametrize("home", ["data module", "module"])
def test_training_images_of_ones_own_data_module_or_module_will_do(home, monkeypatch):
    means = noted_statistics(monkeypatch)
    model = stochastic()
    if home == "module":
        model = WithData(model.network)
        bare_trainer().test(model, batches(40), verbose=False)
    else:
        bare_trainer().test(model, datamodule=Data(), verbose=False)
    reestimate_batch_norm_(model, (images for images, _ in batches(200)))
    assert torch.equal(means[0], model.network[1].running_mean)


@pytest.mark.parametrize("reason", ["no data", "not loaded", "batches", "empty"])
def test_without_training_images_a_warning_says_what_to_do(reason, monkeypatch):
    means = noted_statistics(monkeypatch)
    model = stochastic()
    says = "give the trainer a datamodule that has training batches"
    if reason == "batches":
        model.train_dataloader = lambda: [{"images": torch.zeros(20, 64)}]
        says = "let its statistics_step run the network on a training batch, which failed with "
    elif reason == "not loaded":
        model.train_dataloader = missing
        says = "let its training data load, which failed: no such file"
    elif reason == "empty":
        model.train_dataloader = lambda: []
        says = "let its training data hold at least one batch"
    with pytest.warns(UserWarning, match=f"its error is likely too high: {says}.*; or estimate"):
        bare_trainer().test(model, batches(40), verbose=False)
    assert all((mean == 0).all() for mean in means)


class LitNetwork(LightningModule):
    """One that knows nothing of us, with batch norm; it notes the statistics of each evaluation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Linear(32, 10))
        self.means = []

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.means.append(self.network[1].running_mean.clone())

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def train_dataloader(self):
        return batches(200)


@pytest.mark.parametrize("binarization", ["deterministic", "stochastic"])
@pytest.mark.parametrize("wanted", [True, False])
def test_binary_connect_brings_the_statistics_to_any_module(binarization, wanted):
    model = LitNetwork()
    callback = BinaryConnect(binarization, reestimate_batch_norm=wanted)
    trainer = bare_trainer(callbacks=[callback], num_sanity_val_steps=0)
    trainer.fit(model, val_dataloaders=batches(20))
    trainer.test(model, batches(20), verbose=False)
    trained_with = model.network[1].running_mean.clone()
    if binarization == "stochastic" and wanted:
        reestimate_batch_norm_(model, (images for images, _ in batches(200)))
        assert not torch.equal(trained_with, model.network[1].running_mean)
    assert len(model.means) == 2
    assert all(torch.equal(mean, model.network[1].running_mean) for mean in model.means)


def test_a_callback_of_ones_own_takes_the_place_of_binary_connects(monkeypatch):
    seen = []
    run = LitNetwork.forward
    monkeypatch.setattr(
        LitNetwork,
        "forward",
        lambda self, images: seen.append((self.training, len(images))) or run(self, images),
    )
    callbacks = [BinaryConnect("stochastic"), ReestimateBatchNorm(images=60)]
    trainer = bare_trainer(callbacks=callbacks, num_sanity_val_steps=0)
    trainer.fit(LitNetwork(), val_dataloaders=batches(20))
    assert seen == [(True, 20)] * 10 + [(False, 20)] * 3
