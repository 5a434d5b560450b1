"""Pack what made a result, without the data: code, environment, config, and the record of the results."""

import io
import re
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from colatent.config import Config
from colatent.config.file import load_config
from colatent.config.location import shown
from colatent.config.session_table import load_sessions
from colatent.errors import InputError
from colatent.results.manifest import read_record
from colatent.store.atomic import atomically, writing
from colatent.store.fingerprint import PACKAGE, STAGES, code_fingerprint
from colatent.store.layout import RECORD
from colatent.store.provenance import CODE, git_files

PARTS = (
    *("Snakefile", "workflow", "envs", "config", "src", "tests"),
    *("README.md", "pyproject.toml", "Makefile", "LICENSE"),
)
_NOT_PACKED = ("__pycache__", ".simulated.", ".nwb")


class Archive(NamedTuple):
    """What was packed.

    Attributes:
        names: paths inside the archive.
        warnings: a sentence on each part that is not as it was when the results were made.
    """

    names: list[str]
    warnings: list[str]


def write_archive(config: str | Path, output: str | Path) -> Archive:
    """Write a tar file (gzip) from which results can be made again where the recordings are.

    Everything lies in one folder: the project, and in ``archived/`` the config, its table of sessions
    and, where the workflow has run to its end, the record of the results, which has the checksums of
    the recordings and of all outputs. Recordings stay out, and keys in their URLs.

    Args:
        config: the config file of the analysis; where its results were made with another, that one is packed.
        output: the tar file, such as ``analysis.tar.gz``; one that is there is not overwritten.

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
    table, archived, warnings = _analysis(config, settings, project)
    contents = _project_files(project, table) | {f"archived/{n}": content for n, content in archived.items()}
    if new := git_files("--others", "--exclude-standard", "--", *CODE):
        names = ", ".join(new)
        warnings.append(f"not packed, as git does not track it: {names}; `git add` it, and pack again")
    top = output.name.lstrip(".").split(".")[0] or "analysis"
    with writing(output, "the archive"), atomically(output) as made, tarfile.open(made, "w:gz") as tar:
        for name, content in sorted(contents.items()):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return Archive(sorted(contents), warnings)


def _analysis(config: Path, settings: Config, project: Path) -> tuple[Path, dict[str, bytes], list[str]]:
    """Return where the table of sessions lies, what belongs into ``archived/``, and warnings."""
    content, archived, warnings = yaml.safe_load(config.read_bytes()), {}, []
    # results, and the table, are relative to where Snakemake ran: here, or at the root of the project
    folders = (Path(settings.results), project / settings.results)
    if folder := next((f for f in folders if (f / RECORD).is_file()), None):
        record, archived[RECORD] = read_record(folder), (folder / RECORD).read_bytes()
        warnings += _other_code(record)
        was, now = record["config"], settings.model_dump(mode="json")
        if other := sorted(key for key in was | now if was.get(key) != now.get(key)):
            content = was
            warnings.append(
                f"archived/config.yaml is the config that made the results in {folder}, not {config}, which "
                f"has other {', '.join(other)}; run the workflow with it first to pack that one"
            )
    else:
        warnings.append(f"without a record: {settings.results} has none, the workflow has not ended there")
    tables = (Path(content["sessions"]), project / content["sessions"])
    table = next(filter(Path.is_file, tables), tables[0])
    load_sessions(table)
    packed = yaml.safe_dump(content | {"sessions": "archived/sessions.tsv"}, sort_keys=False).encode()
    return table, archived | {"config.yaml": packed, "sessions.tsv": _without_keys(table)}, warnings


def _project_files(project: Path, table: Path) -> dict[str, bytes]:
    """Return the project's files without recordings: those that git tracks, or all that are not hidden."""
    recordings = {file.resolve() for session in load_sessions(table).values() for file in session.files}
    names = git_files("--", *PARTS)
    if names is None:
        files = (file for part in PARTS for file in (project / part, *(project / part).rglob("*")))
        names = [file.relative_to(project).as_posix() for file in files]
        names = [name for name in names if not re.search(r"(^|/)\.", name)]
    contents = {}
    for name in names:
        file = project / name
        is_code = file.is_file() and not any(part in name.lower() for part in _NOT_PACKED)
        if is_code and file.resolve() not in recordings:
            is_table = file.suffix == ".tsv" or file.samefile(table)
            contents[name] = _without_keys(file) if is_table else file.read_bytes()
    return contents


def _without_keys(table: Path) -> bytes:
    """Return a table of sessions whose URLs, also those in comments, are as records show them."""
    text = table.read_bytes().decode(errors="surrogateescape")
    text = re.sub(r"[A-Za-z][A-Za-z0-9+.-]*://[^\t\r\n]*", lambda url: shown(url[0]), text)
    return text.encode(errors="surrogateescape")


def _other_code(record: dict[str, Any]) -> list[str]:
    """Return a sentence if there is a stage whose results other code made than this."""
    made = [(store.get("stage"), store.get("code")) for store in record["stores"].values()]
    other = [s for s in STAGES if any(stage == s and code != code_fingerprint(s) for stage, code in made)]
    if not other:
        return []
    return [
        f"the results were made by other code than is packed (stages: {', '.join(other)}; their commit: "
        f"{record['volatile'].get('git', 'unknown')}); pack from that commit, or run the workflow again"
    ]
