"""The record of a tree of results: what made it, and the checksums of all that it consists of."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from pydantic import BaseModel, Field

from colatent.config import Config
from colatent.errors import InputError
from colatent.store.atomic import write_text
from colatent.store.checksums import check_file, check_files
from colatent.store.fingerprint import code_fingerprint
from colatent.store.layout import CONFIG, RECORD, Planned, latent_models, planned_pages, planned_stores, where
from colatent.store.made_with import current_run
from colatent.store.provenance import RESULT_PACKAGES, git_revision
from colatent.store.stores import MARKER, anew, check_store, identity, read_attrs

_CODE = ("simulate", "report")  # that of stages which leave no store

Attrs = dict[str, Any]


class _Made(BaseModel):
    results: str
    models: dict[str, Any] = Field(min_length=1)


class _Run(BaseModel):
    folder: str


class _Record(BaseModel):
    """What is relied on in a record that is read."""

    stores: dict[str, dict[str, Any]] = Field(min_length=1)
    files: dict[str, str] = Field(min_length=1)
    config: _Made
    volatile: _Run
    checksum: str


def write_record(results: str | Path, config: Config, sessions: Iterable[str]) -> None:
    """Write what made the results: config, recordings, code, versions, seeds, devices; and checksums.

    Only what this config makes of these sessions is looked at, not what others left in the folder. The config
    lies beside the record, for whoever runs the workflow with it again.

    Args:
        results: their folder, complete but for the record.
        config: the config as resolved.
        sessions: names.

    Raises:
        InputError: a part is damaged, or made with other settings, or from other inputs than lie beside it.
    """
    root, sessions = Path(results), list(sessions)
    planned = planned_stores(config, sessions)
    for name in planned:
        check_store(root / name)
    stores = {name: read_attrs(root / name) for name in planned}
    identities = {name: identity(root / name) for name in planned}
    for name, plan in planned.items():
        _refuse_other(root / name, stores[name], plan, identities)
    files = _checked_files(root, config, sessions, stores)
    _refuse_other_scores(root, [name for name, plan in planned.items() if plan.stage == "score"])
    record = {
        "config": config.model_dump(mode="json"),
        "recordings": {n: a["source"] for n, a in stores.items() if a["stage"] == "ingest"},
        "versions": {name: _versions(name, stores) for name in RESULT_PACKAGES},
        "python": platform.python_version(),
        "code": {stage: code_fingerprint(stage) for stage in _CODE},
        "stores": {name: {"identity": identities[name], **claims(attrs)} for name, attrs in stores.items()},
        "files": {file.relative_to(root).as_posix(): files[file] for file in sorted(files)},
        "volatile": {
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "command": current_run().command,
            "folder": os.getcwd(),
            "host": platform.node(),
            "platform": platform.platform(),
            "git": git_revision(),
            "stores": {name: attrs["volatile"] for name, attrs in stores.items()},
        },
    }
    text = json.dumps(record | {"checksum": checksum(record)}, indent=1, sort_keys=True)
    write_text(root / CONFIG, yaml.safe_dump(record["config"], sort_keys=False), "the config of the record")
    write_text(root / RECORD, text + "\n", "the record")


def read_record(results: str | Path) -> dict[str, Any]:
    """Return the record of a tree of results.

    Raises:
        InputError: there is none, or it is damaged.
    """
    file = Path(results) / RECORD
    try:
        record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if _Record.model_validate(record).checksum != checksum(record):
            raise ValueError
    except OSError:
        raise InputError(f"{file}: there is no such record; let the workflow run to its end first") from None
    except (ValueError, RecursionError):
        raise InputError(f"{file}: the record is damaged; delete it and run the workflow again") from None
    return record


def config_of(results: str | Path) -> Any:
    """Return the config beside the record, which repairs use; None where it is missing or damaged."""
    try:
        return yaml.safe_load((Path(results) / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def checksum(record: dict[str, Any]) -> str:
    """Return the SHA-256 of a record but for its own checksum."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def claims(attrs: Attrs) -> Attrs:
    """Return what the record repeats of a store's own attributes."""
    repeated = {key: attrs.get(key) for key in ("stage", "code", "device", "inputs")}
    return repeated | ({"seed": attrs["settings"]["seed"]} if repeated["stage"] == "fit" else {})


def _versions(package: str, stores: dict[str, Attrs]) -> str:
    """Return the version of a package that made the stores; several, if they were made at several times."""
    return ", ".join(sorted({str(attrs["versions"].get(package, "unknown")) for attrs in stores.values()}))


def _refuse_other(folder: Path, attrs: Attrs, plan: Planned, identities: dict[str, str]) -> None:
    """Raise InputError unless a store was made with the config's settings, and from what lies beside it.

    Not by which code: `snakemake --touch` keeps results of older code, and the record says of which.
    """
    remedy = anew(folder / MARKER)
    written = attrs["settings"], {key: attrs["inputs"].get(key) for key in plan.inputs}
    if json.dumps(written, sort_keys=True) != json.dumps((plan.settings, plan.inputs), sort_keys=True):
        raise InputError(f"{folder}: made with other settings than the config has here; {remedy}")
    for key, parts in plan.made_from.items():
        expected = [identities[p] for p in parts] if isinstance(parts, list) else identities[parts]
        if attrs["inputs"].get(key) != expected:
            raise InputError(f"{folder}: made from another {key} than lies beside it; {remedy}")


def _checked_files(
    root: Path, config: Config, sessions: list[str], stores: dict[str, Attrs]
) -> dict[Path, str]:
    """Return all tables, pages and figures with their checksums.

    Raises:
        InputError: one is not as it was written.
    """
    joined = where(root, "scores", "table")
    files = check_files(root, joined, [joined, root / "paired_differences.csv"])
    for folder in (root / page for page in planned_pages(config, sessions)):
        figures = (folder / "figures").glob("[!.]*")  # Snakemake hides a file there
        files |= check_files(folder, folder / "index.html", [folder / "index.html", *figures])
    exported = ("export", "export", "nwb", latent_models(config))
    for rule, kind, key, models in (("score", "table", "table", config.models), exported):
        for session, model in product(sessions, models):
            file = where(root, rule, kind, session=session, model=model)
            files[file] = stores[file.relative_to(root).with_suffix("").as_posix()][key]
            check_file(file, files[file], file)
    return files


def _refuse_other_scores(root: Path, names: list[str]) -> None:
    """Raise InputError unless the joined table is that of the models' tables, row by row."""
    joined = where(root, "scores", "table")
    files = (joined, *(root / f"{name}.csv" for name in names))
    try:
        whole, *parts = (pd.read_csv(file, dtype=str, na_filter=False) for file in files)
        same = whole.equals(pd.concat(parts, ignore_index=True))
    except ValueError:  # no tables
        same = False
    if not same:
        raise InputError(f"{joined}: joined from other tables than lie beside it; {anew(joined)}")
