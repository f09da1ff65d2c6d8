"""Images and test sets, classified on the command line."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bclightning.cli import classify
from bclightning.cli.main import main
from bclightning.data import Digits
from bclightning.formatting import printable
from bclightning.inference import PackedModel, PackedNetwork, load
from bclightning.models import MLP
from bclightning.preprocessing import Preprocessing


def test_raw_pixels_go_from_a_file_to_classes_without_the_code_of_training(runs):
    from sklearn.datasets import load_digits

    main(["export", "deterministic", "--output", "model.safetensors"])
    data = Digits()
    data.setup("test")
    images, _ = next(iter(data.test_dataloader()))
    # The digits' test split as raw pixels: what centring makes the split's images of.
    mean = load("model.safetensors").preprocessing.tensors["mean"]
    raw = ((images + mean) * 16).round()
    known = {tuple(image.ravel().astype(int)) for image in load_digits().images}
    assert all(tuple(image.flatten().int().tolist()) in known for image in raw)
    np.save(runs / "some.npy", raw[:40].numpy())
    code = (
        "import sys; from bclightning.cli.main import main; "
        "main(['predict', 'model.safetensors', '--images', 'some.npy', '--output', 'out.csv']); "
        "print([m for m in sys.modules if m.split('.')[0] in ('lightning', 'wandb', 'sklearn')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "some.npy[39]" in done.stdout
    with (runs / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = load("model.safetensors")(images[:40])
    assert [row["class"] for row in rows] == [str(i) for i in expected.argmax(1).tolist()]
    scores = torch.tensor([[float(row[f"score {i}"]) for i in range(10)] for row in rows])
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-3)


def test_an_image_is_classified_and_its_class_is_named(runs, capsys, refused):
    main(["export", "deterministic"])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("black.png")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save("large.png")
    capsys.readouterr()
    main(["predict", "deterministic.safetensors", "--images", "black.png"])
    assert "black.png" in capsys.readouterr().out
    model = "deterministic.safetensors"
    assert "large.png: images of 1 x 9 x 8 do not fit" in refused(
        "predict", model, "--images", "large.png"
    )
    assert "no.png" in refused("predict", model, "--images", "no.png")
    assert "no file no.safetensors was found" in refused(
        "predict", "no.safetensors", "--images", "x"
    )
    (runs / "cut.safetensors").write_bytes((runs / model).read_bytes()[:700])
    assert "is damaged" in refused("predict", "cut.safetensors", "--images", "black.png")
    assert "say which images" in refused("predict", model)


@pytest.mark.parametrize("output", ["no/where.csv", "."])
def test_scores_that_cannot_be_written_are_refused_at_once(runs, refused, output):
    main(["export", "deterministic"])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("black.png")
    model = "deterministic.safetensors"
    sentence = refused("predict", model, "--images", "black.png", "--output", output)
    assert "there is no folder no" in sentence or "is a folder" in sentence
    sentence = refused("predict", "--run", "deterministic", "--output", output)
    assert "there is no folder no" in sentence or "is a folder" in sentence


def test_brackets_in_a_name_are_no_markup_and_images_may_be_given_twice(runs, capsys):
    main(["export", "deterministic"])
    for name in ("q[red].png", "r[b].png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(name)
    capsys.readouterr()
    words = ["--images", "q[red].png", "--images", "r[b].png", "--output", "o.csv"]
    main(["predict", *words, "deterministic.safetensors"])
    said = capsys.readouterr().out
    assert "q[red].png" in said
    assert "r[b].png" in said


def test_of_many_images_the_first_are_printed_and_all_are_written(runs, capsys):
    main(["export", "deterministic"])
    np.save("many.npy", np.zeros((70, 1, 8, 8)))
    capsys.readouterr()
    words = ["--images", "many.npy", "--output", "o.csv"]
    main(["predict", "deterministic.safetensors", *words])
    said = capsys.readouterr().out
    assert "many.npy[49]" in said
    assert "many.npy[50]" not in said
    assert "... and 20 more images; --output FILE writes them all" in said
    assert len((runs / "o.csv").read_text().splitlines()) == 71


EVIL = "cat\x1b]0;title\x07\x1b[2J[red]\n\u202edog"


@pytest.fixture
def evil(folder, monkeypatch):
    """A stranger's model whose classes are named to take over a terminal, and an image for it."""
    centre = Preprocessing("centred", 255.0, {"mean": torch.zeros(1, 2, 2)})
    names = [EVIL, "=1+1\r\n", "plain, name"]
    model = PackedModel.of(MLP(4, [3], 3).eval(), (1, 2, 2), names, centre)
    model.write(folder / "m.safetensors")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(folder / "black.png")
    monkeypatch.setenv("COLUMNS", "200")
    return folder


