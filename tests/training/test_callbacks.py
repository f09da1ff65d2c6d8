"""Clipping and conversion in training: on modules that know nothing of this package."""

import math

import pytest
import torch
from bare_trainer import bare_trainer
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BaseFinetuning, StochasticWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bclightning.errors import UserError
from bclightning.nn import BinaryLinear, binary_layers, steps
from bclightning.training import BinaryConnect, ClipWeights, make_optimizer


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


class Unfreeze(BaseFinetuning):
    """Train the decoder alone, and from the second epoch on the encoder too."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.encoder)

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.encoder, optimizer, lr=1.0)


class Replace(Callback):
    """Replace the optimizers in mid-training."""

    def on_train_epoch_start(self, trainer, pl_module):
        trainer.strategy.setup_optimizers(trainer)


class Frozen(LitAutoEncoder):
    """Gives its optimizer what needs a gradient when it is made, as fine-tuning wants it."""

    def configure_optimizers(self):
        return torch.optim.Adam(filter(lambda p: p.requires_grad, self.parameters()), lr=1.0)


@pytest.mark.parametrize("callback", [Unfreeze, Replace])
def test_it_does_not_matter_when_an_optimizer_gets_a_latent_weight(callback):
    watch = Watch()
    train(Frozen(), [callback(), BinaryConnect(), watch], max_epochs=3)
    assert max(watch.largest) == 1


@pytest.mark.parametrize("clipping", [None, 0.5])
def test_the_clip_runs_once_for_each_real_step(clipping, monkeypatch):
    calls = []
    clip = steps._clip
    monkeypatch.setattr(steps, "_clip", lambda optimizer: (calls.append(1), clip(optimizer)))
    settings = {"accumulate_grad_batches": 4, "gradient_clip_val": clipping}
    trainer = train(LitAutoEncoder(), [BinaryConnect(reestimate_batch_norm=False)], **settings)
    assert trainer.global_step == len(calls) == 2


def test_weights_that_something_else_changes_are_clipped_with_a_warning():
    class ByHand(LitAutoEncoder):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            self.encoder[0].weight.data.fill_(3.0)

    network = ByHand()
    with pytest.warns(UserWarning, match=r"latent weights of encoder.0 have left \[-1, 1\]"):
        train(network, [BinaryConnect()])
    assert network.encoder[0].weight.max() == 1


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


class Late(LitAutoEncoder):
    """Makes one part in each of the hooks that Lightning has for that, and one in training."""

    def __init__(self) -> None:
        super().__init__()
        del self.encoder, self.decoder

    def setup(self, stage):
        self.encoder = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))

    def configure_model(self):
        self.decoder = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 16))

    def on_train_epoch_start(self):
        self.head = nn.Linear(16, 16)

    def test_step(self, batch, batch_idx):
        self.log("loss", super().training_step(batch, batch_idx))


class LateInSetup(Late):
    """Makes everything in setup."""

    def setup(self, stage):
        super().setup(stage)
        Late.configure_model(self)

    configure_model = LightningModule.configure_model


@pytest.mark.parametrize("module", [Late, LateInSetup])
def test_layers_that_the_module_makes_in_its_hooks_are_converted_before_its_optimizer(module):
    class Seen(module):
        def configure_optimizers(self):
            self.seen = list(binary_layers(self))
            return super().configure_optimizers()

    network, watch = Seen(), Watch()
    train(network, [BinaryConnect(skip=["decoder.2"]), watch], max_epochs=2)
    assert network.seen == ["encoder.0", "encoder.2", "decoder.0"]
    assert max(watch.largest) == 1
    # What is made in an epoch is converted before the next one.
    assert type(network.head) is nn.Linear
    assert "setup" not in vars(network)
    assert "configure_model" not in vars(network)


def test_a_pattern_is_looked_for_in_layers_that_are_made_late_and_must_be_there():
    train(Late(), [BinaryConnect(skip=["decoder.2"])])
    with pytest.raises(ValueError, match="skip='decodr' matches no module"):
        train(Late(), [BinaryConnect(skip=["decodr"])])


def test_layers_made_late_are_binary_before_a_checkpoint_is_loaded(tmp_path):
    trainer = train(Late(), [BinaryConnect()])
    trainer.save_checkpoint(tmp_path / "late.ckpt")
    network = Late()
    trainer = bare_trainer(callbacks=[BinaryConnect()])
    data = DataLoader(TensorDataset(torch.randn(8, 16)), 4)
    Late.on_train_epoch_start(network)
    # A real layer that loads latent weights would warn.
    trainer.test(network, data, ckpt_path=tmp_path / "late.ckpt", weights_only=True)
    assert len(binary_layers(network)) == 5


def test_a_checkpoint_says_that_its_weights_are_latent(tmp_path):
    network = LitAutoEncoder()
    train(network, [BinaryConnect("stochastic")]).save_checkpoint(tmp_path / "binary.ckpt")
    with pytest.warns(UserWarning, match="latent weights of a stochastic binary layer"):
        LitAutoEncoder.load_from_checkpoint(tmp_path / "binary.ckpt", weights_only=True)


@pytest.mark.parametrize(
    "strategy", ["ddp_fork", pytest.param("ddp_spawn", marks=pytest.mark.slow)]
)
def test_the_module_is_binary_also_where_other_processes_trained(strategy):
    network = LitAutoEncoder()
    train(network, [BinaryConnect("stochastic", skip=["decoder.2"])], strategy=strategy, devices=1)
    kinds = {name: layer.binarization for name, layer in binary_layers(network).items()}
    assert kinds == dict.fromkeys(["encoder.0", "encoder.2", "decoder.0"], "stochastic")
    # The state that is handed on from here says nothing of the kind.
    assert not any(layer.converts_loader for layer in binary_layers(network).values())


def test_a_weight_that_a_real_layer_came_to_share_is_refused():
    class Tied(LitAutoEncoder):
        def setup(self, stage):
            self.encoder[0] = BinaryLinear(16, 8)
            self.real = nn.Embedding(8, 16)
            self.real.weight = self.encoder[0].weight

    with pytest.raises(UserError, match=r"real \(Embedding\) shares its weight with encoder.0"):
        train(Tied(), [ClipWeights()])


class Descent(LitAutoEncoder):
    """Trains by gradient descent with a schedule, and knows nothing of scaled rates."""

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=1e-3)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]


@pytest.mark.parametrize("others", [list, lambda: [StochasticWeightAveraging(1e-3, 1, 1)]])
def test_learning_rates_are_scaled_for_any_module_whoever_sets_them(others):
    rates = []

    class Seen(Descent):
        def optimizer_step(self, epoch, batch_idx, optimizer, optimizer_closure=None):
            def closure():
                loss = optimizer_closure()
                groups = optimizer.optimizer.param_groups
                weight = self.encoder[0].weight
                rates.extend(
                    g["lr"] / groups_of_owner[0]["lr"]
                    for g in groups
                    if any(p is weight for p in g["params"])
                )
                return loss

            groups_of_owner = optimizer.optimizer.param_groups
            optimizer.step(closure=closure)

    network = Seen()
    trainer = train(network, [BinaryConnect(scale_learning_rates=True), *others()], max_epochs=3)
    assert len(rates) == 24
    assert rates == pytest.approx([24 / 1.5] * 24)
    assert len(trainer.optimizers[0].param_groups) == 1
    # What trains the module afterwards was not asked.
    assert not any(layer.scale_updates for layer in binary_layers(network).values())


def test_rates_that_the_optimizers_groups_scale_are_not_scaled_twice():
    class Scaled(LitAutoEncoder):
        def configure_optimizers(self):
            return make_optimizer(self, "adam", 1e-3)

    network = Scaled()
    with pytest.raises(UserError, match=r"learning rate of encoder.0 is scaled .* leave out"):
        train(network, [BinaryConnect(scale_learning_rates=True)])
