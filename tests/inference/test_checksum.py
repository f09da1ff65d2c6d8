"""Files with a checksum: their bytes, and what is refused."""

import hashlib

import pytest
import torch

from bclightning.errors import UserError
from bclightning.inference import DamagedFileError
from bclightning.inference.checksum import read_checked, with_checksum, write_checked

TENSORS = {
    "weight": torch.arange(6.0).reshape(2, 3),
    "bits": torch.arange(5, dtype=torch.uint8),
}
METADATA = {"format": "an example", "about": 'a µ and a " mark'}


def test_the_bytes_are_those_of_the_files_that_are_out_there(tmp_path):
    """Pinned: a file that differs in one byte is another format."""
    path = tmp_path / "a.safetensors"
    digest = write_checked(path, TENSORS, METADATA)
    content = path.read_bytes()
    assert digest == "3918836ed35cbde1e4c8406933d8133e515fa20f5094b07d572d07c18be4eb52"
    assert hashlib.sha256(content).hexdigest() == (
        "3156e294213e5f8c289cda8b9d8271713f5f3594a3da94c9ac64849938cf9b4f"
    )
    assert content == with_checksum(TENSORS, METADATA)


def test_what_was_written_is_read(tmp_path):
    digest = write_checked(tmp_path / "a.safetensors", TENSORS, METADATA)
    metadata, tensors = read_checked(tmp_path / "a.safetensors")
    assert metadata == {"sha256": digest, **METADATA}
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())


def test_a_checksum_of_the_caller_s_own_is_refused():
    with pytest.raises(ValueError, match="must not contain sha256"):
        with_checksum(TENSORS, {"sha256": "0" * 64})


def test_a_safetensors_file_without_a_checksum_is_refused(tmp_path):
    import safetensors.torch

    safetensors.torch.save_file(TENSORS, tmp_path / "a.safetensors", METADATA)
    with pytest.raises(DamagedFileError, match="is damaged, or was not written by bcl export"):
        read_checked(tmp_path / "a.safetensors")


def test_a_matching_checksum_does_not_make_other_content_valid(tmp_path):
    content = b'{"__metadata__":{"sha256":"' + b"0" * 64 + b'"},"a":1}'
    content = len(content).to_bytes(8, "little") + content
    digest = hashlib.sha256(content).hexdigest().encode()
    (tmp_path / "a").write_bytes(content.replace(b"0" * 64, digest))
    with pytest.raises(DamagedFileError, match="is not a valid safetensors file"):
        read_checked(tmp_path / "a")


def test_no_file_and_a_folder_are_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"there is no file .*none"):
        read_checked(tmp_path / "none")
    with pytest.raises(UserError, match="is a folder; give the file of a packed model"):
        read_checked(tmp_path)
