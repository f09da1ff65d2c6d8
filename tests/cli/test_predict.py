"""Images and test sets, classified on the command line."""

import csv
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bclightning.cli.main import main
from bclightning.data import Digits
from bclightning.inference import load


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


def test_the_name_of_an_image_may_be_bytes_that_are_no_text(runs, capsys):
    main(["export", "deterministic"])
    name = os.fsdecode(b"m\xffn.png")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(name)
    model = "deterministic.safetensors"
    main(["predict", model, "--images", name, "--output", "o.csv"])
    assert (runs / "o.csv").read_text(encoding="utf-8").splitlines()[1].startswith("m\\udcffn.png,")
