"""From a run to a file of one bit a weight."""

import pytest
import torch

from bclightning.cli.main import main
from bclightning.data import CIFAR10, MNIST, SVHN, Digits
from bclightning.functional.whitening import ZCA
from bclightning.inference import load
from bclightning.inference.packed import PackedModel
from bclightning.runs import export as export_module
from bclightning.runs.record import RunRecord

RUNS = ("results", "runs", "digits")


def record(runs, name: str) -> RunRecord:
    return RunRecord.read(runs.joinpath(*RUNS, name, "run.json"))


def error_of(runs, name: str, *evaluation: str) -> float:
    (error,) = [
        e["value"] for e in record(runs, name).test if (e["weights"], e["batch_norm"]) == evaluation
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
    assert (network.about["run"], network.about["regularizer"]) == (name, name)
    assert f"{expected:.2f} % in the run, {measured:.2f} % written" in said


def test_another_checkpoint_is_measured_and_not_taken_for_the_record_s(runs, capsys):
    last = str(runs.joinpath(*RUNS, "stochastic", "checkpoints", "last.ckpt"))
    main(["export", "stochastic", "--ckpt_path", last])
    about = load("stochastic.safetensors").about
    assert "best_score" not in about
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


def test_onnx_is_checked_on_the_test_set_and_is_small(runs, capsys):
    main(["export", "stochastic", "--format", "onnx"])
    assert "% written" in capsys.readouterr().out
    assert (runs / "stochastic.onnx").stat().st_size < 8_000


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["none"], "there are no binary weights to pack"),
        (["nothere"], "there is no run 'nothere'"),
        ([], "bcl export RUN"),
        (["stochastic", "--format", "pt"], "--format: 'pt' is not one of 'packed', 'onnx'"),
        (
            ["stochastic", "--batch-norm", "old"],
            "--batch_norm: 'old' is not one of 'as-trained', 're-estimated'",
        ),
        (["stochastic", "--tolerance", "x"], "--tolerance: 'x' is not of type float"),
        (["stochastic", "--tolerance", "-1"], "--tolerance lies between 0 and 100"),
        (["stochastic", "--output", "no/where.safetensors"], "there is no folder no"),
        (["stochastic", "--output", "results"], "'results' is a folder"),
        (["stochastic", "--run", "none"], "name one run: "),
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
