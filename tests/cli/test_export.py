"""From a run to a file of one bit a weight."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch

from bclightning.cli.evaluate import trained_network
from bclightning.cli.main import main
from bclightning.data import CIFAR10, MNIST, SVHN, Digits
from bclightning.errors import MachineError
from bclightning.functional.whitening import ZCA
from bclightning.inference import load
from bclightning.inference.packed import PackedModel
from bclightning.runs import export as export_module
from bclightning.runs.config import RunConfig
from bclightning.runs.export import export
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


def raw_error(path, data) -> tuple[float, dict[str, str]]:
    """The test error that onnxruntime alone gives on the files' pixels, and the metadata."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (wanted,) = session.get_inputs()
    assert (wanted.name, wanted.type) == ("pixels", "tensor(uint8)")
    data.setup("test")
    pixels = data.test_pixels().to(torch.uint8)
    (scores,) = session.run(None, {"pixels": pixels.numpy()})
    wrong = torch.from_numpy(scores).argmax(1) != data.loaded_splits()["test"].labels
    return 100 * float(wrong.double().mean()), session.get_modelmeta().custom_metadata_map


def test_an_onnx_graph_gives_the_run_s_error_on_raw_pixels(runs, capsys):
    main(["export", "stochastic", "--format", "onnx"])
    said = capsys.readouterr().out
    measured, metadata = raw_error("stochastic.onnx", Digits())
    expected = error_of(runs, "stochastic", "binary", "re-estimated")
    assert measured == pytest.approx(expected, abs=100 / 300 + 1e-9)
    assert float(metadata["test_error"]) == pytest.approx(measured, abs=1e-9)
    assert metadata["test_images"] == "300"
    assert metadata["input_range"] == "0 to 16"
    assert json.loads(metadata["class_names"]) == list(Digits.class_names)
    assert "% written" in said
    assert "pixels: raw pixels from 0 to 16, uint8 (batch, 1, 8, 8), grey" in said
    assert (runs / "stochastic.onnx").stat().st_size < 8_000
    assert sorted(entry.name for entry in runs.iterdir()) == ["results", "stochastic.onnx"]


WHITENED = """
seed_everything: 0
trainer: {max_epochs: 2, accelerator: cpu}
model:
  network:
    class_path: bclightning.models.MLP
    init_args: {in_features: 3072, hidden: [8], regularizer: deterministic}
data:
  class_path: bclightning.data.CIFAR10
  init_args: {batch_size: 20}
wandb: {mode: disabled}
"""


def test_a_whitened_run_s_graph_takes_raw_pixels_too(folder, cifar10_root, monkeypatch, capsys):
    fitted = ZCA(torch.randn(3072), torch.eye(3072) + 0.01 * torch.randn(3072, 3072))
    monkeypatch.setattr(ZCA, "fit", lambda *_: fitted)
    monkeypatch.setenv("BCL_DATA", str(cifar10_root))
    (folder / "white.yaml").write_text(WHITENED)
    main(["fit", "--config", "white.yaml", "--run_id", "white", "--runs_dir", "runs"])
    capsys.readouterr()
    main(["export", "runs/cifar10-fit/white", "--format", "onnx"])
    said = capsys.readouterr().out
    (beside,) = folder.glob("white.onnx.*.data")
    assert beside.name in said
    assert beside.stat().st_size == 4 * (3072 * 3072 + 3072)
    assert "raw pixels from 0 to 255, uint8 (batch, 3, 32, 32), RGB" in said
    measured, metadata = raw_error("white.onnx", CIFAR10())
    recorded = RunRecord.read(folder / "runs" / "cifar10-fit" / "white" / "run.json").tested_with(
        "binary", "as trained"
    )
    assert measured == pytest.approx(recorded, abs=100 / 40 + 1e-9)
    assert 0 < recorded < 85
    assert json.loads(metadata["preprocessing"])["kind"] == "whitened"


def test_a_graph_with_wrong_preprocessing_is_not_written(runs, refused, monkeypatch):
    """The graph is tested as it will be used: raw pixels in, by onnxruntime alone."""
    made = export_module.write_onnx

    def without_mean(model, *rest):
        model.preprocessing.tensors["mean"].zero_()
        return made(model, *rest)

    monkeypatch.setattr(export_module, "write_onnx", without_mean)
    assert "nothing was written" in refused("export", "deterministic", "--format", "onnx")
    assert sorted(entry.name for entry in runs.iterdir()) == ["results"]


def test_pixels_that_are_not_whole_numbers_go_in_as_they_are(runs, monkeypatch, capsys):
    """As of a data set whose files hold floats from 0 to 1."""
    pixels, described = Digits.test_pixels, Digits.preprocessing
    monkeypatch.setattr(Digits, "test_pixels", lambda data: pixels(data) / 16)
    monkeypatch.setattr(Digits, "preprocessing", lambda data: replace(described(data), scale=1.0))
    main(["export", "deterministic", "--format", "onnx"])
    assert "raw pixels from 0 to 1, float32 (batch, 1, 8, 8)" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["packed", "onnx"])
@pytest.mark.parametrize("operation", ["mkdir", "open", "fsync", "replace"])
def test_a_full_disk_at_any_stage_is_one_sentence(runs, monkeypatch, form, operation):
    """Each call that writes fails once: the first, then the second, until all went well."""
    network = trained_network(RunConfig.from_run("deterministic", {}), None, "export")
    target = f"deterministic.{'onnx' if form == 'onnx' else 'safetensors'}"
    real = getattr(os, operation)
    calls, stages = 0, 0

    def full(path, *rest, **named):
        nonlocal calls
        # What reads, as an import in between, is not meant.
        writes = operation != "open" or rest[0] & os.O_CREAT
        calls += bool(writes)
        if writes and calls == stages + 1:
            raise OSError(errno.ENOSPC, "No space left on device", "a file")
        return real(path, *rest, **named)

    def one_more() -> str | None:
        """What an export says whose next stage fails; `None` if it has no more stages."""
        try:
            with monkeypatch.context() as patched:
                patched.setattr(os, operation, full)
                export(network, format=form)
        except MachineError as error:
            return str(error)
        return None

    while (sentence := one_more()) is not None:
        assert sentence.startswith(f"the disk is full: {target} was not written")
        names = sorted(entry.name for entry in runs.iterdir())
        # Flushing the folder's entries comes after the file has taken its place.
        assert names in (["results"], [target, "results"])
        assert names == ["results"] or operation == "fsync"
        calls, stages = 0, stages + 1
    assert stages >= 1


def test_a_folder_that_is_read_only_is_told_before_the_work(runs, refused, monkeypatch):
    def never(*_):
        raise AssertionError("the work was done")

    monkeypatch.setattr(export_module, "_pack", never)
    access = os.access
    here = Path()
    monkeypatch.setattr(os, "access", lambda path, mode: path != here and access(path, mode))
    sentence = refused("export", "deterministic")
    assert "deterministic.safetensors cannot be written: . is read-only" in sentence


def test_a_folder_where_nothing_can_be_made_is_one_sentence(runs, refused):
    assert "/proc/m.onnx cannot be written" in refused(
        "export", "deterministic", "--format", "onnx", "--output", "/proc/m.onnx"
    )


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
