"""How damaged results are made anew: the command for a shell, told from the record of the run."""

import os
import re
import shlex
from collections.abc import Iterable
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

from colatent.config.file import load_config
from colatent.errors import InputError
from colatent.store.tree import RECORD

# One Snakemake each: between two forced targets, it redoes all that leads from one to the other, though the
# first comes out as it was.
_STEPS = (
    "[^/]+/session/.*",
    "[^/]+/split/.*",
    "[^/]+/fit/.*",
    "[^/]+/score/.*",
    "[^/]+/latents/.*",
    "scores.csv",
)


def repair_command(results: Path, record: dict[str, Any], targets: Iterable[Path]) -> str:
    """Return a command line that makes outputs anew, and then the record.

    Snakemake is run as it was for the record: in the same folder, with the same Snakefile, config files
    and ``--config``, whatever the folder this is asked from and the name it gives to the results.

    Args:
        results: the folder of results.
        record: of these results.
        targets: outputs below ``results`` that Snakemake knows.

    Raises:
        InputError: the record does not say how Snakemake was run, or results or config lie elsewhere now.
    """
    run, named = record["volatile"], Path(record["config"]["results"])
    steps = _steps({target.relative_to(results).as_posix() for target in targets})
    known = [[str(named / target) for target in step] for step in steps]
    if run.get("folder") is None or run.get("options") is None:
        raise InputError(
            f"{results / RECORD}: does not say how Snakemake was run, so no command can be given; "
            f"run it as for these results, with --force {shlex.join(known[0])}, and ask again"
        )
    folder = _working_folder(results, Path(run["folder"]), named)
    if not (folder / run["config_file"]).is_file():
        raise InputError(
            f"{folder / run['config_file']}: the config of these results is not there any more; "
            "put it back to make anew what is damaged"
        )
    commands = [["snakemake", "--cores", "2", "--force", *step, *run["options"]] for step in known]
    if os.path.realpath(folder) != os.path.realpath("."):
        commands.insert(0, ["cd", str(folder)])
    return " && ".join(map(shlex.join, commands))


def was_edited(results: Path, record: dict[str, Any]) -> bool:
    """Is the config another one than was recorded? Unknown, and so not told, if it is of several parts."""
    run = record["volatile"]
    folder = _working_folder(results, Path(run["folder"]), Path(record["config"]["results"]))
    if "--config" in run["options"] or len(option_values("--configfile", run["options"])) > 1:
        return False
    try:
        config = load_config(folder / run["config_file"])
    except InputError:
        return False
    return bool(config.model_dump(mode="json") != record["config"])


def option_values(option: str, options: list[str]) -> list[str]:
    """Return what follows an option of a command line, up to the next option."""
    following = options[options.index(option) + 1 :] if option in options else []
    return list(takewhile(lambda value: not value.startswith("--"), following))


def _steps(targets: set[str]) -> list[list[str]]:
    """Return the targets in the order in which they are made, those that are made together in one list."""

    def place(target: str) -> int:
        return next((i for i, step in enumerate(_STEPS) if re.fullmatch(step, target)), len(_STEPS))

    ordered = sorted(targets - {RECORD}, key=lambda target: (place(target), target))
    return [*(list(step) for _, step in groupby(ordered, key=place)), [RECORD]]


def _working_folder(results: Path, folder: Path, named: Path) -> Path:
    """Return the folder from which the results have the name in the config: that of the run, or moved."""
    here, depth = Path(os.path.abspath(results)), len(named.parts)
    moved = Path(*here.parts[:-depth]) if here.parts[-depth:] == named.parts else folder
    for candidate in (folder, moved):
        if os.path.realpath(candidate / named) == os.path.realpath(results):
            return candidate
    raise InputError(
        f"{results}: the results do not lie where they were made ({folder / named}); move or link them there "
        "to make anew what is damaged"
    )
