"""What tests share: a clean environment, seeds, the command line, small data in real formats."""

import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import random
import tarfile
from collections.abc import Callable
from pathlib import Path

import filelock
import hypothesis
import numpy as np
import pytest
import scipy.io
import torch
from postgresql import Server, installed
from wandb_server import KEY

from bclightning.cli.main import main
from bclightning.data import CIFAR10, MNIST, SVHN
from bclightning.data.files import DataFile

# An example takes as long as the machine's other work lets it.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

CONFIGS = Path(__file__).parent / "configs"

# Each process of tests has a core, here and in the processes that it starts. One that has started
# torch's threads cannot be forked, either.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)

# Set where CI runs: a test that is skipped without being marked ``may_skip`` then is a failure,
# since it would go unnoticed that something is not tested any more.
NO_SKIPS = "BCL_NO_SKIPS"

undeclared_skips = []


def pytest_runtest_logreport(report):
    """Note what is skipped; with several workers this is called where all of them report."""
    if report.skipped and not hasattr(report, "wasxfail") and "may_skip" not in report.keywords:
        undeclared_skips.append(report.nodeid)


def pytest_sessionfinish(session):
    """Let skipped tests fail the session where they must not be."""
    if undeclared_skips and os.environ.get(NO_SKIPS) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    """Name them."""
    if undeclared_skips and os.environ.get(NO_SKIPS):
        terminalreporter.section("skipped, which fails here")
        for test in undeclared_skips:
            terminalreporter.line(test)


@pytest.fixture(autouse=True)
def seeded():
    """Random numbers that are the same in each run of a test."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    """No key, no mode, no home and no data of the machine's, unless a test asks for them."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # Lightning leaves the seed of the last run there; set, it is put back after the test.
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    path = tmp_path / "work"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


@pytest.fixture(scope="session")
def made_once(tmp_path_factory, worker_id):
    """What makes a folder for all processes of tests: the first one that asks for it fills it."""
    own = tmp_path_factory.getbasetemp()

    def make(name: str, fill: Callable[[Path], None]) -> Path:
        folder = (own if worker_id == "master" else own.parent) / name
        with filelock.FileLock(f"{folder}.lock"):
            if not folder.exists():
                folder.mkdir()
                fill(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory):
    """A PostgreSQL server of our own, which goes when the tests end."""
    if not installed():
        pytest.skip("needs Debian's package postgresql")
    # Servers that start at once, in two processes of tests, would take the same free port.
    with filelock.FileLock(tmp_path_factory.getbasetemp().parent / "postgresql.lock"):
        server = Server()
    yield server
    server.close()


@pytest.fixture
def postgresql(postgresql_server):
    """The URL of an empty PostgreSQL database, which no other test has."""
    return postgresql_server.new_database()


@pytest.fixture
def online(monkeypatch):
    """Point W&B to a server; it reads the environment once a process, or once a set-up."""
    import wandb

    def arrange(url: str) -> None:
        wandb.teardown()
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)

    yield arrange
    wandb.teardown()


@pytest.fixture
def tiny():
    """The path of a recipe that trains in a second."""
    return str(CONFIGS / "tiny.yaml")


@pytest.fixture
def refused(capsys):
    """Run a command line that must be refused, and return the one sentence that it says."""

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            main(list(words))
        said = capsys.readouterr().err.strip()
        assert stopped.value.code == 2
        assert "Traceback" not in said
        *_, sentence = said.splitlines()
        assert sentence.startswith("bcl: ")
        return sentence.removeprefix("bcl: ")

    return run


def described(root: Path, file: DataFile) -> DataFile:
    """A file of our own making in the place of a published one, with its own checksum and size."""
    content = (root / file.name).read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    return dataclasses.replace(file, md5=md5, size=len(content), urls=())


def pictures(labels: np.ndarray, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Noise with a bright bar whose place tells the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 80, (len(labels), *shape), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[..., 2 * label : 2 * label + 3, :] += 150
    return images


@pytest.fixture
def mnist_root(tmp_path, monkeypatch):
    """130 training images, 30 of them to validate, and 40 test images in IDX files."""
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 130), ("t10k", 40)):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = pictures(labels, (28, 28), seed=count)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
            with gzip.open(raw / f"{prefix}-{name}-ubyte.gz", "wb") as file:
                file.write(header + array.tobytes())
    root = tmp_path / "data"
    monkeypatch.setattr(MNIST, "files", tuple(described(root, f) for f in MNIST.files))
    monkeypatch.setattr(MNIST, "validation_images", 30)
    return root


@pytest.fixture
def cifar10_root(tmp_path, monkeypatch):
    """100 training images, 20 of them to validate, and 40 test images in CIFAR-10's pickles."""
    root = tmp_path / "data"
    (root / "cifar-10-batches-py").mkdir(parents=True)
    for index, file in enumerate(CIFAR10.files):
        count = 40 if "test" in file.name else 20
        labels = np.arange(count) % 10
        content = {
            b"data": pictures(labels, (3, 32, 32), seed=index).reshape(count, -1),
            b"labels": labels.tolist(),
        }
        (root / file.name).write_bytes(pickle.dumps(content, protocol=3))
    monkeypatch.setattr(CIFAR10, "files", tuple(described(root, f) for f in CIFAR10.files))
    monkeypatch.setattr(CIFAR10, "validation_images", 20)
    return root


@pytest.fixture
def cifar10_archive(cifar10_root, monkeypatch):
    """The same files in an archive, with one more that has no business there."""
    with tarfile.open(cifar10_root / "cifar-10-python.tar.gz", "w:gz") as tar:
        for file in CIFAR10.files:
            tar.add(cifar10_root / file.name, file.name)
            (cifar10_root / file.name).unlink()
        evil = tarfile.TarInfo("../evil")
        evil.size = 4
        tar.addfile(evil, io.BytesIO(b"evil"))
    archive = described(cifar10_root, CIFAR10.archive)
    monkeypatch.setattr(CIFAR10, "archive", archive)
    return cifar10_root


@pytest.fixture
def svhn_root(tmp_path, monkeypatch):
    """60, 90 and 40 images of train, extra and test in MATLAB files."""
    root = tmp_path / "data"
    root.mkdir()
    counts = (60, 90, 40)
    for file, count in zip(SVHN.files, counts, strict=True):
        labels = np.arange(count) % 10
        images = pictures(labels, (3, 32, 32), seed=count)
        matlab = {
            "X": images.transpose(2, 3, 1, 0),
            "y": np.where(labels == 0, 10, labels)[:, None],
        }
        scipy.io.savemat(root / file.name, matlab, do_compression=True)
    monkeypatch.setattr(SVHN, "files", tuple(described(root, f) for f in SVHN.files))
    monkeypatch.setattr(SVHN, "counts", counts)
    monkeypatch.setattr(SVHN, "validation_counts", (2, 3))
    return root
