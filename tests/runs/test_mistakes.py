"""What W&B is shown of a test."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bare_trainer import bare_trainer
from wandb_server import Server

from bclightning.cli.main import main
from bclightning.data import Digits
from bclightning.models import MLP
from bclightning.runs.mistakes import MAX_IMAGES, find_mistakes
from bclightning.runs.rebuild import TrainedNetwork
from bclightning.training import Classifier


def network(model: Classifier) -> TrainedNetwork:
    data = Digits(seed=0)
    data.prepare_data()
    return TrainedNetwork(
        model, data, bare_trainer(1), "a", None, None, "val/error", "test/error", list
    )


def test_the_worst_mistakes_are_the_most_confident_ones():
    torch.manual_seed(0)
    model = Classifier(MLP(64, [8], 10, regularizer="none"))
    found = find_mistakes(network(model))
    data = Digits(seed=0)
    data.setup("test")
    images, labels = next(iter(data.test_dataloader()))
    with torch.no_grad():
        scores = model.eval()(images)
    assert found.labels == labels.tolist()
    assert found.predicted == scores.argmax(1).tolist()
    margins = {
        number: float(scores[number].max() - scores[number, label])
        for number, label in enumerate(labels)
        if scores[number].argmax() != label
    }
    expected = sorted(margins, key=lambda number: -margins[number])[:MAX_IMAGES]
    assert [mistake.number for mistake in found.worst] == expected
    for mistake in found.worst:
        assert mistake.margin == pytest.approx(margins[mistake.number], rel=1e-4)
        assert mistake.label == found.class_names[labels[mistake.number]]
        assert mistake.predicted == found.class_names[found.predicted[mistake.number]]
        pixels = data.test_pixels()[mistake.number, 0]
        assert mistake.image.shape == (8, 8, 1)
        np.testing.assert_allclose(mistake.image[..., 0] / 255, pixels / 16, atol=0.003)


@pytest.mark.slow
def test_online_a_run_leaves_its_mistakes_and_its_model(folder, tiny, online, capsys):
    server = Server()
    online(server.url)
    options = ["--config", tiny, "--trainer.max_epochs=1", "--run_id", "a"]
    main(["fit", *options, "--wandb.mode=online", "--wandb.log_model=true"])
    server.stop()
    summary = server.runs["a"]["summary"]
    assert summary["wrong/most_confident"]["nrows"] == MAX_IMAGES
    assert summary["wrong/confusion_matrix_table"]["nrows"] == 100
    (artifact,) = (a for a in server.artifacts if a["artifactTypeName"] == "model")
    assert artifact["artifactCollectionName"] == "a"
    # It is not among the run's own files.
    assert not list(Path("results").rglob("*.safetensors"))
    record = json.loads(Path("results/runs/digits/a/run.json").read_text())
    (tested,) = [
        e["value"]
        for e in record["test"]
        if (e["weights"], e["batch_norm"]) == ("binary", "re-estimated")
    ]
    assert json.loads(artifact["metadata"])["test_error_pct"] == pytest.approx(tested)
