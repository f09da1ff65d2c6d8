"""Clipping and conversion in training: on modules that know nothing of this package."""

import math

import pytest
import torch
from bare_trainer import bare_trainer
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bclightning.errors import UserError
from bclightning.nn import BinaryLinear, binary_layers
from bclightning.training import BinaryConnect, ClipWeights


class LitAutoEncoder(LightningModule):
    """As in Lightning's introduction: an encoder, a decoder, a loss and an optimizer."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
        self.decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 16))

    def training_step(self, batch, batch_idx):
        (x,) = batch
        return nn.functional.mse_loss(self.decoder(self.encoder(x)), x)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1.0)


class TwoOptimizers(LitAutoEncoder):
    """Two optimizers of different kinds, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.manual_backward(loss)
        for optimizer in self.optimizers():
            optimizer.step()
            optimizer.zero_grad()

    def configure_optimizers(self):
        return [
            torch.optim.SGD(self.encoder.parameters(), lr=10.0),
            torch.optim.Adam(self.decoder.parameters(), lr=1.0),
        ]


class Watch(ClipWeights):
    """Note the largest latent weight after each training batch, once the optimizer has stepped."""

    def __init__(self) -> None:
        self.largest = []

    def on_train_start(self, trainer, pl_module): ...

    def teardown(self, trainer, pl_module, stage): ...

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        layers = binary_layers(pl_module).values()
        self.largest.append(max(float(layer.weight.detach().abs().max()) for layer in layers))


def train(module, callbacks, batches=8, **settings):
    torch.manual_seed(0)
    trainer = bare_trainer(callbacks=callbacks, **settings)
    trainer.fit(module, DataLoader(TensorDataset(torch.randn(4 * batches, 16)), 4))
    return trainer


@pytest.mark.parametrize("module", [LitAutoEncoder, TwoOptimizers])
def test_a_module_that_knows_nothing_of_us_trains_with_clipped_binary_weights(module):
    watch = Watch()
    network = module()
    train(network, [BinaryConnect("stochastic", skip=["decoder.2"]), watch])
    assert list(binary_layers(network)) == ["encoder.0", "encoder.2", "decoder.0"]
    assert type(network.decoder[2]) is nn.Linear
    # Such learning rates drive weights to the bounds at once, and not beyond.
    assert set(watch.largest) == {1.0}


def test_without_the_clip_the_weights_leave_the_bounds():
    watch = Watch()
    network = LitAutoEncoder()
    binary = BinaryConnect("deterministic")
    binary.on_train_start = lambda trainer, pl_module: None
    train(network, [binary, watch])
    assert max(watch.largest) > 1


@pytest.mark.parametrize("clipping", [None, 0.5])
def test_the_clip_runs_once_for_each_real_step(clipping, monkeypatch):
    calls = []
    monkeypatch.setattr(
        "bclightning.training.callbacks.clip_latent_weights_", lambda module: calls.append(1)
    )
    settings = {"accumulate_grad_batches": 4, "gradient_clip_val": clipping}
    trainer = train(LitAutoEncoder(), [BinaryConnect()], batches=8, **settings)
    assert trainer.global_step == 2
    assert len(calls) == 1 + 2  # once before the first step, for weights that come from elsewhere


def test_only_optimizers_of_latent_weights_are_hooked():
    network = TwoOptimizers()
    callback = BinaryConnect(skip=["decoder"])
    hooked = []
    callback.on_train_batch_start = lambda *_: hooked.append(len(callback._hooks))
    train(network, [callback])
    assert set(hooked) == {1}


def test_the_clip_is_taken_off_when_training_ends():
    network = LitAutoEncoder()
    trainer = train(network, [BinaryConnect()])
    with torch.no_grad():
        network.encoder[0].weight.fill_(3.0)
    network.zero_grad()
    trainer.optimizers[0].step()
    assert network.encoder[0].weight.max() == 3.0


