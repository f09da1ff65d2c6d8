"""Data of a user's own, from training to the packed file: folders, arrays, LightningDataModules."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from bclightning.cli.main import main
from bclightning.data import Arrays, ImageFolder
from bclightning.inference import load
from bclightning.inference.images import read_images
from bclightning.inference.onnx import onnx_scores
from bclightning.inference.packed import PackedModel
from bclightning.runs import RunConfig, fit
from bclightning.runs.record import RunRecord

CLASSES = ("cat", "dog", "owl")


def photos(root: Path) -> Path:
    """Photos with a bright third that tells the class, no two of one size."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (root / name).mkdir(parents=True)
        for number in range(20):
            height, width = (int(side) for side in rng.integers(24, 60, 2))
            pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
            third = height // 3
            pixels[label * third : (label + 1) * third] += 130
            kind = ("png", "jpg")[number % 2]
            Image.fromarray(pixels).save(root / name / f"{number:02}.{kind}")
    return root


def sensors(root: Path) -> Path:
    labels = np.arange(90) % 3
    inputs = np.random.default_rng(0).normal(size=(90, 12)) * 40 - 500
    inputs[np.arange(90), labels] += 300
    np.savez(root / "sensors.npz", x=inputs, y=labels, class_names=np.array(CLASSES))
    return root / "sensors.npz"


