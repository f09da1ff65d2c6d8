"""Statistics of weights in training: what is logged, for which layer, and in which epochs."""

import numpy as np
import pytest
import torch
from bare_trainer import bare_trainer
from lightning.pytorch.loggers.logger import DummyLogger
from torch import nn

from bclightning.data import Digits
from bclightning.models import MLP, ConvNet
from bclightning.nn import BinaryLinear
from bclightning.training import Classifier, WeightStatistics
from bclightning.training.weight_statistics import (
    feature_grid,
    first_layer_image,
    first_weight_layer,
    saturation,
    weight_histogram,
)


class Media(DummyLogger):
    """Keeps what it is given to show."""

    def __init__(self):
        super().__init__()
        self.histograms, self.images = [], []

    def log_histogram(self, key, counts, edges, step):
        self.histograms.append((key, step, counts.sum(), len(edges)))

    def log_image(self, key, image, step, caption=""):
        self.images.append((key, step, caption, image.shape))


def fitted(callback, epochs: int = 1) -> tuple[Media, dict]:
    torch.manual_seed(0)
    media = Media()
    trainer = bare_trainer(epochs, callbacks=[callback], num_sanity_val_steps=0)
    trainer.loggers = [media]
    model = Classifier(MLP(64, [4], 10, regularizer="stochastic"), learning_rate=0.01)
    trainer.fit(model, datamodule=Digits(seed=0))
    return media, trainer.callback_metrics


@pytest.mark.parametrize(
    ("media_every", "epochs", "steps"), [(2, 5, [1, 3, 4]), (1, 2, [0, 1]), (10, 3, [2])]
)
def test_media_come_every_few_epochs_and_after_the_last(media_every, epochs, steps):
    media, _ = fitted(WeightStatistics(media_every), epochs)
    weights = {"weights/hidden.0.linear": 256, "weights/output.linear": 40}
    assert media.histograms == [
        (key, step, count, 65) for step in steps for key, count in weights.items()
    ]
    # Two by two features of 8 x 8 pixels, with a line around each.
    assert media.images == [
        ("features/first_layer", step, f"epoch {step + 1}", (19, 19, 3)) for step in steps
    ]


def test_an_interval_of_no_epochs_is_refused():
    with pytest.raises(ValueError, match="media_every must be at least 1, got 0"):
        WeightStatistics(media_every=0)


def test_flips_and_saturation_of_each_layer_are_logged():
    before, after = {}, {}

    class Watch(WeightStatistics):
        def on_train_epoch_start(self, trainer, pl_module):
            before.update({k: v.clone() for k, v in pl_module.network.state_dict().items()})
            super().on_train_epoch_start(trainer, pl_module)

        def on_train_epoch_end(self, trainer, pl_module):
            after.update({k: v.clone() for k, v in pl_module.network.state_dict().items()})
            super().on_train_epoch_end(trainer, pl_module)

    _, metrics = fitted(Watch())
    for layer in ("hidden.0.linear", "output.linear"):
        old, new = before[f"{layer}.weight"], after[f"{layer}.weight"]
        flipped = ((old >= 0) != (new >= 0)).double().mean()
        assert flipped > 0
        assert metrics[f"flip_ratio/{layer}"] == pytest.approx(float(flipped))
        saturated = (new.abs() == 1).double().mean()
        assert metrics[f"saturation/{layer}"] == pytest.approx(float(saturated))


def test_the_first_layer_of_weights_is_found_by_its_name_without_the_classifiers_prefix():
    model = Classifier(MLP(6, [4], 3))
    name, layer = first_weight_layer(model)
    assert name == "hidden.0.linear"
    assert layer is model.network.hidden[0].linear
    assert first_weight_layer(nn.Sequential(nn.ReLU(), nn.BatchNorm1d(2))) is None


def test_a_histogram_holds_all_weights_and_is_numpys_in_float32():
    weight = torch.randn(40, 25, generator=torch.Generator().manual_seed(0)).bfloat16()
    counts, edges = weight_histogram(weight.requires_grad_(), 100)
    expected = np.histogram(weight.detach().float().numpy(), bins=100)
    np.testing.assert_array_equal(counts, expected[0])
    np.testing.assert_array_equal(edges, expected[1])
    assert counts.sum() == 1000


def test_only_layers_that_see_images_have_an_image():
    conv = ConvNet(8, 2, [2], 5, 4).features[0].conv.weight
    np.testing.assert_array_equal(first_layer_image(conv, None), feature_grid(conv, ()))
    dense = torch.arange(24.0).reshape(4, 6)
    image = first_layer_image(dense, (1, 2, 3))
    np.testing.assert_array_equal(image, feature_grid(dense, (1, 2, 3)))
    assert first_layer_image(dense, None) is None
    assert first_layer_image(dense, (1, 2, 4)) is None


def test_saturation_counts_the_weights_at_the_bounds():
    layer = BinaryLinear(4, 1)
    layer.weight.data = torch.tensor([[1.0, -1.0, 0.999, 0.0]])
    assert saturation(layer) == 0.5


def test_each_feature_is_shown_from_black_to_white_in_its_own_tile():
    weight = torch.arange(24.0).reshape(4, 6)
    grid = feature_grid(weight, (1, 2, 3))
    assert grid.shape == (2 * 3 + 1, 2 * 4 + 1, 3)
    assert grid.dtype == np.uint8
    for top in (1, 4):
        for left in (1, 5):
            tile = grid[top : top + 2, left : left + 3, 0]
            assert tile.min() == 0
            assert tile.max() == 255
            assert (np.diff(tile.flatten().astype(int)) > 0).all()
    assert (grid[0] == 128).all()


def test_colour_kernels_keep_their_channels():
    weight = torch.zeros(1, 3, 2, 2)
    weight[0, 1] = 1
    assert feature_grid(weight, ())[1, 1].tolist() == [0, 255, 0]
    assert feature_grid(torch.zeros(1, 3, 2, 2), ())[1, 1].tolist() == [128] * 3
