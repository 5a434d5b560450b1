"""Pack what made a result, without the data: code, environment, config, and the record of the results."""

import io
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from colatent.config_file import load_config
from colatent.errors import InputError
from colatent.provenance import PACKAGE
from colatent.record import read_record
from colatent.session_table import load_sessions
from colatent.tree import RECORD

PARTS = (
    *("Snakefile", "workflow", "envs", "config", "src", "tests"),
    *("README.md", "pyproject.toml", "Makefile", "LICENSE"),
)
_NOT_PACKED = ("__pycache__", ".simulated.", ".nwb")


def write_archive(config: str | Path, output: str | Path) -> list[str]:
    """Write a tar file (gzip) from which results can be made again where the recordings are.

    Everything lies in one folder: the project, and in ``archived/`` the config, its table of sessions
    and, where the workflow has run to its end, the record of the results, which has the checksums of
    the recordings and of all outputs.

    Args:
        config: the config file of the analysis.
        output: the tar file, such as ``analysis.tar.gz``; one that is there is not overwritten.

    Returns:
        Paths inside the archive.

    Raises:
        InputError: no sound config, no project around the package, or a file at ``output``.
    """
    config, output, project = Path(config), Path(output), PACKAGE.parents[1]
    settings = load_config(config)
    if not (project / "Snakefile").is_file():
        raise InputError(
            f"{project}: there is no Snakefile; install colatent from a clone, with `make setup`"
        )
    if output.exists():
        raise InputError(f"{output}: there is such a file already; choose another name")
    files = {path.relative_to(project).as_posix(): path for part in PARTS for path in _below(project / part)}
    table = config.parent / settings.sessions
    load_sessions(table)
    archived = {"config.yaml": config, "sessions.tsv": table}
    # results are relative to where Snakemake ran: here, or at the root of the project
    if record := _record_of(settings.model_dump(mode="json"), Path(settings.results), project):
        archived[RECORD] = record
    contents = {name: path.read_bytes() for name, path in files.items()}
    contents |= {f"archived/{name}": path.read_bytes() for name, path in archived.items()}
    if settings.sessions != "sessions.tsv":  # the table lies beside the config in the archive
        beside = yaml.safe_load(config.read_text()) | {"sessions": "sessions.tsv"}
        contents["archived/config.yaml"] = yaml.safe_dump(beside, sort_keys=False).encode()
    top = output.name.lstrip(".").split(".")[0] or "analysis"
    partial = output.with_name(f"{output.name}.partial")
    try:
        with tarfile.open(partial, "w:gz") as tar:
            for name, content in sorted(contents.items()):
                entry = tarfile.TarInfo(f"{top}/{name}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        partial.rename(output)
    except OSError as error:
        raise InputError(
            f"{output}: it cannot be written ({error.strerror}); choose another place"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return sorted(contents)


def _record_of(settings: dict[str, Any], results: Path, project: Path) -> Path | None:
    """Return the record of these settings' results, None where the workflow has not run to its end.

    Raises:
        InputError: the record is of other settings, or damaged.
    """
    folder = next((f for f in (results, project / results) if (f / RECORD).is_file()), None)
    if folder is None:
        return None
    if read_record(folder)["config"] != settings:
        raise InputError(
            f"{folder / RECORD}: the record of another config than is to be packed; "
            "run the workflow with this config first"
        )
    return folder / RECORD


def _below(path: Path) -> list[Path]:
    files = [path] if path.is_file() else [p for p in sorted(path.rglob("*")) if p.is_file()]
    return [p for p in files if not any(part in str(p) for part in _NOT_PACKED)]
