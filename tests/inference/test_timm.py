"""Networks of timm: converted, trained two steps, packed, and loaded where there is no timm."""

import copy
import importlib
import json
import os
import subprocess
import sys
import warnings

import pytest
import torch
from torch.nn import functional

from bclightning.inference import PackedModel, PackedNetwork
from bclightning.inference.onnx import onnx_scores, write_onnx
from bclightning.nn import binary_layers, convert_to_binary, reestimate_batch_norm_

pytestmark = [pytest.mark.slow, pytest.mark.may_skip]

# With the layers that stay real: the first, the last, and a Linear of timm's own class.
MODELS = {
    "resnet18": ["conv1", "fc"],
    "mobilenetv3_small_100": ["conv_stem", "classifier"],
    "convnext_atto": ["stem.0", "head.fc"],
    "vit_tiny_patch16_224": ["patch_embed", "head"],
}

SHAPE = (3, 224, 224)


@pytest.fixture(scope="module")
def timm():
    """The package, from a folder of its own: torchmetrics would import torchvision everywhere."""
    folder = os.environ.get("BCL_TIMM")
    if not folder:
        pytest.skip("needs BCL_TIMM, a folder with timm and torchvision; .ci/run makes one")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.syspath_prepend(folder)
        try:
            yield importlib.import_module("timm")
        except RuntimeError:
            # Torchvision's compiled part does not fit this build of torch; without it torchvision
            # cannot say which shapes these operations give, which nothing here calls.
            library = torch.library.Library("torchvision", "FRAGMENT")
            for name in ("nms", "qnms"):
                library.define(f"{name}(Tensor dets, Tensor scores, float threshold) -> Tensor")
            yield importlib.import_module("timm")


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", MODELS)
def test_a_network_of_timm_is_the_same_in_a_file_without_timm(timm, tmp_path, name):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=10)
    convert_to_binary(network, skip=MODELS[name])
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(2):
        loss = functional.cross_entropy(network(torch.randn(4, *SHAPE)), torch.arange(4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    reestimate_batch_norm_(network, [torch.randn(8, *SHAPE)])
    network.eval()
    path = tmp_path / f"{name}.safetensors"
    model = PackedModel.of(network, SHAPE, [str(i) for i in range(10)])
    model.write(path)
    write_onnx(model, tmp_path / "m.onnx")
    binary = sum(layer.weight.numel() for layer in binary_layers(network).values())
    real = sum(parameter.numel() for parameter in network.parameters()) - binary
    assert binary / 8 < path.stat().st_size < binary / 8 + 4 * real + 60_000
    for batch in (1, 3):
        images = torch.randn(batch, *SHAPE)
        with torch.no_grad():
            expected = network(images)
            exact = copy.deepcopy(network).double()(images.double())
        tolerance = 1e-4 * max(1.0, float(expected.abs().max()))
        scores = PackedNetwork(model)(images)
        torch.testing.assert_close(scores, expected, rtol=0, atol=tolerance)
        # A transformer of ±1 attends to what wins by a rounding error: torch itself is 1e-3 away
        # from what double precision gives, and sums in another order may be further.
        rounding = float((expected - exact).abs().max())
        scores = onnx_scores(tmp_path / "m.onnx", images)
        torch.testing.assert_close(scores, expected, rtol=0, atol=max(tolerance, 30 * rounding))
    torch.save(images, tmp_path / "images.pt")
    loaded = json.loads(scores_without_timm(path, tmp_path / "images.pt"))
    torch.testing.assert_close(torch.tensor(loaded), expected, rtol=0, atol=tolerance)


def scores_without_timm(path, images) -> str:
    """What a fresh process computes, in which timm and torchvision cannot be imported."""
    code = (
        "import sys, json; sys.modules.update(timm=None, torchvision=None); import torch; "
        "from bclightning.inference import load; "
        f"print(json.dumps(load({str(path)!r})(torch.load({str(images)!r})).tolist()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
