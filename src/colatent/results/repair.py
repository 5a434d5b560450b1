"""The shell command that redoes damaged results, with the config that the record goes with."""

import os
import shlex
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from colatent.errors import InputError
from colatent.results.manifest import config_of
from colatent.store.fingerprint import PACKAGE
from colatent.store.layout import CONFIG, OUTPUTS, RECORD, what_lies_at

_ORDER = {rule: place for place, rule in enumerate(dict.fromkeys(output.rule for output in OUTPUTS))}


def repair_command(results: Path, record: dict[str, Any], targets: Iterable[Path]) -> str:
    """Return a command line that makes outputs again, and then the record.

    Snakemake is run in the folder in which it made the results, or where that was moved to.

    Args:
        results: the folder of results.
        record: of these results.
        targets: outputs below ``results`` that Snakemake knows.

    Raises:
        InputError: the results lie elsewhere now, or have lost their config.
    """
    named = Path(record["config"]["results"])
    folder = _working_folder(results, Path(record["volatile"]["folder"]), named)
    if config_of(results) != record["config"]:
        raise InputError(
            f"{results / CONFIG}: the config of these results is missing, or not as it was written; run the "
            "workflow with your own, and with --force for what is damaged and for the record"
        )
    project, options = PACKAGE.parents[1], ["--configfile", str(named / CONFIG)]
    if not _same(folder, project):
        options = ["--snakefile", str(project / "Snakefile"), *options]
    steps = _steps({target.relative_to(results).as_posix() for target in targets})
    commands = [] if _same(folder, Path()) else [["cd", str(folder)]]
    for step in steps:
        forced = [str(named / target) for target in step]
        commands.append(["snakemake", "--cores", "2", "--force", *forced, *options])
    return " && ".join(map(shlex.join, commands))


def _steps(targets: set[str]) -> list[list[str]]:
    """Return the targets in the order in which they are made, those of one rule together, the record last.

    One Snakemake each: between two forced targets, it redoes all that leads from one to the other, though the
    first comes out as it was.
    """

    def place(target: str) -> int:
        found = what_lies_at(target.removesuffix("/complete.json"))
        return _ORDER[found[0].rule] if found else len(_ORDER)

    ordered = sorted(targets - {RECORD}, key=lambda target: (place(target), target))
    return [*(list(step) for _, step in groupby(ordered, key=place)), [RECORD]]


def _working_folder(results: Path, folder: Path, named: Path) -> Path:
    """Return the folder from which the results have the name in the config: that of the run, or moved."""
    here = Path(os.path.abspath(results))
    moved = Path(*here.parts[: -len(named.parts)])
    for candidate in (folder, moved):
        if _same(candidate / named, results):
            return candidate
    raise InputError(
        f"{results}: the results do not lie where they were made ({folder / named}); move or link them there "
        "to make again what is damaged"
    )


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
