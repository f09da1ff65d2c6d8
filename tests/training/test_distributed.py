"""Several processes that train together compute what one process does with the whole batch."""

import copy

import pytest
import torch
from bare_trainer import bare_trainer
from lightning.pytorch import LightningModule, seed_everything
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from bclightning.nn import draws
from bclightning.training import BinaryConnect, make_optimizer


class Regression(LightningModule):
    """A loss that is a mean over the images, and nothing that looks at a batch as a whole."""

    def __init__(self, optimizer) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
        self.optimizer = optimizer

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(1)
        images, targets = (torch.randn(64, size, generator=generator) for size in (8, 4))
        data = TensorDataset(images, targets)
        processes, rank = self.trainer.world_size, self.trainer.global_rank
        # Process r has the images r, r + 2, ... of each batch; Lightning would shuffle them.
        sampler = DistributedSampler(data, processes, rank, shuffle=False)
        return DataLoader(data, 16 // processes, sampler=sampler)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return (self.network(x) - y).square().mean()

    def configure_optimizers(self):
        return self.optimizer(self.network)


def trained(optimizer, processes: int, binarization: str) -> dict[str, torch.Tensor]:
    module = Regression(optimizer)
    trainer = bare_trainer(
        callbacks=[BinaryConnect(binarization)],
        max_epochs=2,
        devices=processes,
        strategy="ddp_fork" if processes > 1 else "auto",
    )
    seed_everything(1, verbose=False)
    trainer.fit(module)
    return copy.deepcopy(module.state_dict())


OPTIMIZERS = [
    lambda network: torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9),
    lambda network: make_optimizer(network, "adam", 0.01),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("binarization", ["deterministic", "stochastic"])
def test_two_processes_give_what_one_gives_with_the_whole_batch(optimizer, binarization):
    one = trained(optimizer, 1, binarization)
    two = trained(optimizer, 2, binarization)
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)


def draw_once_more_in_the_second_process(self, trainer, pl_module):
    torch.randn(trainer.global_rank)


def test_what_else_a_process_draws_does_not_matter(monkeypatch):
    one = trained(OPTIMIZERS[0], 1, "stochastic")
    monkeypatch.setattr(BinaryConnect, "on_fit_start", draw_once_more_in_the_second_process)
    two = trained(OPTIMIZERS[0], 2, "stochastic")
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-5)
    # With draws of their own it would.
    monkeypatch.setattr(draws, "share_draws", lambda fetch_state: None)
    two = trained(OPTIMIZERS[0], 2, "stochastic")
    assert not torch.allclose(two["network.0.weight"], one["network.0.weight"], atol=1e-3)
