"""Training through Lightning against a plain PyTorch loop of the same recipe, to the bit."""

import pytest
import torch
from torch import nn

from bclightning.cli.main import main
from bclightning.data import Digits
from bclightning.functional import squared_hinge_loss
from bclightning.models import MLP
from bclightning.seeds import RunSeeds

EPOCHS, FIRST, LAST = 3, 1e-2, 3e-6


def plainly_trained(method: str) -> nn.Module:
    torch.manual_seed(0)
    network = MLP(64, [16], regularizer=method)
    data = Digits(batch_size=50, seed=0)
    splits = data.loaded_splits()
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Linear)]
    binary = method in ("deterministic", "stochastic")
    scaled = [(w, (sum(w.shape) / 1.5) ** 0.5 if binary else 1.0) for w in weights]
    rest = [p for p in network.parameters() if all(p is not w for w in weights)]
    groups = [{"params": rest, "lr": FIRST}]
    groups += [{"params": [weight], "lr": FIRST * scale} for weight, scale in scaled]
    optimizer = torch.optim.Adam(groups, fused=True)
    for epoch in range(EPOCHS):
        sampler = data.train_dataloader().sampler
        sampler.set_epoch(epoch)
        order = torch.tensor(list(sampler))
        torch.manual_seed(RunSeeds(0).draws(epoch))
        for step in range(len(order) // 50):
            batch = order[50 * step : 50 * step + 50]
            images, labels = splits["train"].images[batch], splits["train"].labels[batch]
            optimizer.zero_grad()
            squared_hinge_loss(network(images), labels).backward()
            optimizer.step()
            if binary:
                for weight in weights:
                    weight.data.clamp_(-1, 1)
        for group in optimizer.param_groups:
            group["lr"] *= (LAST / FIRST) ** (1 / EPOCHS)
    return network


@pytest.mark.parametrize("method", ["none", "dropout", "deterministic", "stochastic"])
def test_the_trained_network_is_that_of_a_plain_loop(folder, tiny, method):
    main(["fit", "--config", tiny, "--run_id", "r", "--model.network.regularizer", method])
    last = folder / "results/runs/digits/r/checkpoints/last.ckpt"
    state = torch.load(last, weights_only=True)["state_dict"]
    network = plainly_trained(method)
    for name, value in network.state_dict().items():
        assert torch.allclose(state[f"network.{name}"], value, atol=1e-6), name
