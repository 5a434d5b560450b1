"""How damaged results are made anew: the command for a shell, told from the record of the run."""

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from colatent.errors import InputError
from colatent.tree import RECORD


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
    known = sorted({str(named / target.relative_to(results)) for target in targets})
    if run.get("folder") is None or run.get("options") is None:
        raise InputError(
            f"{results / RECORD}: does not say how Snakemake was run, so no command can be given; "
            f"run it as for these results, once with --force {shlex.join(known)}, then as ever"
        )
    folder = _working_folder(results, Path(run["folder"]), named)
    if not (folder / run["config_file"]).is_file():
        raise InputError(
            f"{folder / run['config_file']}: the config of these results is not there any more; "
            "put it back to make anew what is damaged"
        )
    # the record by itself, afterwards: as one target among others it would draw all between them along
    steps = dict.fromkeys([tuple(known), (str(named / RECORD),)])
    commands = [["snakemake", "--cores", "2", "--force", *step, *run["options"]] for step in steps]
    if os.path.realpath(folder) != os.path.realpath("."):
        commands.insert(0, ["cd", str(folder)])
    return " && ".join(map(shlex.join, commands))


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
