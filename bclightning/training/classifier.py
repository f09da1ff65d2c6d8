"""The LightningModule that trains every arm of a comparison in the same way."""

from typing import Literal, TypeGuard

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import LearningRateFinder, StochasticWeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics import MeanMetric

from bclightning.errors import UserError
from bclightning.functional import squared_hinge_loss
from bclightning.nn import binary_layers
from bclightning.training.batch_norm import ReestimateBatchNorm
from bclightning.training.callbacks import ClipWeights
from bclightning.training.optim import OptimizerName, exponential_decay, make_optimizer
from bclightning.vocabulary import TRAIN_LOSS, TRAIN_LOSS_STEP

Batch = tuple[Tensor, Tensor]

# Callbacks that set one learning rate for all parameter groups of an optimizer.
SETS_ALL_RATES = (LearningRateFinder, StochasticWeightAveraging)

# Looking at the loss waits for the device, so it is done once in a while; the sum keeps any NaN.
STEPS_BETWEEN_CHECKS = 100


def keeps_steps(model: LightningModule, *steps: str) -> "TypeGuard[Classifier]":
    """Whether a module is a `Classifier` and has its steps: a subclass may have others.

    Example:
        >>> keeps_steps(Classifier(nn.Linear(2, 2)), "training_step", "test_step")
        True
    """
    return isinstance(model, Classifier) and all(
        getattr(type(model), step) is getattr(Classifier, step) for step in steps
    )


class NonFiniteLossError(UserError):
    """The loss became NaN or infinite."""


