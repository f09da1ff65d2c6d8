"""From a run to a file of one bit a weight, and from the file to classes, by the command line."""

import csv
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from bclightning.cli import export as export_module
from bclightning.cli.main import main
from bclightning.data import CIFAR10, MNIST, SVHN, Digits
from bclightning.functional.whitening import ZCA
from bclightning.inference import load
from bclightning.inference.packed import PackedModel
from bclightning.runs.record import RunRecord

RUNS = ("results", "runs", "digits")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a stochastic and a float run, made once."""
    place = tmp_path_factory.mktemp("trained")
    tiny = os.path.join(os.path.dirname(__file__), "..", "configs", "tiny.yaml")
    runs = str(place / "results" / "runs")
    for method in ("stochastic", "deterministic", "none"):
        words = ["--model.network.regularizer", method, "--run_id", method, "--runs_dir", runs]
        main(["fit", "--config", tiny, *words])
    return place


@pytest.fixture
def runs(folder, trained):
    shutil.copytree(trained / "results", folder / "results")
    return folder


def record(runs, name: str) -> RunRecord:
    return RunRecord.read(runs.joinpath(*RUNS, name, "run.json"))


def error_of(runs, name: str, *method: str) -> float:
    (error,) = [
        e["value"] for e in record(runs, name).test if (e["weights"], e["batch_norm"]) == method
    ]
    return error


@pytest.mark.parametrize(
    ("name", "options", "statistics"),
    [
        ("stochastic", [], "re-estimated"),
        ("stochastic", ["--batch-norm", "as-trained"], "as trained"),
        ("deterministic", [], "as trained"),
        ("deterministic", ["--batch-norm=re-estimated"], "re-estimated"),
    ],
)
def test_the_file_has_the_error_of_the_run(runs, capsys, name, options, statistics):
    main(["export", name, *options])
    said = capsys.readouterr().out
    network = load(f"{name}.safetensors")
    expected = error_of(runs, name, "binary", statistics)
    data = Digits()
    data.setup("test")
    images, labels = next(iter(data.test_dataloader()))
    measured = 100 * float((network(images).argmax(1) != labels).double().mean())
    assert measured == pytest.approx(expected, abs=100 / 300 + 1e-9)
    assert network.about["test_error"] == pytest.approx(measured, abs=1e-9)
    assert network.about["error_of_run"] == expected
    assert network.about["batch_norm"] == statistics
    assert (network.about["run"], network.about["method"]) == (name, name)
    assert f"{expected:.2f} % in the run, {measured:.2f} % as written" in said


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


def test_a_picture_is_classified_and_its_class_is_named(runs, capsys, refused):
    main(["export", "deterministic"])
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("black.png")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save("large.png")
    capsys.readouterr()
    main(["predict", "deterministic.safetensors", "--images", "black.png"])
    assert "black.png" in capsys.readouterr().out
    model = "deterministic.safetensors"
    assert "large.png: pictures of 1 x 9 x 8 do not fit" in refused(
        "predict", model, "--images", "large.png"
    )
    assert "there is no picture no.png" in refused("predict", model, "--images", "no.png")
    assert "there is no file no.safetensors" in refused(
        "predict", "no.safetensors", "--images", "x"
    )
    (runs / "cut.safetensors").write_bytes((runs / model).read_bytes()[:700])
    assert "is damaged" in refused("predict", "cut.safetensors", "--images", "black.png")
    assert "required: --images" in refused("predict", model)


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


def test_another_checkpoint_is_measured_and_not_taken_for_the_record_s(runs, capsys):
    last = str(runs.joinpath(*RUNS, "stochastic", "checkpoints", "last.ckpt"))
    main(["export", "stochastic", "--ckpt_path", last])
    about = load("stochastic.safetensors").about
    assert "validation_error" not in about
    assert about["error_of_run"] == pytest.approx(about["test_error"], abs=100 / 300 + 1e-9)
    config = str(runs.joinpath(*RUNS, "stochastic", "config.yaml"))
    main(["export", "--config", config, "--ckpt_path", last])
    assert load("last.safetensors").about["run"] == "last"


def test_preprocessing_that_is_not_the_data_s_is_noticed(runs, refused, monkeypatch):
    right = Digits.preprocessing

    def wrong(self):
        found = right(self)
        found.tensors["mean"].add_(1)
        return found

    monkeypatch.setattr(Digits, "preprocessing", wrong)
    assert "nothing was written" in refused("export", "deterministic")


def test_of_many_pictures_the_first_are_printed_and_all_are_written(runs, capsys):
    main(["export", "deterministic"])
    np.save("many.npy", np.zeros((70, 1, 8, 8)))
    capsys.readouterr()
    words = ["--images", "many.npy", "--output", "o.csv"]
    main(["predict", "deterministic.safetensors", *words])
    said = capsys.readouterr().out
    assert "many.npy[49]" in said
    assert "many.npy[50]" not in said
    assert "... and 20 more pictures; --output FILE takes them all" in said
    assert len((runs / "o.csv").read_text().splitlines()) == 71


def test_onnx_is_checked_on_the_test_set_and_is_small(runs, capsys):
    main(["export", "stochastic", "--format", "onnx"])
    assert "% as written" in capsys.readouterr().out
    assert (runs / "stochastic.onnx").stat().st_size < 8_000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none"], "there are no binary weights to pack"),
        (["nothere"], "there is no run 'nothere'"),
        ([], "bcl export --run RUN"),
        (["stochastic", "--format", "pt"], "--format is packed or onnx, and not 'pt'"),
        (["stochastic", "--batch-norm", "old"], "--batch-norm is as-trained or re-estimated"),
        (["stochastic", "--tolerance", "x"], "--tolerance is a number, and 'x' is none"),
        (["stochastic", "--tolerance", "-1"], "--tolerance lies between 0 and 100"),
        (["stochastic", "--output", "no/where.safetensors"], "there is no folder no"),
        (["stochastic", "--output", "results"], "'results' is a folder"),
        (["stochastic", "--run", "none"], "name one run: stochastic, or that of --run"),
        (["stochastic", "--outptu", "x"], "(did you mean --output?)"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(runs, refused, words, sentence):
    before = sorted(runs.iterdir())
    assert sentence in refused("export", *words)
    assert sorted(runs.iterdir()) == before


@pytest.mark.parametrize("form", ["packed", "onnx"])
def test_a_model_that_disagrees_with_its_run_is_not_written(runs, refused, monkeypatch, form):
    """A packed file whose every sign is wrong: what a defect of packing would make."""
    pack = PackedModel.of

    def wrong(*arguments, **named):
        model = pack(*arguments, **named)
        for name, tensor in model.tensors.items():
            if name.endswith(".bits"):
                tensor.bitwise_not_()
        return model

    monkeypatch.setattr(PackedModel, "of", wrong)
    before = sorted(runs.iterdir())
    sentence = refused("export", "stochastic", "--format", form)
    assert "which is more than 0.33 percentage points apart; nothing was written" in sentence
    assert sorted(runs.iterdir()) == before


def test_an_onnx_runtime_that_computes_otherwise_is_noticed(runs, refused, monkeypatch):
    scores = export_module.onnx_scores
    monkeypatch.setattr(export_module, "onnx_scores", lambda *given: scores(*given) * 1.01)
    sentence = refused("export", "stochastic", "--format", "onnx")
    assert "onnxruntime computes other scores than torch" in sentence
    assert not (runs / "stochastic.onnx").exists()


@pytest.mark.parametrize("weights", ["binary", "real", "ensemble"])
def test_a_test_with_the_weights_of_one_method(runs, capsys, weights):
    main(["test", "--run", "stochastic", "--eval-weights", weights])
    said = capsys.readouterr().out
    number = {"binary": "1", "real": "2", "ensemble": "3"}[weights]
    rows = [line for line in said.splitlines() if f" {weights} " in line]
    assert len(rows) == 2
    assert all(f"│ {number} " in row for row in rows)
    assert not any(f" {other} " in said for other in {"binary", "real", "ensemble"} - {weights})


def test_what_a_record_does_not_have_is_added_to_it(runs):
    """An ensemble's errors, with its size; what is there stays, and so does what was tried."""
    before = record(runs, "stochastic").test
    main(["test", "--run", "stochastic", "--eval-weights", "real"])
    words = ["test", "--run", "stochastic", "--eval-weights", "ensemble"]
    main([*words, "--data.batch_size", "20"])
    (runs / "more.yaml").write_text("data:\n  init_args:\n    batch_size: 20\n")
    main([*words, "-c", "more.yaml"])
    main(["validate", "--run", "stochastic", "--eval-weights", "ensemble"])
    assert record(runs, "stochastic").test == before
    main([*words, "--ensemble-size", "3"])
    after = record(runs, "stochastic").test
    assert after[:-2] == before
    assert [(e["weights"], e["batch_norm"], e["ensemble_size"]) for e in after[-2:]] == [
        ("ensemble", "as trained", 3),
        ("ensemble", "re-estimated", 3),
    ]
    main(words)
    assert record(runs, "stochastic").test == after


