"""A fingerprint of the code that a stage's results depend on: an edit reruns what it changes, and no more.

A stage's code is what its entry modules import, directly or not, also inside functions. Classes that a record
names as text (``"module:Class"``) count where the stage looks them up. Comments, docstrings, layout and the
names of files do not count; where an imported name comes from counts through the code there. Files are taken
as they were when this process started: they may be edited while a job runs.
"""

import ast
import hashlib
import json
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[1]
STAGES = {
    "simulate": ("simulate",),
    "ingest": ("ingest.session", "ingest.groups", "ingest.cluster", "store.session"),
    "split": ("data.splits", "store.session"),
    "fit": ("models.fitting", "models.registry", "store.session"),
    "score": ("scoring.session", "analyses"),
    "scores": ("scoring.tables",),
    "latent_choice": ("analyses.latent_choice",),
    "learning_curve": ("scoring.learning_curve",),
    "export": ("report.export",),
    "report": ("report", "report.figures.latent_choice", "report.figures.learning_curve"),
    "record": (),
}
_MODELS = r"models\.(?!.*\bmethods$)|scoring\.|analyses\.|data\."
# which modules that are named as text a stage looks up
_NAMED = {
    "ingest": r"ingest\.",
    **dict.fromkeys(("fit", "score", "latent_choice", "learning_curve"), _MODELS),
    "report": r"report\.|data\.|models\..*\bmethods$",
}
# imported, but no number depends on it: settings reach a job as its input, and a store is checked when read
_NO_NUMBERS = ("jobs", "store", "config", "errors", "cli", "results")
# exceptions: what reads trials, and what turns settings left out into a likelihood or decoder for the data
_NUMBERS_IN = re.compile(r"store\.session|config\.models(\.\w+)?")
_TEXT = re.compile(r"colatent((?:\.\w+)+):\w+")
_SOURCE = {
    file.relative_to(PACKAGE).as_posix(): file.read_bytes()
    for file in sorted(PACKAGE.rglob("*"))
    if file.suffix in (".py", ".j2", ".css", ".js") and file.is_file()
}
_OF_RUN = (
    "COLATENT_CODE"  # for the jobs of a run: hash of all files and fingerprint of each stage at its start
)


def fingerprints_for_jobs() -> dict[str, str]:
    """Return all fingerprints, and save jobs that this process starts from computing them again."""
    code = {stage: code_fingerprint(stage) for stage in STAGES}
    os.environ[_OF_RUN] = json.dumps([_hash_of_all(), code])
    return code


@cache
def code_fingerprint(stage: str) -> str:
    """Return the fingerprint of a stage's code."""
    files, code = json.loads(os.environ.get(_OF_RUN, "[0, {}]"))
    if files == _hash_of_all():
        return str(code[stage])
    parts = [_part(module) for module in sorted(stage_modules(stage))]
    if stage == "report":  # templates, styles and the pages' script
        parts += [
            _hash(s) for name, s in _SOURCE.items() if name.startswith("report/") and name[-3:] != ".py"
        ]
    return _hash("".join(sorted(filter(None, parts))).encode())[:16] if parts else ""


@cache
def stage_modules(stage: str) -> frozenset[str]:
    """Return the modules of this package that a stage's results depend on, such as ``models.gp``."""
    named = re.compile(_NAMED.get(stage, "(?!)"))
    in_config = {text for name in _SOURCE if name.startswith("config/") for text in _meaning(name).named}
    waiting, reached = [*STAGES[stage], *filter(named.match, in_config)], set[str]()
    while waiting:
        module = waiting.pop()
        file = _file(module)
        if file and module not in reached and _counts(module):
            reached.add(module)
            waiting += [each.module for each in _meaning(file).imports]
            waiting += filter(named.match, _meaning(file).named)
    return frozenset(reached)


def _counts(module: str) -> bool:
    return module.split(".")[0] not in _NO_NUMBERS or _NUMBERS_IN.fullmatch(module) is not None


class _Import(NamedTuple):
    """A name of this package that a file uses: its module, its name there (if any), and its name here."""

    module: str
    name: str
    here: str


class _Meaning(NamedTuple):
    """What a file does, what it imports from this package, and the modules that it names as text."""

    text: str
    imports: set[_Import]
    named: set[str]


def _part(module: str) -> str:
    """Return the hash of a module's code and of the code that each imported name stands for."""
    file = _file(module)
    text, imports, _ = _meaning(file)
    if not text and not imports:
        return ""
    origins = {
        "\0".join((name, here, _hash(_meaning(_file(of)).text.encode()) if _counts(of) else ""))
        for of, name, here in imports
    }
    return _hash("\0".join([text, *sorted(origins)]).encode())


def _hash_of_all() -> str:
    return _hash(b"\0".join(part for name, source in _SOURCE.items() for part in (name.encode(), source)))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file(module: str) -> str:
    """Return the file of a module, or nothing if there is none of this name."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in _SOURCE), "")


@cache
def _meaning(file: str) -> _Meaning:
    """Return what a source file does: its code without comments, docstrings and own imports."""
    tree = ast.parse(_SOURCE[file])
    imports, named = set[_Import](), set[str]()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        for _, part in ast.iter_fields(node):
            if isinstance(part, list):
                part[:] = [each for each in part if not _changes_nothing(each, imports)]
                waiting += [each for each in part if isinstance(each, ast.AST)]
            elif isinstance(part, ast.AST):
                waiting.append(part)
            elif isinstance(part, str) and (match := _TEXT.fullmatch(part)):
                named.add(match[1][1:])
    return _Meaning(ast.unparse(tree), imports, named)


def _changes_nothing(node: ast.AST, imports: set[_Import]) -> bool:
    """Is this part of a list to be left out? Imports from this package are, once they are noted."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        own = set(_own_imports(node))
        imports |= own
        return bool(own)
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    if isinstance(node, ast.Expr):  # a docstring
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return isinstance(node, ast.keyword) and node.arg == "description"  # of a key, for the manual


def _own_imports(node: ast.Import | ast.ImportFrom) -> Iterator[_Import]:
    """Yield what a statement imports from this package."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            package, _, module = alias.name.partition(".")
            if package == PACKAGE.name:
                yield _Import(module, "", alias.asname or alias.name)
        return
    package, _, module = (node.module or "").partition(".")
    if package == PACKAGE.name:
        for alias in node.names:
            inner = f"{module}.{alias.name}".lstrip(".")
            is_module = bool(_file(inner))
            of, name = (inner, "") if is_module else (module or "__init__", alias.name)
            yield _Import(of, name, alias.asname or alias.name)
