"""Which edits of the code change the fingerprint of a stage, in a small package."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from colatent.store import fingerprint
from colatent.store.fingerprint import PACKAGE, STAGES, code_fingerprint, stage_modules

ROOT = Path(__file__).parents[3]
SMALL = {
    "models/__init__.py": b"from colatent.errors import InputError\n",
    "models/fitting.py": b"""
from typing import TYPE_CHECKING
from colatent.errors import InputError
if TYPE_CHECKING:
    from colatent.report import page
def fit():
    from colatent.models.gp import kernel  # late
    return kernel()
""",
    "models/gp.py": b"def kernel():\n    return 1\n",
    "models/other.py": b"def kernel():\n    return 2\n",
    "models/named.py": b"class GPFA: pass\n",
    "models/methods.py": b"def text(): pass\n",
    "config/models.py": b"CODE, TEXT = 'colatent.models.named:GPFA', 'colatent.models.methods:text'\n",
    "errors.py": b"class InputError(Exception): pass\n",
    "report/__init__.py": b"",
    "report/page.py": b"SIZE = 1\n",
    "report/style.css": b"a {}",
    "store/session.py": b"",
}

CACHED = (code_fingerprint, stage_modules, fingerprint._meaning, fingerprint._kept_meanings)


def fingerprints(monkeypatch: pytest.MonkeyPatch, source: dict[str, bytes]) -> dict[str, str]:
    monkeypatch.setattr(fingerprint, "_SOURCE", source)
    for function in CACHED:
        function.cache_clear()
    return {stage: code_fingerprint(stage) for stage in ("fit", "report")}


@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path):
    monkeypatch.setattr(fingerprint, "_KEPT", tmp_path / "meanings.json")
    yield
    for function in CACHED:
        function.cache_clear()


def test_what_is_imported_late_or_named_as_text_counts_and_types_do_not(monkeypatch):
    fingerprints(monkeypatch, SMALL)
    modules = {"models.fitting", "models.gp", "models.named", "store.session"}
    assert stage_modules("fit") == modules
    assert "models.methods" in stage_modules("report")


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("models/gp.py", b"return 1", b"return 1  # a remark", set()),
        ("models/gp.py", b":\n", b':\n    """Return one."""\n', set()),
        ("models/gp.py", b"return 1", b"return 3", {"fit"}),
        ("models/named.py", b"pass", b"x = 1", {"fit"}),
        ("models/fitting.py", b"models.gp import", b"models.other import", {"fit"}),
        ("errors.py", b"pass", b"x = 1", set()),
        ("models/__init__.py", b"InputError\n", b"InputError\nx = 1\n", {"fit", "report"}),
        ("models/other.py", b"2", b"3", set()),
        ("models/methods.py", b"pass", b"return 1", {"report"}),
        ("report/style.css", b"{}", b"{ }", {"report"}),
    ],
)
def test_an_edit_changes_the_stages_that_depend_on_it(monkeypatch, file, old, new, changed):
    before = fingerprints(monkeypatch, SMALL)
    assert old in SMALL[file]
    after = fingerprints(monkeypatch, SMALL | {file: SMALL[file].replace(old, new)})
    assert {stage for stage in before if before[stage] != after[stage]} == changed


def test_defaults_that_depend_on_the_data_count_and_descriptions_of_keys_do_not(monkeypatch):
    assert {"config.models.gpfa", "config.models.mmgpvae"} <= stage_modules("fit") & stage_modules("score")
    own = b"from colatent.config.models import default\n" + SMALL["models/fitting.py"]
    default = b"def default():\n    return Field(1, description='one')\n"
    package = SMALL | {"models/fitting.py": own, "config/models.py": SMALL["config/models.py"] + default}
    before = fingerprints(monkeypatch, package)
    for old, new, same in ((b"'one'", b"'a number'", True), (b"(1,", b"(2,", False)):
        edited = package | {"config/models.py": package["config/models.py"].replace(old, new)}
        assert (fingerprints(monkeypatch, edited)["fit"] == before["fit"]) is same
    found = set()
    for description in (b"'one'", b"'a number'"):  # of what is not a key, it may be written to a file
        gp = SMALL["models/gp.py"].replace(b"1", b"series(description=" + description + b")")
        found.add(fingerprints(monkeypatch, SMALL | {"models/gp.py": gp})["fit"])
    assert len(found) == 2


def test_what_packages_offer_to_users_is_of_no_stage(monkeypatch):
    root = b"def __getattr__(name):\n    from colatent.models.other import kernel\n    return kernel\n"
    package = SMALL | {"__init__.py": root}
    before = fingerprints(monkeypatch, package)
    assert (
        fingerprints(monkeypatch, package | {"models/other.py": b"def kernel():\n    return 3\n"}) == before
    )
    patched = fingerprints(monkeypatch, package | {"__init__.py": root + b"x = 1\n"})
    assert all(patched[stage] != before[stage] for stage in before)
    assert code_fingerprint("record") == ""


def test_a_file_that_is_no_python_is_named(monkeypatch):
    with pytest.raises(SyntaxError) as caught:
        fingerprints(monkeypatch, SMALL | {"models/gp.py": b"def kernel(:\n"})
    assert (caught.value.filename, caught.value.lineno) == (str(PACKAGE / "models/gp.py"), 1)


def test_a_job_takes_the_fingerprints_of_its_run_only_while_no_file_was_edited(monkeypatch):
    monkeypatch.setenv(fingerprint._OF_RUN, "[0, {}]")
    before, part = fingerprints(monkeypatch, SMALL), fingerprint._part
    assert before.items() <= fingerprint.fingerprints_for_jobs().items()
    monkeypatch.setattr(fingerprint, "_part", lambda module: pytest.fail("computed again"))
    assert fingerprints(monkeypatch, SMALL) == before
    monkeypatch.setattr(fingerprint, "_part", part)
    edited = SMALL | {"models/gp.py": SMALL["models/gp.py"].replace(b"1", b"3")}
    assert fingerprints(monkeypatch, edited)["fit"] != before["fit"]


def test_what_was_found_before_is_taken_for_the_same_content_only(monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before, read = fingerprints(monkeypatch, SMALL), fingerprint._read
    fingerprint.fingerprints_for_jobs()
    monkeypatch.delenv(fingerprint._OF_RUN)
    monkeypatch.setattr(fingerprint, "_read", lambda source: pytest.fail("read again"))
    assert fingerprints(monkeypatch, SMALL) == before
    monkeypatch.setattr(fingerprint, "_read", read)
    # of the same size; only the content tells
    edited = SMALL | {"models/gp.py": SMALL["models/gp.py"].replace(b"1", b"3")}
    assert fingerprints(monkeypatch, edited)["fit"] != before["fit"]
    # what the same import means depends on the other files
    parted = {"models/gp/__init__.py": b"", "models/gp/kernel.py": b"def __call__(): return 1\n"}
    fingerprints(monkeypatch, {name: code for name, code in SMALL.items() if name != "models/gp.py"} | parted)
    assert "models.gp.kernel" in stage_modules("fit")
    fingerprint._KEPT.write_text(fingerprint._KEPT.read_text()[:-9])
    assert fingerprints(monkeypatch, SMALL) == before


def test_nothing_is_kept_where_python_keeps_no_bytecode_or_nothing_can_be_written(monkeypatch):
    fingerprints(monkeypatch, SMALL)
    for unwritten in (True, False):
        monkeypatch.setattr(sys, "dont_write_bytecode", unwritten)
        monkeypatch.setattr(fingerprint, "_KEPT", fingerprint._KEPT.parent / "missing/meanings.json")
        fingerprint.fingerprints_for_jobs()
        assert not fingerprint._KEPT.exists()


def test_where_an_imported_name_comes_from_counts_though_both_modules_are_reached(monkeypatch):
    both = SMALL | {"models/named.py": b"from colatent.models.other import kernel\n"}
    moved = both["models/fitting.py"].replace(b"models.gp import kernel", b"models.other import kernel")
    kept = both | {"models/third.py": b"from colatent.models.gp import kernel\n"}
    kept["models/named.py"] += b"from colatent.models import third\n"
    before = fingerprints(monkeypatch, kept)
    assert before["fit"] != fingerprints(monkeypatch, kept | {"models/fitting.py": moved})["fit"]


def test_code_that_was_only_moved_has_the_same_fingerprint(monkeypatch):
    before = fingerprints(monkeypatch, SMALL)
    moved = dict(SMALL)
    moved["models/kernels.py"] = moved.pop("models/gp.py")
    moved["models/fitting.py"] = moved["models/fitting.py"].replace(b"models.gp", b"models.kernels")
    assert fingerprints(monkeypatch, moved) == before


def test_every_import_of_a_script_is_of_its_stage():
    """A script's rule has the code of a stage: that of the modules that the script imports, and no other."""
    stage_of = {"model_page": "report", "session_page": "report", "split": "split"}
    for script in sorted((ROOT / "workflow/scripts").glob("*.py")):
        stage = stage_of.get(script.stem, "report" if script.stem.endswith("_figure") else script.stem)
        for node in ast.walk(ast.parse(script.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("colatent."):
                module = str(node.module).removeprefix("colatent.")
                if not fingerprint._counts(module) or module == "scoring.tables":
                    continue
                assert module in stage_modules(stage), f"{script.name}: {module}"


def test_all_entries_are_there_and_models_are_reached():
    assert all(fingerprint._file(module) for entries in STAGES.values() for module in entries)
    assert {"models.gp", "models.registry", "data.trials"} <= stage_modules("fit")
    assert not [m for m in stage_modules("fit") if re.match(r"report|scoring|analyses|.*methods", m)]
    assert stage_modules("fit") <= stage_modules("score") | {"models.fitting"}


def test_the_code_is_that_which_the_process_started_with(tmp_path):
    """An edit while a job runs is not in its results: the next process says so, this one does not."""
    ignored = shutil.ignore_patterns("__pycache__")
    package = shutil.copytree(PACKAGE, tmp_path / "colatent", ignore=ignored)
    edit = f"open({str(package / 'data/splits.py')!r}, 'a').write('\\nedited = True\\n')"
    script = f"from colatent.store.fingerprint import code_fingerprint as code; {edit}; print(code('split'))"
    said = [
        subprocess.check_output(
            [sys.executable, "-c", script], env=os.environ | {"PYTHONPATH": str(tmp_path)}
        )
        for _ in range(2)
    ]
    assert said[0].decode().strip() == code_fingerprint("split") != said[1].decode().strip()