def harmless(text: str) -> bool:
    return all(printable(line) == line for line in text.split("\n"))


def test_class_names_of_a_stranger_s_model_are_text_on_the_terminal_and_in_the_file(evil, capsys):
    capsys.readouterr()
    main(["predict", "m.safetensors", "--images", "black.png", "--output", "o.csv"])
    said = capsys.readouterr().out
    assert harmless(said)
    assert printable(EVIL) in said
    written = (evil / "o.csv").read_bytes().decode()
    assert harmless(written)
    header, row = csv.reader(written.splitlines())
    assert header[2:] == [f"score {printable(EVIL)}", "score =1+1\\r\\n", "score plain, name"]
    assert len(row) == 5


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"a\nb\x1b[2J.png"])
def test_an_image_whose_name_is_no_text_is_classified(evil, capsys, name):
    os.rename("black.png", name)
    main(["predict", "m.safetensors", "--images", os.fsdecode(name), "--output", "o.csv"])
    said = capsys.readouterr().out
    assert harmless(said)
    shown = printable(os.fsdecode(name))
    assert shown in said
    written = (evil / "o.csv").read_bytes().decode()
    assert harmless(written)
    assert list(csv.reader(written.splitlines()))[1][0] == shown


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (b"no\n\x1b[2J\xff.png", None, "there is no image no\\n\\x1b[2J\\udcff.png"),
        (b"no\n\x1b[2J\xff.png", b"x", "no\\n\\x1b[2J\\udcff.png holds no image"),
        (b"n\x1b.npy", np.zeros((2, 3)), "n\\x1b.npy: images of 1 x 2 x 3 do not fit"),
        (b"n\x1b.npy", np.full((2, 2), 999), "n\\x1b.npy has pixels from"),
        (b"n\x1b.npy", np.full((2, 2), 0.5), "n\\x1b.npy has pixels between 0 and 1"),
    ],
)
def test_a_name_in_an_error_is_text_too(evil, refused, name, content, sentence):
    if isinstance(content, bytes):
        (evil / os.fsdecode(name)).write_bytes(content)
    elif content is not None:
        np.save(evil / os.fsdecode(name), content)
    said = refused("predict", "m.safetensors", "--images", os.fsdecode(name))
    assert sentence in said
    assert printable(said) == said


def test_scores_that_are_no_numbers_are_refused_and_not_written(evil, refused):
    """Weights that are each finite can overflow together."""
    model = PackedModel.read("m.safetensors")
    for name, tensor in model.tensors.items():
        if name.endswith("scale"):
            tensor.fill_(3e38)
        if name.endswith("shift"):
            tensor.fill_(-3e38)
    model.tensors["hidden.0.norm.shift"].fill_(3e38)
    model.write(evil / "huge.safetensors")
    words = ["--images", "black.png", "--output", "o.csv"]
    said = refused("predict", "huge.safetensors", *words)
    assert "huge.safetensors gives NaN or infinity for black.png" in said
    assert not (evil / "o.csv").exists()


def test_brackets_in_the_name_of_a_file_of_a_run_s_predictions_are_no_markup(runs, capsys):
    main(["predict", "deterministic", "--output", "[red]o.csv"])
    assert "in [red]o.csv" in capsys.readouterr().out


def test_large_images_are_classified_a_few_at_a_time(evil, monkeypatch, capsys):
    """So that the memory does not depend on what a model makes of an image."""
    sizes = []
    forward = PackedNetwork.forward
    monkeypatch.setattr(classify, "MAX_VALUES_AT_ONCE", 8)
    monkeypatch.setattr(
        PackedNetwork, "forward", lambda net, x: (sizes.append(len(x)), forward(net, x))[1]
    )
    np.save("five.npy", np.zeros((5, 1, 2, 2)))
    main(["predict", "m.safetensors", "--images", "five.npy"])
    assert sizes == [2, 2, 1]


def test_the_name_of_an_image_may_be_bytes_that_are_no_text(runs, capsys):
    main(["export", "deterministic"])
    name = os.fsdecode(b"m\xffn.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(name)
    model = "deterministic.safetensors"
    main(["predict", model, "--images", name, "--output", "o.csv"])
    assert (runs / "o.csv").read_text(encoding="utf-8").splitlines()[1].startswith("m\\udcffn.png,")
