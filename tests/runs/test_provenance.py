"""Commit and dirty flag, under which every figure stands: of a real repository."""

import subprocess
from types import SimpleNamespace

import pytest
import torch

from bclightning.runs import provenance


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one file in a repository of its own."""
    folder = tmp_path / "repository" / "package"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("a = 1\n")
    monkeypatch.setattr(
        provenance, "bclightning", SimpleNamespace(__file__=str(folder / "__init__.py"))
    )
    return folder


def git(folder, *arguments: str) -> str:
    names = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", "-C", str(folder), *names, *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def commit(folder) -> str:
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return git(folder, "rev-parse", "HEAD")


def test_a_clean_repository_has_its_commit(package):
    head = commit(package)
    assert provenance.git_state() == {"commit": head, "dirty": False}


@pytest.mark.parametrize("staged", [False, True])
def test_a_changed_file_makes_it_dirty(package, staged):
    head = commit(package)
    (package / "__init__.py").write_text("a = 2\n")
    if staged:
        git(package, "add", ".")
    assert provenance.git_state() == {"commit": head, "dirty": True}


def test_a_deleted_file_makes_it_dirty(package):
    (package / "other.py").write_text("")
    commit(package)
    (package / "other.py").unlink()
    assert provenance.git_state()["dirty"] is True


def test_files_that_git_does_not_track_do_not(package):
    commit(package)
    (package.parent / "notes.txt").write_text("mine")
    assert provenance.git_state()["dirty"] is False


def test_outside_a_repository_there_is_none(package):
    assert provenance.git_state() is None


def test_a_repository_that_does_not_track_the_package_says_nothing(package):
    (package.parent / "other.txt").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", "other.txt")
    git(package.parent, "commit", "-q", "-m", "first")
    assert provenance.git_state() is None


def test_without_git_there_is_none(package, monkeypatch):
    commit(package)
    monkeypatch.setenv("PATH", "")
    assert provenance.git_state() is None


def test_the_machine_says_threads_and_processor():
    found = provenance.machine(torch.device("cpu"))
    assert found["device"] == "cpu"
    assert found["threads"] == torch.get_num_threads()
    assert found["name"]
