"""What a record says of the code and of the cost of a job."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import make_clone

from colatent.store import provenance

COST = "from colatent.store import provenance; cost = provenance._cost()"


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A working tree whose package is committed."""
    return make_clone(tmp_path / "clone", monkeypatch)


def revision() -> str:
    return provenance.git_revision.__wrapped__()


def test_the_commit_is_that_of_the_package(clone):
    assert re.fullmatch("[0-9a-f]{7,}", revision())
    (clone / "README.md").write_text("edited\n")
    assert re.fullmatch("[0-9a-f]{7,}-dirty", revision())


@pytest.mark.parametrize("name", ["src/colatent/models/new_thing.py", "workflow/rules/new.smk"])
def test_new_code_makes_it_dirty(clone, name):
    (clone / "notes.txt").write_text("no code\n")
    assert not revision().endswith("-dirty")
    (clone / name).parent.mkdir(parents=True, exist_ok=True)
    (clone / name).write_text("new\n")
    assert re.fullmatch("[0-9a-f]{7,}-dirty", revision())


def test_the_commit_of_another_project_is_not_taken(clone, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE", clone / "unpacked/src/colatent")
    shutil.copytree(clone / "src/colatent", provenance.PACKAGE)
    assert revision() == "unknown"


def test_time_counts_from_the_start_of_the_process():
    work = "import time\nwhile time.process_time() < 1: pass"
    script = f"{work}\n{COST}\nassert cost['wall_s'] >= cost['cpu_s'] - 0.02, cost"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_memory_is_that_of_this_program_alone():
    status = Path("/proc/self/status")
    if not status.is_file() or "VmHWM" not in status.read_text():
        pytest.skip("this system tells no memory of a program by itself")
    mine = f"{COST}; assert 5 < cost['peak_memory_mib'] < 300, cost"
    start = "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
    before = f"import os, sys; x = b'x' * 400 * 2**20; {start}"
    subprocess.run([sys.executable, "-c", before, mine], check=True)
