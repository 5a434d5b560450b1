"""The record of a tree of results: what made it, and the checksums of all that it consists of."""

import csv
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from colatent.store.atomic import building
from colatent.store.checksums import check_files
from colatent.config import Config
from colatent.errors import InputError
from colatent.store.layout import (
    Planned,
    latent_models,
    planned_pages,
    planned_stores,
)
from colatent.store.provenance import (
    RESULT_PACKAGES,
    code_fingerprint,
    git_revision,
)
from colatent.store.stores import (
    MARKER,
    anew,
    check_store,
    file_sha256,
    identity,
    read_attrs,
)
from colatent.store.tree import RECORD

# set by the Snakefile, as JSON: jobs do not know how Snakemake was called
RUN_VARIABLE = "COLATENT_RUN"
_CODE = ("simulate", "report")  # that of stages which leave no store

Attrs = dict[str, Any]


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
    checksum: str


def write_record(
    results: str | Path,
    config: Config,
    sessions: Iterable[str],
    code: Mapping[str, str],
    config_file: str,
    output: str | Path,
) -> None:
    """Write what made the results: config, recordings, code, versions, seeds, devices; and checksums.

    Only what this config makes of these sessions is looked at, not what others left in the folder.

    Args:
        results: their folder, complete but for this file.
        config: the config as resolved.
        sessions: names.
        code: stage -> fingerprint of the code that its stores are to be made with; any, of other stages.
        config_file: where it was read.
        output: the JSON file.

    Raises:
        InputError: a part is damaged, or was made from another than lies beside it, or with other code.
    """
    root, sessions = Path(results), list(sessions)
    planned = planned_stores(config, sessions)
    stores = {}
    for name in planned:
        check_store(root / name)
        stores[name] = read_attrs(root / name)
    identities = {name: identity(root / name) for name in planned}
    for name, plan in planned.items():
        _refuse_other(root / name, stores[name], plan, identities)
        _refuse_other_code(root / name, stores[name], code)
    files = _checked_files(root, config, sessions, stores)
    _refuse_other_scores(root, [name for name, plan in planned.items() if plan.stage == "score"])
    run = json.loads(os.environ.get(RUN_VARIABLE, "{}"))
    record = {
        "config": config.model_dump(mode="json"),
        "recordings": {n: a["source"] for n, a in stores.items() if a["stage"] == "ingest"},
        "versions": {name: _versions(name, stores) for name in RESULT_PACKAGES},
        "python": platform.python_version(),
        "code": {stage: code_fingerprint(stage) for stage in _CODE},
        "stores": {name: {"identity": identities[name], **claims(attrs)} for name, attrs in stores.items()},
        "files": {file.relative_to(root).as_posix(): files[file] for file in sorted(files)},
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
    text = json.dumps(record | {"checksum": checksum(record)}, indent=1, sort_keys=True)
    with building(output) as made:
        made.write_text(text + "\n", encoding="utf-8")


def read_record(results: str | Path) -> dict[str, Any]:
    """Return the record of a tree of results.

    Raises:
        InputError: there is none, or it is damaged.
    """
    file = Path(results) / RECORD
    if not file.is_file():
        raise InputError(f"{file}: there is no such record; let the workflow run to its end first")
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        _Record.model_validate(record)
        sound = record["checksum"] == checksum(record)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError):
        sound = False
    if not sound:
        raise InputError(f"{file}: the record is damaged; delete it and run the workflow again")
    return dict(record)


def checksum(record: dict[str, Any]) -> str:
    """Return the SHA-256 of a record but for its own checksum."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def claims(attrs: Attrs) -> Attrs:
    """Return what the record repeats of a store's own attributes."""
    repeated = {key: attrs.get(key) for key in ("stage", "code", "device", "inputs")}
    return repeated | ({"seed": attrs["settings"]["seed"]} if repeated["stage"] == "fit" else {})


