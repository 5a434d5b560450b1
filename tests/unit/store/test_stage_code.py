"""The code that a stage's results depend on, measured by what its script imports."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from colatent.store.provenance import PACKAGE, STAGE_CODE

WORKFLOW = Path(__file__).parents[3] / "workflow"
# what is redone before a stage: an edit of its code redoes the stage as well
BEFORE = {
    "simulate": (),
    "ingest": (),
    "split": ("ingest",),
    "fit": ("ingest", "split"),
    "score": ("ingest", "split", "fit"),
    "report": ("ingest", "split", "fit", "score"),
    "export": ("ingest", "split", "fit", "score"),
}
# imported, but no number depends on it
HARMLESS = {
    "__init__.py": "names of the package",
    "checksums.py": "of tables and pages that are written",
    "errors.py": "words",
    "escape.py": "words",
    "failures.py": "words",
    "interruption.py": "stops a job",
    "lock.py": "keeps jobs from one another",
    "progress.py": "logs of a job",
    "provenance.py": "tells where a result comes from",
    "store.py": "how arrays are packed, not what is in them; a store is checked when it is read",
    "tensors.py": "as store.py",
    "building.py": "where files are while they are made",
    "config": "each job gets the resolved settings as parameters, and a change of them redoes it",
    "location.py": "where a recording lies, not what is in it",
    "session_table.py": "where a recording lies",
    "device.py": "the device is in the settings, and in the store",
    "checkpoint.py": "a fit that is gone on with ends with the same bytes: test_checkpoint.py",
}
HARMLESS_FOR = {
    ("ingest", "splits.py"): "only `read_fold` of session.py uses it",
    ("fit", "predictive.py"): "only `predict` of the models uses it, which is for scoring",
    ("export", "simulate/reach.py"): "a type that simulate/nwb.py names",
}


def scripts() -> list[tuple[str, Path]]:
    """Return the stage and the script of each rule that has a fingerprint of code."""
    text = "".join(file.read_text() for file in sorted((WORKFLOW / "rules").glob("*.smk")))
    found = []
    for rule in re.split(r"^rule ", text, flags=re.MULTILINE)[1:]:
        stages = re.findall(r'code_fingerprint\("(\w+)"\)', rule)
        script = re.search(r'"\.\./scripts/(\w+\.py)"', rule)
        if stages and script:  # of several, the last counts the code of those before it
            found.append((stages[-1], WORKFLOW / "scripts" / script[1]))
    return found


def imported(file: Path) -> Iterator[Path]:
    """Yield the files of the package that a file imports, but for its types alone."""
    nodes = [ast.parse(file.read_text())]
    while nodes:
        node = nodes.pop()
        if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)):
            nodes += ast.iter_child_nodes(node)
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0  # relative imports are not followed here
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            package, *parts = name.split(".")
            module = PACKAGE.joinpath(*parts)
            if package == "colatent":
                yield from filter(Path.is_file, (module / "__init__.py", module.with_suffix(".py")))


def reached(script: Path) -> set[str]:
    """Return all files of the package, relative to it, that come with a script."""
    waiting, seen = [script], set()
    while waiting:
        new = set(imported(waiting.pop())) - seen
        seen |= new
        waiting += new
    return {file.relative_to(PACKAGE).as_posix() for file in seen}


def uncounted(stage: str, script: Path, code: dict[str, tuple[str, ...]]) -> set[str]:
    """Return the files that a script comes with, and whose edit would not redo its stage."""
    counted = {*HARMLESS, *(entry for s in (stage, *BEFORE[stage]) for entry in code[s])}
    counted |= {file for of, file in HARMLESS_FOR if of == stage}
    return {file for file in reached(script) if not any((file + "/").startswith(e + "/") for e in counted)}


@pytest.mark.parametrize(("stage", "script"), scripts(), ids=lambda value: Path(value).stem)
def test_all_code_behind_a_script_is_counted_or_known_to_be_harmless(stage, script):
    assert uncounted(stage, script, STAGE_CODE) == set()


def test_code_that_is_left_out_is_found():
    (fit,) = {script for stage, script in scripts() if script.stem == "fit"}
    less = {
        stage: tuple(e for e in code if e not in ("gp.py", "models")) for stage, code in STAGE_CODE.items()
    }
    found = uncounted("fit", fit, less)
    assert "gp.py" in found and "models/gpfa.py" in found and "posterior.py" not in found


def test_every_stage_has_a_script_and_every_entry_a_file():
    assert {stage for stage, _ in scripts()} == set(STAGE_CODE) == set(BEFORE)
    entries = {*HARMLESS, *(f for _, f in HARMLESS_FOR), *(e for code in STAGE_CODE.values() for e in code)}
    assert all((PACKAGE / entry).exists() for entry in entries)
