"""Validation of stochastic networks is not misled by batch-norm statistics of sampled weights."""

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bclightning.data import Digits
from bclightning.models import MLP
from bclightning.nn import (
    BinaryLinear,
    evaluating_with,
    preserving_batch_norm,
    reestimate_batch_norm_,
)
from bclightning.training import Classifier, ReestimateBatchNorm


def trained(method: str, callbacks=()) -> tuple[Classifier, Digits, dict]:
    torch.manual_seed(0)
    model = Classifier(MLP(64, [32], regularizer=method), learning_rate=0.01)
    data = Digits(seed=0)
    trainer = Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
    )
    trainer.fit(model, datamodule=data)
    return model, data, trainer.callback_metrics


def error(model: Classifier, data: Digits) -> float:
    model.eval()
    images, labels = next(iter(data.val_dataloader()))
    with torch.inference_mode():
        return 100 * float((model(images).argmax(1) != labels).float().mean())


def test_a_stochastic_network_is_validated_with_statistics_of_its_real_weights():
    model, data, metrics = trained("stochastic")
    with preserving_batch_norm(model):
        reestimate_batch_norm_(model, (images for images, _ in data.statistics_dataloader(5000)))
        assert float(metrics["val/error"]) == pytest.approx(error(model, data), abs=1e-4)
    # The running averages that training left are back, and would have said something else.
    assert abs(error(model, data) - float(metrics["val/error"])) > 1


def test_a_deterministic_network_is_validated_as_it_is():
    model, data, metrics = trained("deterministic")
    assert float(metrics["val/error"]) == pytest.approx(error(model, data), abs=1e-4)


def test_statistics_take_a_bounded_number_of_training_images(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "bclightning.training.validation.reestimate_batch_norm_",
        lambda model, batches: seen.append(sum(len(images) for images in batches)),
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


def stock_trainer(**settings) -> Trainer:
    return Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


@pytest.mark.parametrize("tracking", [True, False])
def test_loaders_of_ones_own_and_the_check_before_training_will_do(tracking):
    trainer = stock_trainer()
    trainer.fit(stochastic(tracking), batches(200), batches(40))
    assert trainer.num_sanity_val_steps == 2
    assert "val/error" in trainer.callback_metrics


def test_an_epoch_under_way_goes_on_after_validation():
    seen = []
    model = stochastic()
    model.on_train_batch_start = lambda batch, batch_idx: seen.append(len(batch[0]))
    loader = batches(200, num_workers=1, persistent_workers=True)
    stock_trainer(val_check_interval=0.5).fit(model, loader, batches(40))
    assert sum(seen) == 200


def test_testing_is_left_alone():
    model, data, _ = trained("stochastic")
    with evaluating_with(model, "real"):
        trainer = Trainer(
            accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False
        )
        (result,) = trainer.test(model, datamodule=data, verbose=False)
    images, labels = next(iter(data.test_dataloader()))
    with torch.inference_mode():
        wrong = (model.eval()(images).argmax(1) != labels).float().mean()
    assert result["test/error"] == pytest.approx(100 * float(wrong), abs=1e-4)
