"""Where a result comes from: settings, inputs, code, versions, machine."""

import ast
import hashlib
import os
import platform
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from colatent.errors import InputError

_STARTED = time.monotonic()
PACKAGE = Path(__file__).parents[1]
CODE = ("Snakefile", "workflow", "src/colatent")  # what of the project runs
RESULT_PACKAGES = (
    "colatent", "numpy", "scipy", "torch", "scikit-learn", "xarray", "zarr", "safetensors", "pynwb",
)  # fmt: skip
MODELS = (
    "models/registry.py",
    "models/gp.py",
    "models/gpfa",
    "models/mmgpvae",
    "models/baselines",
    "models/readout/latents.py",
    "models/readout/channel.py",
    "models/readout/ridge.py",
    "data/trials.py",
    "data/scaling.py",
)
# what each stage's result depends on, so that an edit of the code reruns these stages and no others
STAGE_CODE = {
    "simulate": ("simulate",),
    "ingest": (
        "ingest/__init__.py",
        "ingest/alignment.py",
        "ingest/check.py",
        "ingest/cluster.py",
        "ingest/contents.py",
        "ingest/counts.py",
        "ingest/findings.py",
        "ingest/groups.py",
        "ingest/modalities",
        "ingest/nwb",
        "ingest/session.py",
        "ingest/signals",
        "ingest/suggestion.py",
        "data/trials.py",
    ),
    "split": ("data/splits.py", "data/trials.py"),
    "fit": ("models/fitting.py", "store/session.py", "data/splits.py", *MODELS),
    "score": (
        "scoring",
        "analyses",
        "models/readout/decoding.py",
        "data/metrics.py",
        "data/subsets.py",
        "data/predictive.py",
        "data/splits.py",
        "store/session.py",
        *MODELS,
    ),
    "report": ("report",),
    "export": ("results/export.py", "simulate/nwb.py"),
}

# as it was when this process started, and imported it: it may be edited while a job runs
_SOURCE = {
    file: file.read_bytes()
    for file in sorted(PACKAGE.rglob("*"))
    if file.suffix in (".py", ".j2", ".css", ".js") and file.is_file()
}
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@cache
def code_fingerprint(stage: str) -> str:
    """Return a hash of the code that a stage's results depend on.

    Comments, docstrings and layout do not count, nor do the names of files and the lines that import from
    this package: code that was only moved has the same fingerprint. The code is that with which this
    process started.
    """
    meanings = (_meaning(file, source) for file, source in _source_of(stage))
    parts = sorted(hashlib.sha256(meaning).hexdigest() for meaning in meanings if meaning != _NOTHING)
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16]


@cache  # asked once, when it was just imported: later edits are not in what this process does
def require_code_as_started(stage: str, imported: str) -> None:
    """Refuse to go on if the code of a stage is no longer that with which this process started.

    For what is imported late: a job may have waited long for a lock, or for a GPU.

    Args:
        imported: the name of what was.

    Raises:
        InputError: a file of it was edited, in more than comments and layout, or removed.
    """
    for file, source in _source_of(stage):
        with suppress(OSError, SyntaxError):
            now = file.read_bytes()
            if now == source or _meaning(file, now) == _meaning(file, source):
                continue
        raise InputError(
            f"{file}: this code was edited after this job started, and before {imported} was loaded; run "
            "the same command again"
        )


def _source_of(stage: str) -> Iterator[tuple[Path, bytes]]:
    """Yield the files that a stage's results depend on, as they were when this process started."""
    for entry in STAGE_CODE[stage]:
        for file, source in _SOURCE.items():
            if file.is_relative_to(PACKAGE / entry):
                yield file, source


@cache  # stages share files
def _meaning(file: Path, source: bytes) -> bytes:
    """What a source file does: of Python its syntax tree without docstrings, of others everything."""
    if file.suffix != ".py":
        return source
    parts: list[str] = []
    _collect(ast.parse(source), parts)
    return "\0".join(parts).encode()


def _collect(node: Any, parts: list[str]) -> None:
    """Add what a syntax tree says, without docstrings and the empty fields that differ between Pythons."""
    if isinstance(node, ast.AST):
        parts.append(type(node).__name__)
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and value and isinstance(node, _DOCUMENTED) and _is_docstring(value[0]):
                value = value[1:]
            if isinstance(value, list):
                value = [item for item in value if not _is_own_import(item)]
            if value is not None and value != []:
                parts.append(name)
                _collect(value, parts)
        parts.append(")")
    elif isinstance(node, list):
        for item in node:
            _collect(item, parts)
        parts.append("]")
    else:
        parts.append(repr(node))


_NOTHING = b"Module\0)"  # the meaning of a file that holds at most a docstring and own imports


def _is_own_import(node: Any) -> bool:
    """Does a statement import from this package? It says where code lies, not what it does."""
    if isinstance(node, ast.ImportFrom):
        return node.level > 0 or (node.module or "").split(".")[0] == PACKAGE.name
    return isinstance(node, ast.Import) and all(a.name.split(".")[0] == PACKAGE.name for a in node.names)


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(getattr(statement.value, "value", None), str)


def provenance(stage: str, settings: dict[str, Any], inputs: dict[str, Any], device: str = "cpu") -> dict:
    """Return the record that every store carries; what varies between runs lies under `volatile`."""
    return {
        "stage": stage,
        "settings": settings,
        "inputs": inputs,
        "code": code_fingerprint(stage),
        "versions": {name: package_version(name) for name in RESULT_PACKAGES},
        "device": device,
        "volatile": {
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "host": platform.node(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "git": git_revision(),
            **_cost(),
        },
    }


def _cost() -> dict[str, float]:
    """What this process has taken until now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall_s": round(_age(), 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_memory_mib": round(_peak_memory(used.ru_maxrss), 1),
    }


def _age() -> float:
    """Seconds since this process was started; where there is no /proc, since this module was imported."""
    imported = time.monotonic() - _STARTED
    try:
        after_name = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return max(imported, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, ValueError, IndexError):
        return imported


def _peak_memory(of_usage: int) -> float:
    """Most memory held at once (MiB); ``ru_maxrss`` is Snakemake's, which became this process, if larger."""
    try:
        status = Path("/proc/self/status").read_bytes()
    except OSError:
        status = b""
    own = re.search(rb"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(own[1]) / 2**10 if own else of_usage / (2**20 if sys.platform == "darwin" else 2**10)


@cache
def git_revision() -> str:
    """Return the commit of the working tree that tracks this package, or `unknown`.

    It ends in ``-dirty`` where a tracked file was edited, or where there is code that git does not track.
    """
    new = git_files("--others", "--exclude-standard", "--", *CODE)
    described = _git(PACKAGE, "describe", "--always", "--dirty")
    if new is None or described is None:
        return "unknown"
    commit = described.decode().strip()
    return f"{commit}-dirty" if new and not commit.endswith("-dirty") else commit


def git_files(*arguments: str) -> list[str] | None:
    """Return what ``git ls-files`` says of the project, None where git does not track this package.

    The working tree around it may be of another project, in which an archive of this one was unpacked.
    """
    if _git(PACKAGE, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    listed = _git(PACKAGE.parents[1], "ls-files", "-z", *arguments)
    return None if listed is None else [os.fsdecode(name) for name in listed.split(b"\0") if name]


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return what git prints, None where it fails or is not installed."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def package_version(package: str) -> str:
    """Return the installed version of a package, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
