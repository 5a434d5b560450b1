"""Where a result comes from: settings, inputs, code, versions, machine."""

import os
import platform
import re
import resource
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from colatent.store.fingerprint import PACKAGE, code_fingerprint

_STARTED = time.monotonic()
CODE = ("Snakefile", "workflow", "src/colatent")  # what of the project runs
RESULT_PACKAGES = (
    "colatent", "numpy", "scipy", "torch", "scikit-learn", "xarray", "zarr", "safetensors", "pynwb",
)  # fmt: skip


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
    cost = {
        "wall_s": _age(),
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_memory_mib": _peak_memory(used.ru_maxrss),
    }
    return {name: round(value, 2) for name, value in cost.items()}


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
