"""A project like this one in a few files, with or without git, for tests of what is told of it."""

import shutil
import subprocess
from pathlib import Path

import pytest

FILES = ("Snakefile", "README.md", "workflow/rules/fit.smk", "src/colatent/provenance.py")


def make_clone(folder: Path, monkeypatch: pytest.MonkeyPatch, tracked: bool = True) -> Path:
    """Write a project, which is then the one around the package."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old\n")
    if tracked:
        git(folder.parent, "init", "--quiet", folder.name)
        commit(folder)
    for module in ("provenance", "archive"):
        monkeypatch.setattr(f"colatent.{module}.PACKAGE", folder / "src/colatent")
    return folder


def commit(folder: Path) -> None:
    """Commit all that is there."""
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "all")


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder; without git, skip the test."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)
