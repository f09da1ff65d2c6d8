"""Batch-norm statistics come from a module's own steps, which leave no trace in the run."""

import copy
import random
import threading

import numpy as np
import pytest
import torch
from bare_trainer import bare_trainer
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.compile import to_uncompiled
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from torchmetrics import MeanMetric

from bclightning.nn import convert_to_binary
from bclightning.training import BinaryConnect, Classifier, ReestimateBatchNorm

cross_entropy = nn.functional.cross_entropy


def batches(count: int, **settings) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    images = 1 + torch.randn(count, 16, generator=generator)
    return DataLoader(TensorDataset(images, images[:, :4].argmax(1)), 20, **settings)


class Headed(LightningModule):
    """Its forward is the backbone; the steps call the head, which has a normalization too."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(16, 12), nn.BatchNorm1d(12), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))
        self.noted = []

    def forward(self, images):
        return self.backbone(images)

    def scores(self, batch):
        return self.head(self(batch[0]))

    def training_step(self, batch, batch_idx):
        return cross_entropy(self.scores(batch), batch[1])

    def validation_step(self, batch, batch_idx):
        self.noted.append(statistics(self))
        self.log("val/loss", cross_entropy(self.scores(batch), batch[1]), sync_dist=True)

    def test_step(self, batch, batch_idx):
        return self.validation_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def statistics(model: nn.Module) -> list[torch.Tensor]:
    return [
        value.clone()
        for norm in model.modules()
        if isinstance(norm, nn.BatchNorm1d)
        for value in (norm.running_mean, norm.running_var)
    ]


def same(some, others) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


@torch.no_grad()
def expected(model: LightningModule, step=None, data=None) -> list[torch.Tensor]:
    """Torch's own averages over equal batches, of all layers, for the weights of now."""
    network = copy.deepcopy(model).eval()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d):
            norm.reset_running_stats()
            norm.train().momentum = None
    for batch in data or batches(200):
        (step or type(model).scores)(network, batch)
    return statistics(network)


def fitted(model: LightningModule, train=None, val=None, epochs: int = 1, **settings):
    settings = {"callbacks": [BinaryConnect("stochastic")], "num_sanity_val_steps": 0} | settings
    trainer = bare_trainer(epochs, **settings)
    trainer.fit(model, train or batches(200), val or batches(20))
    return trainer


def test_a_head_that_only_the_steps_call_has_statistics_too():
    model = Headed()
    trainer = fitted(model)
    assert same(model.noted[-1], expected(model))
    model.train_dataloader = lambda: batches(200)
    trainer.test(model, batches(20), verbose=False)
    assert same(model.noted[-1], expected(model))


class WithLengths(Headed):
    def forward(self, images, lengths):
        return self.head(self.backbone(images) * (lengths > 0))

    def scores(self, batch):
        return self(batch[0], batch[1][:, None] + 1)


class OfBatch(Headed):
    def forward(self, batch):
        images, _ = batch
        return self.head(self.backbone(images))

    def scores(self, batch):
        return self(batch)


class OfDictionary(Headed):
    """Its batches are a dictionary of the loaders' batches."""

    def scores(self, batch):
        batch = batch["a"] if isinstance(batch, dict) else batch
        return super().scores(batch)

    def training_step(self, batch, batch_idx):
        return super().training_step(batch["a"], batch_idx)

    def validation_step(self, batch, batch_idx, dataloader_idx):
        return super().validation_step(batch["a"] if isinstance(batch, dict) else batch, batch_idx)


class Moved(Headed):
    """Its images are prepared as they are moved."""

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [3 * batch[0] - 1, batch[1]]


class Mixed(Headed):
    """Its training step mixes images, which the evaluation never sees."""

    def training_step(self, batch, batch_idx):
        return super().training_step((batch[0] + batch[0].flip(0), batch[1]), batch_idx)


