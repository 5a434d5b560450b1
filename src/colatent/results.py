"""A tree of results as a whole: the record of what made it, and whether all of it is as it was written."""

import csv
import json
import os
import platform
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, Field

from colatent.errors import InputError
from colatent.provenance import RESULT_PACKAGES, git_revision, package_version
from colatent.store import (
    MARKER,
    DamagedStoreError,
    NewerFormatError,
    anew,
    check_store,
    file_sha256,
    identity,
    read_attrs,
)
from colatent.tree import RECORD, walk_results

# set by the Snakefile, as JSON: jobs do not know how Snakemake was called
RUN_VARIABLE = "COLATENT_RUN"
_FILES = (".csv", ".html", ".png", ".svg")
_WHEN_ASKED_FOR = {"latent_choice", "learning_curve"}


class _RecordedStore(BaseModel):
    identity: str


class _RecordedConfig(BaseModel):
    results: str
    models: dict[str, Any] = Field(min_length=1)


class _RecordedRun(BaseModel):
    config_file: str
    folder: str | None = None
    options: list[str] | None = None


class _Record(BaseModel):
    """What is relied on in a record that is read."""

    stores: dict[str, _RecordedStore] = Field(min_length=1)
    files: dict[str, str] = Field(min_length=1)
    config: _RecordedConfig
    volatile: _RecordedRun


class Damage(NamedTuple):
    """One output that is not as it was written.

    Attributes:
        target: the file that Snakemake makes anew when told so; None where it cannot or must not.
        sentence: what is wrong.
    """

    target: Path | None
    sentence: str


def write_record(results: str | Path, config: dict[str, Any], config_file: str, output: str | Path) -> None:
    """Write what made the results: config, recordings, code, versions, seeds, devices; and checksums.

    Args:
        results: their folder, complete but for this file.
        config: the config as resolved.
        config_file: where it was read.
        output: the JSON file.

    Raises:
        InputError: a part is damaged, or was made from another than lies beside it.
    """
    root = Path(results)
    stores = {}
    for folder in _stores(root):
        check_store(folder)
        stores[_name(root, folder)] = read_attrs(folder)
    _refuse_mixture(root, stores)
    run = json.loads(os.environ.get(RUN_VARIABLE, "{}"))
    record = {
        "config": config,
        "recordings": {n: a["source"] for n, a in stores.items() if a["stage"] == "ingest"},
        "versions": {name: package_version(name) for name in RESULT_PACKAGES},
        "python": platform.python_version(),
        "stores": {
            name: {"identity": identity(root / name), **_claims(attrs)} for name, attrs in stores.items()
        },
        "files": {_name(root, file): file_sha256(file) for file in _files(root)},
        "volatile": {
            "config_file": config_file,
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **{key: run.get(key) for key in ("command", "folder", "options")},
            "host": platform.node(),
            "platform": platform.platform(),
            "git": git_revision(),
            "stores": {name: attrs["volatile"] for name, attrs in stores.items()},
        },
    }
    partial = Path(f"{output}.partial")
    partial.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    partial.replace(output)


def read_record(results: str | Path) -> dict[str, Any]:
    """Return the record of a tree of results.

    Raises:
        InputError: there is none, or it is damaged.
    """
    file = Path(results) / RECORD
    if not file.is_file():
        raise InputError(f"{file}: there is no such record; let the workflow run to its end first")
    try:
        record = json.loads(file.read_text())
        _Record.model_validate(record)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file}: the record is damaged; delete it and run the workflow again") from None
    return dict(record)


def verify(results: str | Path) -> tuple[list[Damage], int]:
    """Return what is not as it was written, and how many stores and files were looked at.

    Args:
        results: folder of the results.

    Raises:
        InputError: no such folder, or no record in it.
    """
    root = Path(results)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give the folder of results")
    record = read_record(root)
    damages = []
    names = sorted({*record["stores"], *(_name(root, folder) for folder in _stores(root))})
    for name in names:
        if damage := _damage_of_store(root, name, record):
            damages.append(damage)
    for name, checksum in record["files"].items():
        if damage := _damage_of_file(root, name, checksum):
            damages.append(damage)
    return damages, len(names) + len(record["files"])


