"""Files of format version 1, which are read for ever."""

from pathlib import Path

import pytest
import torch

from bclightning.inference import PackedModel, load

# Written by the release that had no other version: convolutions, pooling, both kinds of batch
# normalization, a real convolution and a real layer.
FILE = Path(__file__).parent / "files" / "version_1.safetensors"

# What that release computed.
SCORES = [
    ["-0x1.87c0d4p-3", "0x1.471f86p-2", "0x1.768c5cp-3"],
    ["-0x1.0e5fa8p-5", "0x1.b63970p-5", "0x1.42a5fep-4"],
    ["-0x1.8d49eap-3", "0x1.db859ap-3", "0x1.86b7d8p-3"],
]


def test_a_file_of_version_1_has_the_same_bits_when_it_is_written_again(tmp_path):
    model = PackedModel.read(FILE)
    model.write(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == FILE.read_bytes()
    assert {step.inputs for step in model.steps} == {None}


@pytest.mark.parametrize(("storage", "digits"), [("bits", 6), ("float32", 6), ("int8", 2)])
def test_a_file_of_version_1_computes_what_it_computed(storage, digits):
    network = load(FILE, storage)
    pixels = (torch.arange(3 * 2 * 8 * 9).reshape(3, 2, 8, 9) % 256).to(torch.uint8)
    expected = torch.tensor([[float.fromhex(score) for score in row] for row in SCORES])
    scores = network(network.prepare(pixels))
    torch.testing.assert_close(scores, expected, rtol=0, atol=10.0**-digits)
    assert network.class_names == ("cat", "dog", "frog")
    assert network.about == {"run": "version-1", "test_error": 12.5}