def test_a_larger_ensemble_is_another_one_and_the_same_twice(runs):
    from bclightning.runs.evaluate import evaluate

    def errors(size: int):
        words = ["--run", "stochastic", "--eval-weights", "ensemble", "--ensemble-size", str(size)]
        return [error.value for error in evaluate(words, "test")]

    assert errors(2) == errors(2)
    assert errors(1) != errors(6)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stochastic", "--eval-weights", "sign"], "is binary, real or ensemble, and not 'sign'"),
        (["stochastic", "--ensemble-size", "3"], "for --eval-weights ensemble"),
        (
            ["stochastic", "--eval-weights", "ensemble", "--ensemble-size", "0"],
            "--ensemble-size is a number of networks",
        ),
        (["none", "--eval-weights", "ensemble"], "none has no binary weights"),
    ],
)
def test_weights_that_there_are_not_are_refused(runs, refused, words, sentence):
    assert sentence in refused("test", "--run", *words)


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "svhn"])
def test_raw_pixels_are_prepared_as_the_test_split_was(request, monkeypatch, name):
    fitted = ZCA(torch.randn(3072), torch.eye(3072) + 0.01 * torch.randn(3072, 3072))
    monkeypatch.setattr(ZCA, "fit", lambda *_: fitted)
    root = None if name == "digits" else request.getfixturevalue(f"{name}_root")
    data = {"digits": Digits, "mnist": MNIST, "cifar10": CIFAR10, "svhn": SVHN}[name](str(root))
    data.prepare_data()
    data.setup("test")
    images = torch.cat([images for images, _ in data.test_dataloader()])
    raw = data.test_pixels()
    assert torch.equal(raw, raw.round())
    assert raw.max() > 10
    prepared = data.preprocessing().apply(raw)
    torch.testing.assert_close(prepared, images, rtol=1e-4, atol=1e-4)


