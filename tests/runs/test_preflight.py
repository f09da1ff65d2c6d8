"""A batch before the run: it leaves no trace in what follows."""

import random

import numpy as np
import pytest
import torch
from torch import nn

import bclightning.runs.run as fit
from bclightning.cli.main import main
from bclightning.data import Digits
from bclightning.models import MLP
from bclightning.runs.preflight import check_forward_pass

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", ["dropout", "stochastic"])
def test_a_run_is_the_same_to_the_bit_without_it(folder, tiny, method, monkeypatch):
    words = ["fit", "--config", tiny, "--model.network.regularizer", method, "--run_id"]
    main([*words, "with"])
    monkeypatch.setattr(fit, "check_forward_pass", lambda *_: None)
    main([*words, "without"])
    runs = [folder / "results/runs/digits" / name for name in ("with", "without")]
    metrics = [(run / "metrics.csv").read_bytes() for run in runs]
    assert metrics[0] == metrics[1]
    weights = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in runs]
    first, second = (state["state_dict"] for state in weights)
    assert all(torch.equal(first[key], second[key]) for key in first | second)


class Drawing(nn.Module):
    """It draws from every generator, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MLP(64, [8], regularizer="stochastic")
        self.seen = 0

    def forward(self, images):
        self.seen += 1
        noise = random.random() + float(np.random.rand()) + torch.rand(())
        return self.network(images + noise)


def test_neither_network_nor_generators_are_touched():
    network = Drawing()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    states = (random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state())
    check_forward_pass(network, Digits(), CPU)
    assert network.seen == 0
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())
    assert random.getstate() == states[0]
    assert (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_network_that_cannot_be_copied_is_left_to_training():
    network = Drawing()
    network.handle = (number for number in range(3))
    check_forward_pass(network, Digits(), CPU)
    assert network.seen == 0
