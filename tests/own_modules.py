"""Modules as a user brings them; all but a Classifier's heir know nothing of bclightning."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bclightning.training import Classifier


def table(count, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 8, generator=generator)
    return TensorDataset(inputs, inputs[:, :4].sum(1, keepdim=True))


class Table(LightningDataModule):
    def __init__(self, batch_size: int = 32):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(table(320, 1), self.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(table(64, 2), 64)

    def test_dataloader(self):
        return DataLoader(table(64, 3), 64)


class Regression(LightningModule):
    def __init__(self, hidden: int = 32, learning_rate: float = 1e-2):
        super().__init__()
        self.learning_rate = learning_rate
        self.body = nn.Sequential(nn.Linear(8, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        self.head = nn.Linear(hidden, 1)

    def forward(self, inputs):
        return self.head(self.body(inputs))

    def loss(self, batch):
        inputs, targets = batch
        return nn.functional.mse_loss(self(inputs), targets)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log_dict({"val_loss": loss, "val_fit": 1 / (1 + loss)})

    def test_step(self, batch, batch_idx):
        loss = self.loss(batch)
        self.log_dict({"test_loss": loss, "test_fit": 1 / (1 + loss)})

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), self.learning_rate)


class MadeInSetup(Regression):
    """The last layer is made when a stage begins, of a size that only the data say."""

    def __init__(self, hidden: int = 32, learning_rate: float = 1e-2):
        super().__init__(hidden, learning_rate)
        self.hidden = hidden
        del self.head

    def setup(self, stage):
        if not hasattr(self, "head"):
            self.head = nn.Linear(self.hidden, table(1, 0)[0][1].numel())


class MadeInEachSetup(MadeInSetup):
    def setup(self, stage):
        self.head = nn.Linear(self.hidden, 1)


class MadeInConfigureModel(Regression):
    """Without a layer until training begins, as large models are."""

    def __init__(self, hidden: int = 32, learning_rate: float = 1e-2):
        super().__init__(hidden, learning_rate)
        self.hidden = hidden
        del self.body, self.head

    def configure_model(self):
        if not hasattr(self, "head"):
            hidden = nn.Linear(8, self.hidden)
            self.body = nn.Sequential(hidden, nn.BatchNorm1d(self.hidden), nn.ReLU())
            self.head = nn.Linear(self.hidden, 1)


class TwoOptimizers(Regression):
    """One optimizer for the body and one for the head, stepped by hand."""

    def __init__(self, hidden: int = 32, learning_rate: float = 1e-2):
        super().__init__(hidden, learning_rate)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        for optimizer in self.optimizers():
            optimizer.step()

    def configure_optimizers(self):
        body = torch.optim.SGD(self.body.parameters(), self.learning_rate, momentum=0.9)
        return body, torch.optim.Adam(self.head.parameters(), self.learning_rate)


class OnPlateau(Regression):
    """The learning rate falls after each epoch but the first, for none is a thousand better."""

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), self.learning_rate)
        falls = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, patience=0, threshold=1000, threshold_mode="abs"
        )
        return {"optimizer": optimizer, "lr_scheduler": falls, "monitor": "val_loss"}


class Opposite(Classifier):
    """Takes the class with the lowest score."""

    def opposite_error(self, batch):
        images, labels = batch
        return 100.0 * (self(images).argmin(1) != labels).float().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val/error", self.opposite_error(batch))

    def test_step(self, batch, batch_idx):
        self.log("test/error", self.opposite_error(batch))
