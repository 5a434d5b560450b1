"""Settings and code of each rule, as small files beside the results that Snakemake tracks like any input.

A file is written when its content is first wanted, and then left untouched: what is older than it was made
otherwise, and is redone. So the memory of what made the results travels with them.
"""

import atexit
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from colatent.errors import InputError
from colatent.store.atomic import write_text
from colatent.store.fingerprint import code_fingerprint, fingerprints_for_jobs
from colatent.store.layout import MADE_WITH

_RUN = "COLATENT_RUN"  # set by the first process of a run, for its jobs
_HASH = 12


class Run(NamedTuple):
    """A run of the workflow.

    Attributes:
        process: number of the process that the user started.
        command: with which it was.
        code: stage -> fingerprint of its code, as it was then.
    """

    process: int
    command: str
    code: dict[str, str]

    @property
    def is_mine(self) -> bool:
        """Is this the process that the user started, not one of its jobs?"""
        return self.process == os.getpid()


def current_run() -> Run:
    """Return the run that this process belongs to; the first process that asks begins one."""
    if _RUN not in os.environ:
        command = shlex.join(["snakemake", *sys.argv[1:]])
        run = Run(os.getpid(), command, fingerprints_for_jobs())
        os.environ[_RUN] = json.dumps(run)
    return Run(*json.loads(os.environ[_RUN]))


def write_made_with(
    results: str | Path, made_with: Mapping[str, tuple[str, dict[str, Any]]], code: Mapping[str, str]
) -> dict[str, str]:
    """Return the file of each name, written where it is not there yet.

    Args:
        made_with: name -> stage and settings.
        code: stage -> fingerprint.

    Raises:
        InputError: it cannot be written.
    """
    return {
        name: str(_written(Path(results), name, {"stage": stage, "settings": settings, "code": code[stage]}))
        for name, (stage, settings) in made_with.items()
    }


def _written(results: Path, name: str, content: dict[str, Any]) -> Path:
    file = results / MADE_WITH / f"{name}.{_digest(content)}.json"
    if _content(file) != content:
        # one that comes back after others is another file: Snakemake also goes by checksums
        text = json.dumps(content | {"wanted_since": time.time_ns()}, indent=1)
        write_text(file, text, "the settings of these results")
    return file


def _digest(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content).encode()).hexdigest()[:_HASH]


def _content(file: Path) -> dict[str, Any] | None:
    """Return what a file says of its results; None if it is not there, or not as it was written."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        del said["wanted_since"]
        return dict(said) if file.name.endswith(f".{_digest(said)}.json") else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def read_made_with(file: str | Path) -> dict[str, Any]:
    """Return the settings of the job at hand, which makes its output with them from now on.

    Files of the same rule with other settings or code go, now and when this process ends: they must not vouch
    for what this job makes, nor may one that a dry run or a refused run leaves meanwhile.

    Raises:
        InputError: the file is damaged, or the code was edited since the run started.
    """
    file = Path(file)
    said = _content(file)
    if said is None:
        raise InputError(f"{file}: the settings of these results are damaged; run the same command again")
    if said["code"] != code_fingerprint(said["stage"]):
        raise InputError(
            f"the code of the stage {said['stage']} was edited after this run started; run the same "
            "command again"
        )
    _remove_others(file)
    atexit.register(_remove_others, file)
    return dict(said["settings"])


def _remove_others(file: Path) -> None:
    name = file.name[: -len(".json") - _HASH - 1]
    for other in file.parent.glob(f"{name}.{'?' * _HASH}.json"):
        if other.name != file.name:
            other.unlink(missing_ok=True)
