"""A fingerprint of the code that a stage's results depend on: an edit reruns what it changes, and no more.

A stage's code is what its entry modules import, directly or not, also inside functions, and what the packages
around them execute. Classes that a record names as text (``"module:Class"``) count where the stage looks them
up. Comments, docstrings, layout and the names of files do not count; where an imported name comes from counts
through the code there. Files are taken as they were when this process started: they may be edited while a job
runs.

What each file means takes a second to find out. It is kept beside the bytecode, under the hash of the file's
content, so that it is never taken of a file that was edited.
"""

import ast
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from colatent.store.atomic import atomically

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
_KEPT = PACKAGE / f"__pycache__/meanings.{sys.implementation.cache_tag}.json"
_READER = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode())
_OF_RUN = (
    "COLATENT_CODE"  # for the jobs of a run: hash of all files and fingerprint of each stage at its start
)


def fingerprints_for_jobs() -> dict[str, str]:
    """Return all fingerprints, and save jobs that this process starts from computing them again."""
    code = {stage: code_fingerprint(stage) for stage in STAGES}
    os.environ[_OF_RUN] = json.dumps([_hash_of_all(), code])
    _keep_meanings()
    return code


@cache
def code_fingerprint(stage: str) -> str:
    """Return the fingerprint of a stage's code."""
    files, code = json.loads(os.environ.get(_OF_RUN, "[0, {}]"))
    if files == _hash_of_all():
        return str(code[stage])
    modules = stage_modules(stage)
    parts = [_part(module) for module in modules] + [_meaning(file).code for file in _around(modules)]
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
            waiting += [each.module for each in _imports(file)]
            waiting += filter(named.match, _meaning(file).named)
    return frozenset(reached)


def _around(modules: frozenset[str]) -> set[str]:
    """Return the files of the packages that modules lie in, which are executed when these are imported.

    What such a file imports counts only where a stage reaches it: names for users are of no stage.
    """
    parents = (PurePosixPath(module.replace(".", "/")).parents for module in modules)
    packages = {package for each in parents for package in each if _counts(".".join(package.parts))}
    files = {(package / "__init__.py").as_posix() for package in packages}
    reached = {_file(module) for module in modules}
    return {file for file in files - reached if file in _SOURCE and _meaning(file).code != _hash(b"")}


def _counts(module: str) -> bool:
    return module.split(".")[0] not in _NO_NUMBERS or _NUMBERS_IN.fullmatch(module) is not None


class _Import(NamedTuple):
    """A name of this package that a file uses: its module, its name there (if any), and its name here."""

    module: str
    name: str
    here: str


class _Meaning(NamedTuple):
    """What a file does (a hash), what it imports from this package, and the modules that it names as text."""

    code: str
    imports: list[_Import]
    named: list[str]


def _part(module: str) -> str:
    """Return the hash of a module's code and of the code that each imported name stands for."""
    file = _file(module)
    code, imports = _meaning(file).code, _imports(file)
    if code == _hash(b"") and not imports:
        return ""
    origins = {
        "\0".join((name, here, _meaning(_file(of)).code if _counts(of) else "")) for of, name, here in imports
    }
    return _hash("\0".join([code, *sorted(origins)]).encode())


def _hash_of_all() -> str:
    return _hash(b"\0".join(part for name, source in _SOURCE.items() for part in (name.encode(), source)))


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file(module: str) -> str:
    """Return the file of a module, or nothing if there is none of this name."""
    path = module.replace(".", "/")
    return next((name for name in (f"{path}.py", f"{path}/__init__.py") if name in _SOURCE), "")


def _imports(file: str) -> set[_Import]:
    """Return what a file imports from this package, from the modules where it is."""
    return {_of_module(each) for each in _meaning(file).imports}


def _of_module(said: _Import) -> _Import:
    """Return an import of a module as one; ``from colatent import module`` looks like that of a name."""
    inner = f"{said.module}.{said.name}".strip(".")
    if said.name and _file(inner):
        return _Import(inner, "", said.here)
    return said._replace(module=said.module or "__init__") if said.name else said


@cache
def _meaning(file: str) -> _Meaning:
    """Return what a source file does: its code without comments, docstrings and own imports."""
    code, imports, named = _kept_meanings().get(_key(_SOURCE[file])) or _read(file)
    return _Meaning(code, [_Import(*each) for each in imports], named)


def _key(source: bytes) -> str:
    key = _READER.copy()
    key.update(source)
    return key.hexdigest()


@cache
def _kept_meanings() -> dict[str, _Meaning]:
    """Return what earlier processes found, by the hash of a source and of who reads it."""
    with suppress(OSError, ValueError):
        return dict(json.loads(_KEPT.read_bytes()))
    return {}


def _keep_meanings() -> None:
    """Keep what this process found for later ones, unless Python is told to leave nothing of the kind."""
    code = {_key(source): name for name, source in _SOURCE.items() if name.endswith(".py")}
    if not sys.dont_write_bytecode and code.keys() != _kept_meanings().keys():
        with suppress(OSError, SyntaxError), atomically(_KEPT) as made:
            made.write_text(json.dumps({key: _meaning(name) for key, name in code.items()}))


def _read(file: str) -> _Meaning:
    tree = ast.parse(_SOURCE[file], str(PACKAGE / file))
    imports, named = set[_Import](), set[str]()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Field":
            # of a key, for the manual
            node.keywords = [each for each in node.keywords if each.arg != "description"]
        for _, part in ast.iter_fields(node):
            if isinstance(part, list):
                part[:] = [each for each in part if not _changes_nothing(each, imports)]
                waiting += [each for each in part if isinstance(each, ast.AST)]
            elif isinstance(part, ast.AST):
                waiting.append(part)
            elif isinstance(part, str) and (match := _TEXT.fullmatch(part)):
                named.add(match[1][1:])
    code = ast.unparse(tree)
    return _Meaning(_hash(code.encode()), sorted(imports), sorted(named))


def _changes_nothing(node: ast.AST, imports: set[_Import]) -> bool:
    """Is this part of a list to be left out? Imports from this package are, once they are noted."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        own = set(_own_imports(node))
        imports |= own
        return bool(own)
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.dump(node.test)
    # a docstring
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


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
            yield _Import(module, alias.name, alias.asname or alias.name)
