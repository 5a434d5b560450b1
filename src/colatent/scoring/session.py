"""Score all fits of one model to one session."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import TypeAdapter

from colatent.config import Model
from colatent.data.splits import TEST
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.models.fitting import FittedModel
from colatent.models.registry import load_fit
from colatent.scoring.evaluate import evaluate
from colatent.scoring.reconstruction import reconstructions
from colatent.scoring.tables import SCORE_COLUMNS, write_table
from colatent.store.provenance import provenance
from colatent.store.session import Fold, read_fold, read_trials
from colatent.store.stores import (
    MARKER,
    anew,
    check_store,
    file_sha256,
    group_names,
    identity,
    read_attrs,
    read_group,
    read_tensors,
    tensor_names,
    write_store,
)

# analysis name -> groups, or a table that is concatenated over fits
Analyse = Callable[[Any, Fold, xr.Dataset | None], Mapping[str, Mapping[str, xr.Dataset] | pd.DataFrame]]


@dataclass(frozen=True)
class ScoreJob:
    """Inputs and outputs of scoring.

    Attributes:
        session, split: input stores of the fits.
        fits: stores of the fits of one model, ``fold-{fold}_seed-{seed}``.
        table: output CSV of the scores.
        store: output store of latents, diagnostics and reconstructions.
        head: values of the table's columns ``session`` and ``model``.
    """

    session: Path
    split: Path
    fits: list[Path]
    table: Path
    store: Path
    head: Mapping[str, str]


def score_session(job: ScoreJob, analyse: Analyse, progress: Callable[[str], None]) -> None:
    """Write one model's table of scores and its store of latents and reconstructions.

    Nothing is fitted: a fit's store holds everything that prediction needs.

    Args:
        job: inputs and outputs.
        analyse: called for each fitted model with latents; see `colatent.analyses.analyse`.
        progress: called with lines of text.

    Raises:
        InputError: a fit is damaged, belongs to another fold or session, or was replaced during scoring.
    """
    trials, time = read_trials(job.session)
    truth = read_group(job.session, "truth") if "truth" in group_names(job.session) else None
    made_from = {"session": identity(job.session), "split": identity(job.split)}
    tables, groups = [], {}
    joined: dict[str, list[pd.DataFrame]] = {}
    identities: dict[Path, str] = {}
    for path in job.fits:
        check_store(path)
        identities[path] = identity(path)  # before reading, to detect a replacement at the end
        key = _fold_and_seed(path, made_from)
        name = path.name
        fold = read_fold(trials, job.split, key["fold"], key["seed"])
        fit = _read_fit(path, trials)
        found = evaluate(fit, fold.training, fold.test, fold.withheld)
        tables.append(found.scores.assign(**job.head, **key))
        groups[f"calibration/{name}"] = found.calibration
        questions = {f"diagnostics/{name}/{q}": d for q, d in found.diagnostics.items()}
        if len(tables) == 1:
            drawn = reconstructions(fit, fold.test, fold.withheld)
            questions |= {f"reconstruction/{name}/{q}": d for q, d in drawn.items()}
        groups |= dict(_with_session_coordinates(questions, np.flatnonzero(fold.role == TEST), time))
        if fit.decoder is not None:
            for analysis, of_fit in analyse(fit.model, fold, truth).items():
                if isinstance(of_fit, pd.DataFrame):
                    joined.setdefault(analysis, []).append(_with_columns({**job.head, **key}, of_fit))
                else:
                    own = {f"{analysis}/{name}/{part}".rstrip("/"): d for part, d in of_fit.items()}
                    groups |= dict(_with_session_coordinates(own, None, time))
        progress(f"fold {key['fold']} seed {key['seed']}: {len(found.scores)} scores")
    groups |= {analysis: _table_group(pd.concat(parts)) for analysis, parts in joined.items()}
    _check_not_replaced(identities)
    write_table(pd.concat(tables)[SCORE_COLUMNS], job.table)
    attrs = provenance("score", {}, made_from | {"fits": list(identities.values())})
    write_store(job.store, groups, attrs | {"table": file_sha256(job.table)})


def _fold_and_seed(path: Path, made_from: Mapping[str, str]) -> dict[str, int]:
    """Return fold and seed of a fit, after checking its path, session and split."""
    attrs = read_attrs(path)
    key = {"fold": attrs["inputs"]["fold"], "seed": attrs["settings"]["seed"]}
    placed = path.name == f"fold-{key['fold']}_seed-{key['seed']}"
    if not placed or any(attrs["inputs"][part] != expected for part, expected in made_from.items()):
        raise InputError(f"{path}: the fit of another fold or session; {anew(path / MARKER)}")
    return key


def _read_fit(path: Path, trials: Trials) -> FittedModel:
    settings = TypeAdapter(Model).validate_python(read_attrs(path)["settings"]["model"])
    tensors = {name: read_tensors(path, name) for name in tensor_names(path)}
    return load_fit(settings, trials.layout, tensors, path)


def _check_not_replaced(identities: dict[Path, str]) -> None:
    """Raise InputError if a fit no longer has the identity with which it was read."""
    for path, before in identities.items():
        if not (path / MARKER).is_file() or identity(path) != before:
            raise InputError(
                f"{path}: the fit was replaced while it was scored; make sure that no other job writes it, "
                "and run again"
            )


def _with_session_coordinates(
    groups: Mapping[str, xr.Dataset], trial: NDArray[np.intp] | None, time: NDArray[np.float64]
) -> Iterator[tuple[str, xr.Dataset]]:
    """Yield groups with the session's times and the session indices of the test trials (trial,)."""
    for name, data in groups.items():
        if trial is not None:
            data = data.assign_coords(trial=trial[data["trial"].values])
        yield name, data.assign_coords(time=time) if "time" in data.dims else data


def _with_columns(head: Mapping[str, Any], table: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(dict(head), index=table.index).join(table)


def _table_group(table: pd.DataFrame) -> xr.Dataset:
    """Return a table as a dataset with the last column as variable and the others as coordinates."""
    rows = table.reset_index(drop=True).rename_axis("row")
    return xr.Dataset.from_dataframe(rows).set_coords(list(table)[:-1])