def _damage_of_file(root: Path, name: str, checksum: str) -> Damage | None:
    file = root / name
    try:
        if not file.is_file():
            return Damage(_target(root, file), f"{file}: the file is missing")
        if file_sha256(file) != checksum:
            return Damage(_target(root, file), f"{file}: the file is not as it was written")
    except OSError as error:
        return Damage(_target(root, file), f"{file}: cannot be read ({error.strerror})")
    return None


def _damage_of_store(root: Path, name: str, record: dict[str, Any]) -> Damage | None:
    """Return what is wrong with one store, measured by itself and by the record."""
    folder, recorded = root / name, record["stores"].get(name)
    target = None if _is_leftover(name, record) else folder / MARKER
    remedy = "" if target else "; the config no longer has its model: delete the folder and run again"
    try:
        check_store(folder)
        attrs = read_attrs(folder)
    except NewerFormatError as error:
        return Damage(None, str(error))
    except DamagedStoreError as error:
        return Damage(target, f"{error.finding}{remedy}")
    except OSError as error:
        return Damage(target, f"{error.filename}: cannot be read ({error.strerror}){remedy}")
    if recorded is None:
        return Damage(
            root / RECORD if target else None,
            f"{folder}: not in the record; delete the folder if the config does not have it{remedy}",
        )
    if identity(folder) != recorded["identity"]:
        return Damage(target, f"{folder}: another store than was recorded{remedy}")
    if {key: value for key, value in recorded.items() if key != "identity"} != _claims(attrs):
        return Damage(root / RECORD, f"{folder}: the record says of it what it does not say itself")
    return None


def _claims(attrs: dict[str, Any]) -> dict[str, Any]:
    """Return what the record repeats of a store's own attributes."""
    claims = {key: attrs.get(key) for key in ("stage", "code", "device", "inputs")}
    return claims | ({"seed": attrs["settings"]["seed"]} if claims["stage"] == "fit" else {})


def _is_leftover(name: str, record: dict[str, Any]) -> bool:
    """Is this of a model that the config no longer has? No rule makes it, so no command can repair it."""
    of_model = re.fullmatch(
        r"[^/]+/(?:fit/([^/]+)/[^/]+|(?:score|latents|latent_choice|learning_curve)/([^/]+?)(?:\.csv)?)", name
    )
    return of_model is not None and (of_model[1] or of_model[2]) not in record["config"]["models"]


def _refuse_mixture(root: Path, stores: dict[str, dict[str, Any]]) -> None:
    """Raise InputError unless all parts were made from one another, and the scores are the models'."""
    rows: set[tuple[str, ...]] = set()
    for name, attrs in stores.items():
        session, table = root / name.split("/")[0], root / f"{name}.csv"
        for part in ("session", "split"):
            made_from = attrs["inputs"].get(part)
            if made_from and made_from != identity(session / part):
                raise InputError(
                    f"{root / name}: made from another {part} than {session / part}; "
                    f"{anew(root / name / MARKER)}"
                )
        if attrs["stage"] == "score":
            rows |= _rows(table)
    joined = root / "scores.csv"
    if not _rows(joined) <= rows:
        raise InputError(f"{joined}: the table is not as it was written; {anew(joined)}")


def _rows(table: Path) -> set[tuple[str, ...]]:
    """Return the rows of a CSV table but for its head, as text without quotes."""
    try:
        with table.open(newline="", encoding="utf-8") as file:
            return set(map(tuple, list(csv.reader(file))[1:]))
    except (csv.Error, UnicodeError):
        raise InputError(f"{table}: the table is not as it was written; {anew(table)}") from None


def _stores(root: Path) -> list[Path]:
    return [place.path for place in walk_results(root) if place.is_store]


def _files(root: Path) -> list[Path]:
    """Tables, pages and figures, but for those that are made only when asked for."""
    found = (place.path / name for place in walk_results(root) for name in place.files)
    return sorted(p for p in found if p.suffix in _FILES and not _WHEN_ASKED_FOR & set(p.parts))


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _target(root: Path, file: Path) -> Path:
    """The output that Snakemake knows: figures come with their page, further tables with the scores."""
    if file.parent.name == "figures":
        return file.parent.with_name("index.html")
    beside = file.name in ("latent_recovery.csv", "paired_differences.csv")
    return root / "scores.csv" if beside else file