def outdated(results: str | Path, config: Config, sessions: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the stores that were made with other settings or code than now, and the stage of each.

    Those that are missing or damaged are left to whoever reads them.
    """
    for name, plan in planned_stores(config, sessions).items():
        folder = Path(results) / name
        if not (folder / MARKER).is_file():
            continue
        try:
            attrs = read_attrs(folder)
        except InputError:
            continue
        same = _same(attrs.get("settings"), plan.settings)
        if not same or attrs.get("code") != code_fingerprint(plan.stage):
            yield name, plan.stage


def other_than_recorded(results: str | Path, config: Config, sessions: Iterable[str]) -> list[str]:
    """Return the rules that would make anew what the record tells of another config, or of pages' other code.

    Stores are left to `outdated`. Without a record there is nothing to tell.
    """
    try:
        record = read_record(results)
    except InputError:
        return []
    then, now = (c | {"results": ""} for c in (record["config"], config.model_dump(mode="json")))
    other_sessions = set(record["recordings"]) != {f"{session}/session" for session in sessions}
    other_code = [stage for stage in _CODE if record["code"].get(stage) != code_fingerprint(stage)]
    rules = []
    if config.simulate and ("simulate" in other_code or then.get("simulate") != now["simulate"]):
        rules.append("simulate")
    if then != now or other_sessions:
        rules.append("scores")
    if rules or "report" in other_code:
        rules += ["session_page", "model_page", "report"]
    return rules


def _same(written: Any, planned: Any) -> bool:
    """Are settings those that were written as JSON?"""
    return bool(written == json.loads(json.dumps(planned)))


def _versions(package: str, stores: dict[str, Attrs]) -> str:
    """Return the version of a package that made the stores; several, if they were made at several times."""
    return ", ".join(sorted({str(attrs["versions"].get(package, "unknown")) for attrs in stores.values()}))


def _refuse_other(folder: Path, attrs: Attrs, plan: Planned, identities: dict[str, str]) -> None:
    """Raise InputError unless a store was made with the config's settings, and from what lies beside it."""
    remedy = anew(folder / MARKER)
    inputs = {key: attrs["inputs"].get(key) for key in plan.inputs}
    if not (_same(attrs["settings"], plan.settings) and _same(inputs, plan.inputs)):
        raise InputError(f"{folder}: made with other settings than the config has here; {remedy}")
    for key, parts in plan.made_from.items():
        expected = [identities[p] for p in parts] if isinstance(parts, list) else identities[parts]
        if attrs["inputs"].get(key) != expected:
            raise InputError(f"{folder}: made from another {key} than lies beside it; {remedy}")


def _refuse_other_code(folder: Path, attrs: Attrs, code: Mapping[str, str]) -> None:
    """Raise InputError unless a store was made with the code that the run started with, if that is told.

    What an older run made is redone by Snakemake, unless told not to look at code. So it was edited
    meanwhile: Snakemake takes the store for one of the code that it saw first, also in later runs.
    """
    stage, made_with = attrs["stage"], attrs.get("code")
    if made_with != code.get(stage, made_with):
        raise InputError(
            f"{folder}: made with other code than the run started with: edited meanwhile, or the store was "
            f"kept with --touch; run again with --forcerun {stage}, or with --rerun-triggers mtime to keep it"
        )


def _checked_files(
    root: Path, config: Config, sessions: list[str], stores: dict[str, Attrs]
) -> dict[Path, str]:
    """Return all tables, pages and figures with their checksums.

    Raises:
        InputError: one is not as it was written.
    """
    joined = root / "scores.csv"
    files = check_files(root, joined, [joined, root / "paired_differences.csv"])
    for folder in (root / page for page in planned_pages(config, sessions)):
        page, figures = (
            folder / "index.html",
            (folder / "figures").glob("[!.]*"),
        )  # Snakemake hides a file there
        files |= check_files(folder, page, [page, *figures])
    beside = {f"{s}/score/{model}": ("table", ".csv") for s in sessions for model in config.models}
    beside |= {f"{s}/latents/{model}": ("nwb", ".nwb") for s in sessions for model in latent_models(config)}
    for name, (key, suffix) in beside.items():
        file = root / f"{name}{suffix}"
        if not file.is_file() or file_sha256(file) != stores[name][key]:
            raise InputError(f"{file}: the file is not as it was written; {anew(file)}")
        files[file] = stores[name][key]
    return files


def _refuse_other_scores(root: Path, names: list[str]) -> None:
    """Raise InputError unless the joined table is that of the models' tables, row by row."""
    joined = root / "scores.csv"
    rows = _rows(joined)
    head = next(rows, None)
    parts = [_rows(root / f"{name}.csv") for name in names]
    same = all([next(part, None) == head for part in parts])
    if not same or any(a != b for a, b in zip_longest(rows, chain.from_iterable(parts))):
        raise InputError(f"{joined}: joined from other tables than lie beside it; {anew(joined)}")


def _rows(table: Path) -> Iterator[list[str]]:
    """Yield the rows of a CSV table as text without quotes."""
    with table.open(newline="", encoding="utf-8") as file:
        yield from csv.reader(file)
