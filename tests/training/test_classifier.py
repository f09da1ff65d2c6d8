"""Training a Classifier under Lightning's own options, and the learning rate that it logs."""

import copy

import pytest
import torch
from bare_trainer import bare_trainer
from lightning.pytorch import Trainer
from torch import nn

from bclightning.data import Digits
from bclightning.models import MLP
from bclightning.nn import BinaryLinear, binary_layers
from bclightning.runs.callbacks import FirstEpochs
from bclightning.training import Classifier


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
