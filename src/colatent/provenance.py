"""Where a result comes from: settings, inputs, code, versions, machine."""

import hashlib
import os
import platform
import subprocess
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
RESULT_PACKAGES = ("colatent", "numpy", "scipy", "torch", "scikit-learn", "xarray", "zarr", "pynwb")
MODELS = (
    "models",
    "trials.py",
    "standardize.py",
    "gp.py",
    "posterior.py",
    "likelihoods.py",
    "networks.py",
    "training.py",
)
# what each stage's result depends on, so that an edit of the code reruns these stages and no others
STAGE_CODE = {
    "simulate": ("simulate",),
    "ingest": ("ingest", "session.py"),
    "split": ("splits.py",),
    "fit": ("fitting.py", "session.py", "splits.py", *MODELS),
    "score": ("scoring", "predictive.py", "splits.py", "session.py", *MODELS),
    "report": ("report",),
}


@cache
def code_fingerprint(stage: str) -> str:
    """Return a hash of the source files that a stage's results depend on."""
    digest = hashlib.sha256()
    for entry in STAGE_CODE[stage]:
        path = PACKAGE / entry
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.suffix in (".py", ".j2", ".css"):
                digest.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def provenance(stage: str, settings: dict[str, Any], inputs: dict[str, Any], device: str = "cpu") -> dict:
    """Return the record that every store carries; what varies between runs lies under `volatile`."""
    return {
        "stage": stage,
        "settings": settings,
        "inputs": inputs,
        "code": code_fingerprint(stage),
        "versions": {name: _version(name) for name in RESULT_PACKAGES},
        "device": device,
        "volatile": {
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "host": platform.node(),
            "platform": platform.platform(),
            "cores": os.cpu_count(),
            "git": git_revision(),
        },
    }


@cache
def git_revision() -> str:
    """Return the commit of the working tree that holds this package, or `unknown`."""
    command = ["git", "-C", str(PACKAGE), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
