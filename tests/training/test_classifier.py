"""Training a Classifier under Lightning's own options, and the learning rate that it logs."""

import copy
import warnings

import pytest
import torch
from bare_trainer import bare_trainer
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import (
    Callback,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
)
from torch import nn

from bclightning.data import Digits
from bclightning.models import MLP
from bclightning.nn import BinaryLinear, binary_layers
from bclightning.runs.callbacks import FirstEpochs
from bclightning.training import Classifier, WeightStatistics


class Watched(Classifier):
    """Note, right before each step, the norm of all gradients and the kinds of them."""

    def __init__(self, method: str) -> None:
        torch.manual_seed(0)
        super().__init__(MLP(64, [32], regularizer=method), learning_rate=0.01)
        self.norms = []
        self.dtypes = set()

    def configure_gradient_clipping(self, optimizer, gradient_clip_val, gradient_clip_algorithm):
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat([g.double().flatten() for g in gradients]).norm()))
        self.dtypes |= {gradient.dtype for gradient in gradients}


def fit(model: Classifier, max_epochs: int = 1, **settings) -> Trainer:
    trainer = bare_trainer(max_epochs, num_sanity_val_steps=0, **settings)
    trainer.fit(model, datamodule=Digits(seed=0))
    return trainer


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("method", ["none", "dropout", "deterministic", "stochastic"])
def test_gradients_are_clipped_before_the_step(method, precision):
    model = Watched(method)
    free = Watched(method)
    fit(model, precision=precision, gradient_clip_val=0.01)
    fit(free, precision=precision)
    # Clipped in bfloat16, a norm is that to one part in 2**8.
    assert max(model.norms) == pytest.approx(0.01, rel=2**-8)
    assert min(free.norms) > 0.01
    if binary_layers(model) and precision == "bf16-mixed":
        assert model.dtypes == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("method", ["none", "deterministic", "stochastic"])
def test_it_trains_in_64_bits_over_several_batches_a_step(method):
    model = Watched(method)
    trainer = fit(model, precision="64-true", accumulate_grad_batches=2)
    assert model.dtypes == {torch.float64}
    assert float(trainer.callback_metrics["val/error"]) < 60


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("bias", [False, True])
def test_the_logged_learning_rate_is_that_before_scaling(optimizer, bias):
    network = nn.Sequential(nn.Flatten(), BinaryLinear(64, 10, bias=bias))
    model = Classifier(
        network, optimizer, learning_rate=1e-3, final_learning_rate=1e-5, loss="cross_entropy"
    )
    rates = [
        float(fit(copy.deepcopy(model), max_epochs=2, **settings).callback_metrics["learning_rate"])
        for settings in ({"callbacks": [FirstEpochs(1)]}, {})
    ]
    assert rates == pytest.approx([1e-3, 1e-4], rel=1e-5)


@pytest.mark.parametrize("every", [10, 23], ids=["within an epoch", "at its last step"])
def test_a_checkpoint_of_any_step_is_resumed_by_lightning_alone(tmp_path, every):
    def train(max_epochs, ckpt_path=None):
        torch.manual_seed(0)
        model = Classifier(MLP(64, [8], regularizer="stochastic"), "adam", 0.05, 0.005)
        folder = tmp_path / str(max_epochs)
        keeper = ModelCheckpoint(folder, "{step}", every_n_train_steps=every, save_top_k=-1)
        trainer = Trainer(
            max_epochs=max_epochs,
            max_steps=100,
            accelerator="cpu",
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=[keeper, WeightStatistics()],
        )
        data = Digits(batch_size=50, seed=0)
        trainer.fit(model, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
        return trainer

    train(2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before")
        warnings.filterwarnings("ignore", "The dirpath has changed")
        resumed = train(3, tmp_path / "2" / f"step={every}.ckpt")
    metrics = resumed.callback_metrics
    assert float(metrics["train/loss"]) > 0
    assert 0 < float(metrics["learning_rate"]) < 0.05
    assert 0 < float(metrics["flip_ratio/hidden.0.linear"]) < 1


class Rates(Classifier):
    """Note, within each step, the rate of a binary weight as a multiple of the owner's rate."""

    def __init__(self, optimizer: str) -> None:
        torch.manual_seed(0)
        network = MLP(64, [32], regularizer="deterministic")
        super().__init__(network, optimizer, learning_rate=1e-3, final_learning_rate=1e-4)
        self.ratios = []

    def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
        own = optimizer.optimizer.param_groups[0]["lr"]
        weight = self.network.hidden[0].linear.weight

        def closure():
            loss = optimizer_closure()
            groups = optimizer.optimizer.param_groups
            (group,) = [g for g in groups if any(p is weight for p in g["params"])]
            self.ratios.append(group["lr"] / own)
            return loss

        optimizer.step(closure=closure)


SETTERS = {
    "none": [],
    "finder": [lambda: LearningRateFinder(num_training_steps=20)],
    "averaging": [lambda: StochasticWeightAveraging(5e-4, 1, 1)],
}


@pytest.mark.parametrize("setter", SETTERS)
@pytest.mark.parametrize(("optimizer", "power"), [("adam", 0.5), ("sgd", 1.0), ("nesterov", 1.0)])
def test_rates_are_scaled_whatever_callback_sets_them(folder, optimizer, power, setter):
    model = Rates(optimizer)
    with warnings.catch_warnings():
        # The finder's of its schedule, and torch's of the order of averaging's first steps.
        warnings.filterwarnings("ignore", "(?s).*(lr_scheduler|Swapping scheduler)")
        fit(model, 3, callbacks=[make() for make in SETTERS[setter]])
    scale = ((64 + 32) / 1.5) ** power
    assert len(model.ratios) >= 30
    assert model.ratios == pytest.approx([scale] * len(model.ratios))
    # What trains the network afterwards was not asked.
    assert not any(layer.scale_updates for layer in binary_layers(model).values())


class OneRate(Callback):
    def on_train_epoch_start(self, trainer, module):
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 1e-4


def test_rates_that_lost_their_scale_are_told():
    model = Watched("deterministic")
    with pytest.warns(UserWarning, match=r"rate of hidden.0.linear is no longer scaled"):
        fit(model, callbacks=[OneRate()])