class Classifier(LightningModule):
    """Train a network to classify, by the paper's recipe (section 3).

    It knows nothing of binarization: the same module trains all arms, so what differs between
    them is the network alone. What binary weights need comes with callbacks that do nothing for
    real ones. In epochs of more steps than the trainer's ``log_every_n_steps``, loggers get
    ``train/loss_step``, the mean loss over as many steps, and ``learning_rate``. Logged once an
    epoch: ``train/loss``, ``val/loss``, ``val/error``, ``test/loss``,
    ``test/error`` (errors in percent) and ``learning_rate`` (before scaling).

    Args:
        network: Maps a batch of images to scores of shape (batch, classes).
        optimizer: ``adam``, ``sgd`` or ``nesterov``.
        learning_rate: Learning rate of the first epoch, before scaling.
        final_learning_rate: Learning rate after the last epoch; the rate decays exponentially each
            epoch. The same as `learning_rate` for a constant rate.
        end_factor: The last rate as a fraction of the first, in place of `final_learning_rate`: for
            searches over a range that no single last rate suits.
        scale_learning_rates: Whether binary weights have their learning rates scaled (section 2.5):
            in parameter groups of their own, or in each step where a callback of Lightning sets one
            rate for all groups (`LearningRateFinder`, `StochasticWeightAveraging`).
        momentum: Momentum of ``nesterov``; the other optimizers ignore it.
        loss: ``squared_hinge``, the paper's, or ``cross_entropy``.

    Raises:
        ValueError: A rate or its factor is not positive or the momentum not in [0, 1).
        NonFiniteLossError: In training: the loss became NaN or infinite.

    Example:
        >>> from bclightning.models import MLP
        >>> model = Classifier(MLP(64, [32], regularizer="stochastic"), learning_rate=1e-3)
        >>> model(torch.zeros(2, 64)).shape
        torch.Size([2, 10])
    """

    network: nn.Module
    _loss_sum: Tensor

    def __init__(
        self,
        network: nn.Module,
        optimizer: OptimizerName = "adam",
        learning_rate: float = 1e-3,
        final_learning_rate: float = 3e-6,
        end_factor: float | None = None,
        scale_learning_rates: bool = True,
        momentum: float = 0.9,
        loss: Literal["squared_hinge", "cross_entropy"] = "squared_hinge",
    ) -> None:
        super().__init__()
        for key, rate in (
            ("learning_rate", learning_rate),
            ("final_learning_rate", final_learning_rate),
            ("end_factor", end_factor),
        ):
            if rate is not None and not 0 < rate < float("inf"):
                raise ValueError(f"{key} must be a positive number, and is {rate}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), and is {momentum}")
        self.network = network
        self.optimizer_name = optimizer
        self.learning_rate = learning_rate
        self.final_learning_rate = (
            final_learning_rate if end_factor is None else learning_rate * end_factor
        )
        self.scale_learning_rates = scale_learning_rates
        self.momentum = momentum
        self.loss = loss
        # A plain sum: a metric object's update at every training step would cost as much as a
        # small network's forward pass.
        self.register_buffer("_loss_sum", torch.zeros(()), persistent=False)
        self._steps = 0
        self._log_every = 0
        self._evaluation_loss = MeanMetric(nan_strategy="disable")
        self._evaluation_error = MeanMetric(nan_strategy="disable")

    def forward(self, images: Tensor) -> Tensor:
        """Scores of shape (batch, classes), float32 whatever the precision of training."""
        scores: Tensor = self.network(images)
        return scores.float()

    def configure_callbacks(self) -> list[Callback]:
        """What networks with binary weights need, and others ignore."""
        return [ClipWeights(), ReestimateBatchNorm()]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer over scaled learning rates, decaying from epoch to epoch."""
        epochs = self.trainer.max_epochs
        if epochs is None or epochs < 1:
            raise UserError(
                "the learning rate decays over the epochs of the run, so their number must be "
                "known; give --trainer.max_epochs"
            )
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        in_steps = any(isinstance(callback, SETS_ALL_RATES) for callback in callbacks)
        if self.scale_learning_rates:
            for layer in binary_layers(self.network).values():
                layer.set_scale_updates(in_steps)
        optimizer = make_optimizer(
            self.network,
            self.optimizer_name,
            self.learning_rate,
            scaled=self.scale_learning_rates and not in_steps,
            momentum=self.momentum,
        )
        decay = exponential_decay(optimizer, self.learning_rate, self.final_learning_rate, epochs)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "epoch"}}

    def teardown(self, stage: str) -> None:
        """Leave what trains the network afterwards to its own learning rates."""
        if self.scale_learning_rates:
            for layer in binary_layers(self.network).values():
                layer.set_scale_updates(False)

    def on_train_epoch_start(self) -> None:
        """Begin the epoch with nothing of the one before it."""
        for layer in binary_layers(self).values():
            # Drop weights that the last step sampled in advance: a resumed run does not have them.
            layer.clear_precomputed_weight()
        self._loss_sum.zero_()
        self._steps = 0
        # Of logged values each is waited for, so not where nobody looks.
        self._log_every = (
            self.trainer.log_every_n_steps  # type: ignore[attr-defined]
            if self.trainer.loggers
            else 0
        )
        self._logged_sum = 0.0

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a mini-batch of images (batch, ...) and labels (batch,)."""
        images, labels = batch
        if self._steps == 0:
            # The epoch's learning rate, which is another one when the epoch ends.
            self._learning_rate_now = self._unscaled_rate()
            self._warn_of_unscaled_rates()
        loss = self._loss(self.forward(images), labels)
        self._loss_sum += loss.detach()
        self._steps += 1
        if batch_idx % STEPS_BETWEEN_CHECKS == 0:
            self._refuse_non_finite()
        if self._log_every and self._steps % self._log_every == 0:
            self._log_within_epoch()
        return loss

    def on_train_epoch_end(self) -> None:
        """Log the epoch's mean training loss and its learning rate."""
        if self._steps == 0:
            # Resumed from a checkpoint of its last step, Lightning ends an epoch without a step.
            return
        self._refuse_non_finite()
        loss = self._loss_sum / self._steps
        self.log(TRAIN_LOSS, loss, sync_dist=self.trainer.world_size > 1)
        self.log("learning_rate", self._learning_rate_now, sync_dist=self.trainer.world_size > 1)

    def _log_within_epoch(self) -> None:
        """Give loggers the mean loss since the last time, and the learning rate.

        They are no metrics of the epoch, so Lightning, which keeps those, is passed by.
        """
        total = float(self._loss_sum)
        loss, self._logged_sum = (total - self._logged_sum) / self._log_every, total
        metrics = {TRAIN_LOSS_STEP: loss, "learning_rate": self._unscaled_rate()}
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, self.trainer.global_step)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect loss and error of a validation batch."""
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect loss and error of a test batch."""
        self._evaluate("test", batch)

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Scores of a batch of shape (batch, classes)."""
        images, _ = batch
        return self.forward(images)

    def statistics_step(self, batch: Batch) -> Tensor:
        """Run a training batch through the network, for `ReestimateBatchNorm`."""
        images, _ = batch
        return self.forward(images)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        images, labels = batch
        scores = self.forward(images)
        self._evaluation_loss.update(self._loss(scores, labels), len(labels))
        self._evaluation_error.update(100.0 * (scores.argmax(1) != labels))
        self.log(f"{stage}/loss", self._evaluation_loss, on_step=False, on_epoch=True)
        self.log(f"{stage}/error", self._evaluation_error, on_step=False, on_epoch=True)

    def _loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        match self.loss:
            case "squared_hinge":
                return squared_hinge_loss(scores, labels)
            case "cross_entropy":
                return functional.cross_entropy(scores, labels)

    def _unscaled_rate(self) -> float:
        groups = self.trainer.optimizers[0].param_groups
        for group in groups:
            if group.get("name") == "unscaled":
                return float(group["lr"])
        first = groups[0]
        if first.get("name") in binary_layers(self.network) and "initial_lr" in first:
            # All parameters are binary weights: how far the rate has decayed is known of any.
            return float(self.learning_rate * first["lr"] / first["initial_lr"])
        return float(first["lr"])

    def _warn_of_unscaled_rates(self) -> None:
        """Warn where something has set the rates of all groups, and the scales are lost."""
        layers = binary_layers(self.network)
        for group in self.trainer.optimizers[0].param_groups:
            layer = layers.get(group.get("name", ""))
            if (
                layer is not None
                and group["lr"] == self._learning_rate_now
                and layer.learning_rate_scale() != 1
            ):
                rank_zero_warn(
                    f"the learning rate of {group['name']} is no longer scaled, since something "
                    "has set one rate for all parameter groups; give --model.scale_learning_rates "
                    "false, and the callback BinaryConnect with scale_learning_rates: true"
                )
                return

    def _refuse_non_finite(self) -> None:
        if not torch.isfinite(self._loss_sum):
            raise NonFiniteLossError(
                f"the loss became NaN or infinite in epoch {self.current_epoch + 1}; "
                "try a lower --model.learning_rate, and look for NaN in the data"
            )