class Manual(Headed):
    """It steps its optimizer itself, and its validation step cannot take a training batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        optimizer.step()


@pytest.mark.parametrize("kind", [WithLengths, OfBatch, Moved, Mixed, Manual])
def test_the_steps_of_any_module_will_do(kind):
    model = kind()
    fitted(model)
    data = [model.on_before_batch_transfer(batch, 0) for batch in batches(200)]
    assert same(model.noted[-1], expected(model, data=data))


def test_training_batches_of_several_loaders_will_do():
    model = OfDictionary()
    loaders = {"a": batches(200), "b": batches(100)}
    fitted(model, loaders, [batches(20), batches(20)])
    assert same(model.noted[-1], expected(model))


class TwoViews(Headed):
    """Its training batches are not what its validation step takes."""

    def training_step(self, batch, batch_idx):
        return super().training_step((batch[0][0], batch[1]), batch_idx)


def test_the_training_step_runs_where_the_validation_step_cannot_take_its_batches():
    class Views(Dataset):
        def __getitem__(self, i):
            image, label = batches(200).dataset[i]
            return (image, image), label

        def __len__(self):
            return 200

    model = TwoViews()
    fitted(model, DataLoader(Views(), 20))
    assert same(model.noted[-1], expected(model))


class Counter:
    def __init__(self) -> None:
        self.steps = 0


class Remembering(Headed):
    """Each step leaves traces in every place that a module has."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = MeanMetric()
        self.outputs = []
        self.counter = Counter()
        self.register_buffer("seen", torch.zeros(()))
        self.lost = None

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.metric.update(batch[0].sum())
        self.outputs.append(batch[0].sum())
        self.counter.steps += 1
        self.seen += 1
        self.log("val/mean", self.metric)
        self.logger.log_metrics({"by_hand": float(self.seen)})

    def training_step(self, batch, batch_idx):
        # A tensor with a history, which cannot be copied the ordinary way.
        self.lost = [super().training_step(batch, batch_idx)]
        return self.lost[0]

    def on_validation_epoch_end(self):
        self.log("val/outputs", torch.stack(self.outputs).mean())


def test_metrics_logs_counters_and_buffers_see_the_validation_data_alone(tmp_path):
    results = []
    for wanted in (True, False):
        model = Remembering()
        torch.manual_seed(1)
        callback = BinaryConnect("stochastic", reestimate_batch_norm=wanted)
        trainer = bare_trainer(callbacks=[callback], num_sanity_val_steps=0, log_every_n_steps=1)
        trainer.loggers = [CSVLogger(tmp_path, version=str(wanted))]
        trainer.fit(model, batches(200), batches(20))
        model.lost = None
        assert same(model.noted[-1], expected(model)) == wanted
        assert (model.counter.steps, len(model.outputs), float(model.seen)) == (1, 1, 1)
        values = {key: float(value) for key, value in trainer.callback_metrics.items()}
        del values["val/loss"]
        rows = (tmp_path / "lightning_logs" / str(wanted) / "metrics.csv").read_text().splitlines()
        results.append((values, len(rows), sum("by_hand" in row for row in rows)))
    assert results[0] == results[1]
    assert results[0][0]["val/mean"] == pytest.approx(float(batches(20).dataset[:][0].sum()))


class Rolling(Dataset):
    """Its images are augmented by a generator of its own."""

    def __init__(self) -> None:
        self.images = batches(200).dataset
        self.transforms = [{"generator": np.random.default_rng(0)}, random.Random(0)]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image, label = self.images[i]
        noise = self.transforms[0]["generator"].random() + self.transforms[1].random()
        return image + noise + random.random() + np.random.rand() + torch.rand(()), label


class Counting(torch.utils.data.Sampler):
    """An order that depends on how often it was asked for."""

    def __init__(self) -> None:
        self.asked = 0

    def __iter__(self):
        self.asked += 1
        generator = torch.Generator().manual_seed(self.asked)
        return iter(torch.randperm(200, generator=generator).tolist())

    def __len__(self):
        return 200


@pytest.mark.parametrize("order", ["file", "shuffled", "generator", "sampler", "workers"])
def test_training_is_as_if_it_had_not_been_there(order):
    weights = []
    for wanted in (True, False):
        settings = {
            "file": {},
            "shuffled": {"shuffle": True},
            "generator": {"shuffle": True, "generator": torch.Generator().manual_seed(5)},
            "sampler": {"sampler": Counting()},
            "workers": {"shuffle": True, "num_workers": 1, "persistent_workers": True},
        }[order]
        random.seed(1)
        np.random.seed(1)
        model = Headed()
        torch.manual_seed(1)
        loader = DataLoader(Rolling(), 20, **settings)
        callback = BinaryConnect("stochastic", reestimate_batch_norm=wanted)
        fitted(model, loader, epochs=3, callbacks=[callback], val_check_interval=0.5)
        # Validation saw statistics of its own in the one run, and not in the other.
        weights.append((model.state_dict(), model.noted[0]))
    assert all(torch.equal(value, weights[1][0][key]) for key, value in weights[0][0].items())
    assert not same(weights[0][1], weights[1][1])


