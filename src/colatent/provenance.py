"""Where a result comes from: settings, inputs, code, versions, machine."""

import ast
import hashlib
import os
import platform
import resource
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_STARTED = time.monotonic()
PACKAGE = Path(__file__).parent
RESULT_PACKAGES = (
    "colatent", "numpy", "scipy", "torch", "scikit-learn", "xarray", "zarr", "safetensors", "pynwb",
)  # fmt: skip
MODELS = (
    "models",
    "trials.py",
    "standardize.py",
    "gp.py",
    "posterior.py",
    "inference.py",
    "likelihoods.py",
    "layers.py",
    "encoders.py",
    "decoders.py",
    "networks.py",
    "training.py",
)
# what each stage's result depends on, so that an edit of the code reruns these stages and no others
STAGE_CODE = {
    "simulate": ("simulate",),
    "ingest": ("ingest", "session.py", "trials.py"),
    "split": ("splits.py", "trials.py"),
    "fit": ("fitting.py", "session.py", "splits.py", *MODELS),
    "score": ("scoring", "predictive.py", "splits.py", "session.py", *MODELS),
    "report": ("report",),
    "export": ("export.py", "simulate/nwb.py"),
}


@cache
def code_fingerprint(stage: str) -> str:
    """Return a hash of the code that a stage's results depend on, comments and layout left out."""
    digest = hashlib.sha256()
    for entry in STAGE_CODE[stage]:
        path = PACKAGE / entry
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".j2", ".css", ".js"):
                digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + _meaning(file))
    return digest.hexdigest()[:16]


@cache  # stages share files
def _meaning(file: Path) -> bytes:
    """What a source file does: of Python its syntax tree without docstrings, of others everything."""
    if file.suffix != ".py":
        return file.read_bytes()
    tree = ast.parse(file.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):  # noqa: SIM102
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:]
    return repr(_plain(tree)).encode()


def _plain(node: Any) -> Any:
    """A syntax tree as tuples, without the empty fields that differ between versions of Python."""
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if value not in (None, []))
        return (type(node).__name__, *((name, _plain(value)) for name, value in fields))
    return [_plain(item) for item in node] if isinstance(node, list) else node


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
    peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    return {
        "wall_s": round(time.monotonic() - _STARTED, 2),
        "cpu_s": round(used.ru_utime + used.ru_stime, 2),
        "peak_memory_mib": round(peak, 1),
    }


@cache
def git_revision() -> str:
    """Return the commit of the working tree that holds this package, or `unknown`."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def package_version(package: str) -> str:
    """Return the installed version of a package, or `not installed`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
