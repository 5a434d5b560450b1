"""What a record says of the code and of the cost of a job."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support import make_clone

from colatent.store import provenance

COST = "from colatent import provenance; cost = provenance._cost()"


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


@pytest.mark.parametrize("stage", provenance.STAGE_CODE)
def test_the_code_is_that_which_the_process_started_with(tmp_path, stage):
    """An edit while a job runs is not in its results: the next process says so, this one does not."""
    package = shutil.copytree(provenance.PACKAGE, tmp_path / "colatent")
    edited = package / provenance.STAGE_CODE[stage][0]
    edited = edited / "__init__.py" if edited.is_dir() else edited
    told = "import sys; from colatent.store.provenance import PACKAGE, code_fingerprint as code"
    edit = f"open({str(edited)!r}, 'a').write('\\nedited = True\\n')"
    said = [
        subprocess.check_output([sys.executable, "-c", f"{told}; {edit}; print(code({stage!r}))"], env=own)
        for own in [os.environ | {"PYTHONPATH": str(tmp_path)}] * 2
    ]
    assert said[0].decode().strip() == provenance.code_fingerprint(stage) != said[1].decode().strip()


def test_code_that_is_edited_before_it_is_imported_is_not_run(tmp_path):
    """A fit that waited for a GPU would else be of code that its record does not name."""
    package = shutil.copytree(provenance.PACKAGE, tmp_path / "colatent")

    def said(edits: dict[str, str], kinds: str = "condition-mean") -> str:
        """Edit files between the start of a process and the models that it loads; return its refusal."""
        script = f"""
from pathlib import Path
from colatent import config
from colatent.errors import InputError
from colatent.models import registry
before = {{name: Path({str(package)!r}, name).read_text() for name in {list(edits)!r}}}
models = {{"condition-mean": config.ConditionMeanSettings(kind="condition-mean"),
           "smoothed-fa": config.SmoothedFASettings(kind="smoothed-fa", latents={{"spikes": 2}})}}
class trials: kinds, bin_width = {{"spikes": "spikes"}}, 0.02
kinds = {kinds!r}.split()
for number, kind in enumerate(kinds, 1):
    try:
        for name, edit in {edits!r}.items():
            if number == len(kinds):
                Path({str(package)!r}, name).write_text(before[name] + edit)
        registry.model_class_and_options(models[kind], trials, True, "cpu")
    except InputError as error:
        print(error)
for name, text in before.items():
    Path({str(package)!r}, name).write_text(text)
"""
        own = os.environ | {"PYTHONPATH": str(tmp_path)}
        return subprocess.run(
            [sys.executable, "-c", script], env=own, capture_output=True, text=True, check=True
        ).stdout

    edited = said({"models/condition_mean.py": "edited = True\n"})
    assert "condition_mean.py: this code was edited after this job started, and before ConditionM" in edited
    assert "gp.py: this code" in said({"gp.py": "not Python\n"})
    assert not said({"report/page.py": "edited = True\n", "models/condition_mean.py": "# a comment\n"})
    second = said({"models/smoothed_fa.py": "edited = True\n"}, "condition-mean smoothed-fa")
    assert "smoothed_fa.py: this code" in second and "before SmoothedFA was loaded" in second
    assert not said({"gp.py": "edited = True\n"}, "condition-mean condition-mean")  # loaded before the edit


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


def test_code_that_was_only_moved_has_the_same_fingerprint(monkeypatch):
    before = provenance.code_fingerprint("fit")
    moved = {}
    for file, source in provenance._SOURCE.items():
        name = file.relative_to(provenance.PACKAGE).as_posix()
        place = provenance.PACKAGE / ("kernels.py" if name == "gp.py" else name)
        moved[place] = source.replace(b"from colatent import gp\n", b"from colatent import kernels as gp\n")
    stages = {"fit": tuple("kernels.py" if e == "gp.py" else e for e in provenance.STAGE_CODE["fit"])}
    monkeypatch.setattr(provenance, "_SOURCE", moved)
    monkeypatch.setattr(provenance, "STAGE_CODE", stages)
    assert provenance.code_fingerprint.__wrapped__("fit") == before
    moved[provenance.PACKAGE / "kernels.py"] += b"\nedited = True\n"
    provenance._meaning.cache_clear()
    assert provenance.code_fingerprint.__wrapped__("fit") != before