class Swapping(Headed):
    """It notes with which weights its validation runs, and what statistics these would have."""

    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        self.weight = self.head[0].weight.clone()


class NoteExpected(Callback):
    def on_validation_batch_end(self, trainer, pl_module, *args):
        self.weight = pl_module.head[0].weight.clone()
        self.statistics = expected(pl_module)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_statistics_are_of_the_weights_that_a_callback_swaps_in(place):
    states = []
    for wanted in (True, False):
        model, note = Headed(), NoteExpected()
        ema = EMAWeightAveraging(decay=0.9)
        ours = ReestimateBatchNorm() if wanted else Callback()
        callbacks = [BinaryConnect("stochastic", reestimate_batch_norm=False), note]
        callbacks.insert(place, ema)
        callbacks.insert(0 if place == 2 else 2, ours)
        trainer = fitted(model, val=batches(60), epochs=2, callbacks=callbacks)
        # One batch after another, and each time the statistics of the averaged weights.
        assert [same(noted, note.statistics) for noted in model.noted[-3:]] == [wanted] * 3
        assert not torch.equal(note.weight, trainer.lightning_module.backbone[0].weight)
        # Lightning ends with the averaged weights and statistics, which are not ours.
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


class Storing(Callback):
    """Somebody's moving average that stores everything, evaluates another state, and restores."""

    def on_validation_start(self, trainer, pl_module):
        self.stored = {key: value.clone() for key, value in pl_module.state_dict().items()}
        pl_module.load_state_dict({key: 0.9 * value for key, value in self.stored.items()})

    def on_validation_end(self, trainer, pl_module):
        pl_module.load_state_dict(self.stored)


@pytest.mark.parametrize("first", [True, False])
def test_a_callback_that_stores_and_restores_gets_its_own_back(first):
    states = []
    for wanted in (True, False):
        model = Headed()
        ours = [ReestimateBatchNorm()] if wanted else []
        callbacks = [BinaryConnect("stochastic", reestimate_batch_norm=False)]
        callbacks += [Storing(), *ours] if first else [*ours, Storing()]
        fitted(model, epochs=2, callbacks=callbacks)
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


class Ending(Headed):
    def on_validation_epoch_end(self):
        self.at_end = statistics(self)


def test_what_a_module_computes_at_the_epoch_s_end_has_the_same_statistics():
    model = Ending()
    fitted(model)
    assert same(model.at_end, expected(model))


class Failing(Headed):
    def validation_step(self, batch, batch_idx):
        super().validation_step(batch, batch_idx)
        if batch_idx == 1:
            raise KeyboardInterrupt


def test_statistics_are_back_after_an_error_in_the_evaluation():
    model = Failing()
    with pytest.raises(SystemExit):
        fitted(model, batches(20), batches(60))
    after = statistics(model)
    assert not same(after, model.noted[-1])
    assert int(model.backbone[1].num_batches_tracked) == 1


class Impossible(Headed):
    def validation_step(self, batch, batch_idx):
        self.noted.append(statistics(self))
        if len(batch[0]) != 7:
            raise TypeError("only images of Tuesday\nand more")

    def training_step(self, batch, batch_idx):
        if not self.training:
            raise ValueError("not in training mode")
        return super().training_step(batch, batch_idx)

    def forward(self, images):
        if not self.training:
            raise RuntimeError("no forward either")
        return super().forward(images)


def test_steps_that_fail_leave_the_trained_statistics_and_a_warning():
    model = Impossible()
    message = (
        "Impossible is evaluated .* give it a method statistics_step.*; its validation_step failed "
        "with TypeError: only images of Tuesday; its training_step failed with ValueError: not in "
        "training mode; its forward failed with RuntimeError: no forward either; or estimate"
    )
    val = DataLoader(batches(7).dataset, 7)
    with pytest.warns(UserWarning, match=message):
        fitted(model, val=val)
    assert same(model.noted[-1], statistics(model))
    assert model.training


class Declared(Impossible):
    def statistics_step(self, batch):
        self.head(self.backbone(batch[0]))


def test_a_module_can_say_itself_how_a_batch_runs_through_it():
    model = Declared()
    fitted(model, val=DataLoader(batches(7).dataset, 7))
    assert same(model.noted[-1], expected(model, Declared.statistics_step))