def test_a_summary_of_a_run_and_of_a_recipe(runs, capsys, refused):
    main(["summary", "stochastic"])
    of_run = capsys.readouterr().out
    assert "hidden.0.linear" in of_run
    assert "16x64" in of_run
    tiny = ["--model.network.hidden", "[16]", "--model.network.regularizer", "stochastic"]
    main(["summary", "digits.yaml", *tiny])
    assert capsys.readouterr().out == of_run
    main(["summary", "none"])
    assert "No weight is binary" in capsys.readouterr().out
    assert "bcl summary RUN, or bcl summary mnist.yaml" in refused("summary")
    assert "there is no run 'nothere'" in refused("summary", "nothere")
    sentence = refused("summary", "digits", "--model.network.init_args.in_features", "100")
    assert "the network does not take the images of digits, 1 x 8 x 8" in sentence
    assert "(did you mean mnist.yaml?)" in refused("summary", "minst.yaml")


def test_a_summary_of_the_papers_network_has_the_figures_by_hand(folder, capsys):
    main(["summary", "mnist.yaml"])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines()[:14])) <= 80
    assert "63.3 % of the multiplications" in said
    # 2,910,208 products at 4.6 pJ, and 11.67 MB at 20.3 pJ a bit.
    assert "13.4 µJ" in said
    assert "1.90 mJ" in said