class Own(LightningDataModule):
    """As a user writes one who has never heard of bclightning."""

    def __init__(self, kind: str = "good") -> None:
        super().__init__()
        self.kind = kind

    def setup(self, stage: str) -> None:
        self.images = torch.randn(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        self.labels = torch.arange(60) % 3
        self.images[torch.arange(60), 0, self.labels] += 3

    def loader(self, start: int, stop: int) -> DataLoader:
        images, labels = self.images[start:stop], self.labels[start:stop]
        match self.kind:
            case "one-hot":
                labels = torch.eye(3)[labels]
            case "triple":
                return DataLoader(TensorDataset(images, labels, labels), 20)
        return DataLoader(TensorDataset(images, labels), 20)

    def train_dataloader(self) -> DataLoader:
        return self.loader(0, 40)

    def val_dataloader(self) -> DataLoader:
        return self.loader(40, 60)

    def test_dataloader(self) -> DataLoader:
        return self.loader(40, 60)


def train(data: dict, in_features: int, run_id: str, **more) -> RunRecord:
    options = {
        "data": data,
        "model.network.class_path": "bclightning.models.MLP",
        "model.network.init_args": {"in_features": in_features, "hidden": [16], "classes": 3},
        "trainer.max_epochs": 3,
        "wandb.mode": "disabled",
        "run_id": run_id,
    }
    return fit(options | more)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a run of each kind of data."""
    place = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("PL_GLOBAL_SEED", "0")
        photos(place / "photos")
        sensors(place)
        folder = {"root": "photos", "size": [6, 9], "batch_size": 8, "fit": "stretch"}
        train({"class_path": "ImageFolder", "init_args": folder}, 162, "folder")
        own = {"root": "sensors.npz", "batch_size": 9}
        train({"class_path": "Arrays", "init_args": own}, 12, "arrays")
        train({"class_path": f"{__name__}.Own"}, 16, "module")
    return place


@pytest.fixture
def runs(trained, monkeypatch):
    monkeypatch.chdir(trained)
    # The key by which a run is one's own lies in the home of the fixture that trained.
    monkeypatch.setenv("BCL_ALLOW_CODE", __name__)
    return trained


def record(name: str) -> RunRecord:
    return RunRecord.read(RunConfig.from_run(name).folder.record)


def scores_in(file: str) -> dict[str, list[float]]:
    with open(file, newline="") as rows:
        return {row[0]: [float(score) for score in row[2:]] for row in list(csv.reader(rows))[1:]}


def test_the_record_says_what_was_trained_on(runs):
    found = record("folder")
    assert (found.data, found.experiment) == ("photos", "photos-fit")
    assert found.split_sizes == {"train": 48, "val": 6, "test": 6}
    assert found.checksums == ImageFolder("photos").checksums()
    assert record("arrays").checksums == Arrays("sensors.npz").checksums()
    assert record("arrays").data == "sensors"


@pytest.mark.parametrize("kind", ["safetensors", "onnx"])
def test_a_folders_network_ships_with_all_that_prepares_a_photo(runs, capsys, tmp_path, kind):
    file = str(tmp_path / f"photos.{kind}")
    main(["export", "folder", "--output", file, "--format", "packed" if kind != "onnx" else "onnx"])
    capsys.readouterr()
    main(["predict", "folder", "--output", str(tmp_path / "run.csv")])
    of_run = scores_in(str(tmp_path / "run.csv"))
    assert sorted(of_run) == sorted(ImageFolder("photos").test_names())
    if kind == "onnx":
        data = ImageFolder("photos", size=[6, 9], fit="stretch", batch_size=8)
        scores = onnx_scores(Path(file), data.test_pixels())
        assert np.allclose(scores, list(of_run.values()), atol=1e-3)
        return
    images = [f"photos/{name}" for name in of_run]
    main(["predict", file, "--images", *images, "--output", str(tmp_path / "packed.csv")])
    of_packed = scores_in(str(tmp_path / "packed.csv"))
    assert load(file).class_names == CLASSES
    # The same photos, of any size: prepared as in training.
    assert np.allclose(list(of_packed.values()), list(of_run.values()), atol=1e-3)


@pytest.mark.parametrize("kind", ["packed", "onnx"])
def test_vectors_ship_too(runs, tmp_path, kind):
    file = tmp_path / "sensors.file"
    main(["export", "arrays", "--output", str(file), "--format", kind])
    inputs = Arrays("sensors.npz").test_pixels()
    main(["predict", "arrays", "--output", str(tmp_path / "run.csv")])
    expected = list(scores_in(str(tmp_path / "run.csv")).values())
    if kind == "onnx":
        assert np.allclose(onnx_scores(file, inputs), expected, atol=1e-3)
        return
    np.save(tmp_path / "new.npy", inputs.numpy())
    output = str(tmp_path / "packed.csv")
    main(["predict", str(file), "--images", str(tmp_path / "new.npy"), "--output", output])
    assert np.allclose(list(scores_in(output).values()), expected, atol=1e-3)


@pytest.mark.parametrize("run", ["folder", "arrays", "module"])
def test_a_summary_of_each(runs, capsys, run):
    shape = ["--image_shape", "[1,4,4]"] if run == "module" else []
    main(["summary", run, *shape])
    assert "hidden.0.linear" in capsys.readouterr().out


def test_what_a_data_module_of_ones_own_does_not_say_is_asked_for(runs, refused, capsys, tmp_path):
    assert "does not say what shape its images have; give --image_shape" in refused(
        "summary", "module"
    )
    file = str(tmp_path / "own.safetensors")
    export = ["export", "module", "--output", file]
    assert "does not say what its 3 classes are called; give --class_names" in refused(*export)
    named = [*export, "--class_names", "[cat,dog,owl]"]
    assert "--image_shape is [3, 4, 4], and the test images of Own have the shape [1, 4, 4]" in (
        refused(*named, "--image_shape", "[3,4,4]")
    )
    main(named)
    assert "bclightning.inference.load(" in capsys.readouterr().out
    model = PackedModel.read(file)
    assert (model.image_shape, model.class_names, model.preprocessing) == ((1, 4, 4), CLASSES, None)
    assert "ImageFolder does; leave it out" in refused("export", "folder", "--class_names", "[a,b]")


def test_a_graph_of_ones_own_data_takes_prepared_images(runs, capsys, tmp_path):
    file = str(tmp_path / "own.onnx")
    main(["export", "module", "--format", "onnx", "--class_names", "[a,b,c]", "--output", file])
    assert "images: prepared images, float32 (batch, 1, 4, 4)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "features", "sentence"),
    [
        ("good", 17, "the network does not train on batches of 20 images of own, 1 x 4 x 4"),
        ("one-hot", 16, "the labels of Own have the shape (20, 3) and the type torch.float32"),
        ("triple", 16, "a batch of Own is a list of Tensor, Tensor, Tensor, and Classifier trains"),
    ],
)
def test_ones_own_network_meets_a_batch_before_the_run(folder, refused, kind, features, sentence):
    words = ["fit", "--data", f"{__name__}.Own", "--data.kind", kind, "--trainer.max_epochs", "1"]
    network = ["--model.network", "MLP", "--model.network.in_features", str(features)]
    assert sentence in refused(*words, *network, "--wandb.mode", "disabled")
    assert not (folder / "results").exists()


def test_mistakes_in_a_folder_have_one_sentence(folder, refused):
    words = ["fit", "--data", "ImageFolder", "--trainer.max_epochs", "1", "--data.root"]
    network = ["--model.network", "MLP", "--model.network.in_features", "192"]
    options = [*network, "--wandb.mode", "disabled", "--data.size", "8"]
    assert "the folder of images photos does not exist" in refused(*words, "photos", *options)
    photos(folder / "photos")
    (folder / "photos" / "cat" / "03.jpg").write_bytes(b"no image")
    assert "photos/cat/03.jpg cannot be read" in refused(*words, "photos", *options)
    wrong = refused(*words, "photos", *options, "--data.skip_unreadable", "true")
    assert "give a smaller --data.batch_size" in wrong


def test_photos_of_any_size_need_a_model_that_resizes(runs, tmp_path):
    Image.new("RGB", (50, 40)).save(tmp_path / "a.webp")
    assert read_images(tmp_path / "a.webp", (3, 6, 9), 255.0, "pad").shape == (1, 3, 6, 9)
    with pytest.raises(Exception, match="do not fit a network for 3 x 6 x 9"):
        read_images(tmp_path / "a.webp", (3, 6, 9), 255.0)
    with pytest.raises(Exception, match="takes arrays"):
        read_images(tmp_path / "a.webp", (12,), float("inf"))