class Wider(Classifier):
    """Its own step calls more than the statistics step that it inherits."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4)))
        self.extra = nn.BatchNorm1d(4)
        self.noted = []

    def scores(self, batch):
        return self.extra(self(batch[0]))

    def validation_step(self, batch, batch_idx):
        self.noted.append(statistics(self))
        self.scores(batch)


def test_a_step_that_overrides_is_not_ruled_by_what_its_base_class_says():
    model = Wider()
    fitted(model)
    assert same(model.noted[-1], expected(model))


class Branching(Headed):
    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4))

    def training_step(self, batch, batch_idx):
        extra = cross_entropy(self.auxiliary(self(batch[0])), batch[1])
        return extra + super().training_step(batch, batch_idx)


def test_a_normalization_that_no_batch_passes_keeps_its_statistics_and_is_named():
    model = Branching()
    with pytest.warns(UserWarning, match=r"passed through auxiliary\.1 in the validation_step of"):
        fitted(model)
    assert same(model.noted[-1][4:], statistics(model)[4:])
    assert same(model.noted[-1][:4], expected(model)[:4])


class Locked(Headed):
    """It cannot be copied, and its forward is the whole network."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def forward(self, images):
        return self.head(self.backbone(images))

    def scores(self, batch):
        return self(batch[0])


def test_a_module_that_cannot_be_copied_runs_its_forward():
    model = Locked()
    fitted(model)
    model.lock = None
    assert same(model.noted[-1], expected(model))
    assert len(model.noted) == 1


class PutBack(Callback):
    def on_validation_start(self, trainer, pl_module):
        self.before = statistics(pl_module)

    def on_validation_batch_end(self, trainer, pl_module, *args):
        assert not same(self.before, statistics(pl_module))

    def on_validation_end(self, trainer, pl_module):
        assert same(self.before, statistics(pl_module))


@pytest.mark.slow
def test_each_of_several_processes_gets_its_own_statistics_back():
    trainer = bare_trainer(
        2,
        devices=2,
        strategy="ddp_fork",
        num_sanity_val_steps=0,
        callbacks=[BinaryConnect("stochastic"), PutBack()],
    )
    trainer.fit(Headed(), batches(200), batches(60))
    assert "val/loss" in trainer.callback_metrics


class Straight(Headed):
    seen = ()

    def validation_step(self, batch, batch_idx):
        if self.trainer.lightning_module is self:
            Straight.seen += (statistics(self),)
        self.scores(batch)


def test_a_compiled_module_runs_its_steps_on_the_copy_too():
    model = Straight()
    convert_to_binary(model, "stochastic")
    whole = torch.compile(model, backend="eager")
    bare_trainer(callbacks=[ReestimateBatchNorm()]).validate(
        whole, datamodule=Prepared(), verbose=False
    )
    assert len(Straight.seen) == 1
    data = [(2 * images, labels) for images, labels in batches(200)]
    assert same(Straight.seen[0], expected(to_uncompiled(model), data=data))


class Writing(Headed):
    written = ()

    def test_step(self, batch, batch_idx):
        super().test_step(batch, batch_idx)
        type(self).written += (len(batch[0]),)


def test_a_test_step_that_writes_predictions_never_sees_training_images():
    model = Writing()
    model.train_dataloader = lambda: batches(200)
    trainer = bare_trainer(callbacks=[BinaryConnect("stochastic")])
    trainer.test(model, batches(30), verbose=False)
    assert same(model.noted[-1], expected(model))
    assert Writing.written == (20, 10)


class Holding(Headed):
    """It holds its data, which are too large to be copied."""

    class Data(TensorDataset):
        def __deepcopy__(self, memo):
            raise MemoryError

    def __init__(self) -> None:
        super().__init__()
        self.data = {"train": self.Data(*batches(200).dataset.tensors)}

    def train_dataloader(self):
        return DataLoader(self.data["train"], 20)


def test_data_are_not_copied_with_the_module_or_the_loader():
    model = Holding()
    trainer = bare_trainer(callbacks=[BinaryConnect("stochastic")], num_sanity_val_steps=0)
    trainer.fit(model, val_dataloaders=batches(20))
    model.data = None
    assert same(model.noted[-1], expected(model))


class Prepared(LightningDataModule):
    def train_dataloader(self):
        return batches(200)

    def val_dataloader(self):
        return batches(20)

    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [2 * batch[0], batch[1]]


def test_a_data_module_s_hooks_prepare_the_batches():
    model = Headed()
    trainer = bare_trainer(callbacks=[BinaryConnect("stochastic")], num_sanity_val_steps=0)
    trainer.fit(model, datamodule=Prepared())
    data = [(2 * images, labels) for images, labels in batches(200)]
    assert same(model.noted[-1], expected(model, data=data))