def test_weights_from_elsewhere_are_clipped_before_the_first_step():
    network = LitAutoEncoder()
    with torch.no_grad():
        network.encoder[0].weight.fill_(3.0)
    seen = []
    network.on_train_batch_start = lambda *_: seen.append(network.encoder[0].weight.max().item())
    train(network, [BinaryConnect()], batches=1)
    assert seen == [1.0]


def test_a_model_without_layers_to_convert_is_an_error():
    class Empty(LitAutoEncoder):
        def __init__(self):
            super().__init__()
            self.encoder = self.decoder = nn.Identity()

    with pytest.raises(ValueError, match="no Linear or Conv2d to convert in Empty"):
        train(Empty(), [BinaryConnect()])


@pytest.mark.parametrize("skip", [["decoder.2"], lambda name, module: name == "decoder.2"])
def test_layers_that_are_binary_already_stay_and_the_others_are_converted(skip):
    network = LitAutoEncoder()
    network.encoder[0] = first = BinaryLinear(16, 8, binarization="stochastic")
    BinaryConnect("deterministic", skip).convert(network)
    kinds = {name: layer.binarization for name, layer in binary_layers(network).items()}
    assert kinds == {
        "encoder.0": "stochastic",
        "encoder.2": "deterministic",
        "decoder.0": "deterministic",
    }
    assert network.encoder[0] is first
    # Another stage, or another trainer's callback, finds nothing left to do.
    layers = list(network.modules())
    BinaryConnect("stochastic", skip).convert(network)
    assert all(a is b for a, b in zip(network.modules(), layers, strict=True))


def test_what_is_skipped_must_be_there_also_where_layers_are_binary_already():
    network = LitAutoEncoder()
    network.encoder[0] = BinaryLinear(16, 8)
    with pytest.raises(ValueError, match="skip='haed' matches no module"):
        BinaryConnect(skip=["haed"]).convert(network)


def test_latent_weights_in_16_bits_are_refused():
    class Half(LitAutoEncoder):
        def __init__(self):
            super().__init__()
            self.encoder = BinaryLinear(16, 16, dtype=torch.bfloat16)
            self.decoder = nn.Identity()

    with pytest.raises(UserError, match="encoder are held in"):
        train(Half(), [ClipWeights()])


def test_scaled_learning_rates_equal_scaled_updates():
    """Adam's update times the scale, then the clip, as the paper writes it, in a plain loop."""
    torch.manual_seed(3)
    layer = BinaryLinear(16, 16, bias=False)
    twin = BinaryLinear(16, 16, bias=False)
    twin.load_state_dict(layer.state_dict())
    from bclightning.nn import clip_latent_weights_
    from bclightning.training import make_optimizer

    ours = make_optimizer(layer, "adam", 0.003)
    plain = torch.optim.Adam(twin.parameters(), lr=0.003)
    scale = 1 / math.sqrt(1.5 / 32)
    for _ in range(20):
        x = torch.randn(8, 16)
        for network, optimizer in ((layer, ours), (twin, plain)):
            optimizer.zero_grad()
            (network(x) - 40 * x).square().mean().backward()
        ours.step()
        clip_latent_weights_(layer)
        before = twin.weight.detach().clone()
        plain.step()
        with torch.no_grad():
            twin.weight.copy_((before + scale * (twin.weight - before)).clamp(-1, 1))
    assert torch.allclose(layer.weight, twin.weight, atol=1e-5)
    assert (layer.weight.abs() == 1).any()


@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_gradient_descent_takes_the_square_of_the_scale(name):
    from bclightning.training import make_optimizer

    layer = BinaryLinear(16, 8)
    rates = {g["name"]: g["lr"] for g in make_optimizer(layer, name, 0.5).param_groups}
    assert rates == {"unscaled": 0.5, "": pytest.approx(0.5 * 24 / 1.5)}


def test_an_unscaled_optimizer_has_one_group():
    from bclightning.training import make_optimizer

    groups = make_optimizer(BinaryLinear(16, 8), "adam", 0.5, scaled=False).param_groups
    assert [group["lr"] for group in groups] == [0.5]
