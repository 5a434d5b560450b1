"""Score all fits of a model of a session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import TypeAdapter

from colatent.analyses.latent_summary import latent_summary
from colatent.analyses.recovery import latent_recovery
from colatent.config import Model
from colatent.data.splits import TEST, TRAINING
from colatent.errors import InputError
from colatent.models.readout.decoding import Decoder
from colatent.models.registry import load_model, modalities_of
from colatent.scoring.evaluate import evaluate
from colatent.scoring.questions import Withheld
from colatent.scoring.reconstruction import reconstructions
from colatent.scoring.tables import (
    RECOVERY_COLUMNS,
    SCORE_COLUMNS,
    write_table,
)
from colatent.store.provenance import provenance
from colatent.store.session import (
    Fold,
    read_fold,
    read_trials,
)
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
    write_store,
)


def score_session(
    session: str | Path,
    split: str | Path,
    fits: list[Path],
    clip: dict[str, tuple[float, float]],
    future: float | None,
    table: str | Path,
    store: str | Path,
    head: dict[str, str],
    progress: Callable[[str], None],
) -> None:
    """Write the table of scores, and the store with latents and reconstructions, of one model.

    Args:
        fits: stores of its fits, ``fold-{fold}_seed-{seed}``.
        clip: modality -> percentiles of the training trials, as in the fits.
        future: share at the end of each test trial that is predicted from what came before, if any.
        head: the columns ``session`` and ``model``.

    Raises:
        InputError: a fit is damaged, or not that of its place, or was replaced meanwhile.
    """
    trials, time = read_trials(session)
    time_locked = read_attrs(session)["alignment"] == "trials"
    truth = read_group(session, "truth") if "truth" in group_names(session) else None
    made_from = {"session": identity(session), "split": identity(split)}
    scored: dict[Path, str] = {}
    tables, groups, recovery = [], {}, []
    for i, path in enumerate(fits):
        check_store(path)
        scored[path] = identity(path)  # before it is read: at the end it may be another
        attrs = read_attrs(path)
        number, seed = attrs["inputs"]["fold"], attrs["settings"]["seed"]
        key, name = {"fold": number, "seed": seed}, f"fold-{number}_seed-{seed}"
        if path.name != name or any(attrs["inputs"][part] != of for part, of in made_from.items()):
            raise InputError(f"{path}: the fit of another fold or session; {anew(path / MARKER)}")
        fold = read_fold(trials, split, number, seed, clip)
        settings = TypeAdapter(Model).validate_python(attrs["settings"]["model"])
        model = load_model(settings, read_tensors(path, "state"), fold.training, time_locked, "cpu", path)
        modalities = modalities_of(settings, trials)
        withheld = Withheld(fold.hidden, future)
        decoder = Decoder.fit(model, modalities, fold.training, time_locked)
        found = evaluate(model, modalities, fold.training, fold.test, withheld, decoder)
        tables.append(found.scores.assign(**head, **key))
        groups[f"calibration/{name}"] = found.calibration
        if model.latent_groups:
            groups[f"latents/{name}"] = latents = _latents(model, modalities, fold, time)
            if truth is not None:
                recovery += [head | key | row for row in _recovery(latents, truth, fold.role)]
            summary = latent_summary(model, modalities, fold.training, fold.test)
            groups |= {f"summary/{name}/{part}": d for part, d in summary.items()}
        questions = {f"diagnostics/{name}/{q}": d for q, d in found.diagnostics.items()}
        if i == 0:
            drawn = reconstructions(model, modalities, fold.test, withheld, decoder)
            questions |= {f"reconstruction/{name}/{q}": d for q, d in drawn.items()}
        trial = np.flatnonzero(fold.role == TEST)
        groups |= {
            q: d.assign_coords(trial=trial[d["trial"].values], time=time) for q, d in questions.items()
        }
        progress(f"fold {number} seed {seed}: {len(found.scores)} scores")
    if recovery:
        groups["recovery"] = xr.Dataset.from_dataframe(
            pd.DataFrame(recovery)[RECOVERY_COLUMNS].rename_axis("row")
        ).set_coords(RECOVERY_COLUMNS[:-1])
    _refuse_replaced(scored)
    write_table(pd.concat(tables)[SCORE_COLUMNS], table)
    inputs = made_from | {"fits": list(scored.values())}
    attrs = provenance("score", {}, inputs) | {"table": file_sha256(Path(table))}
    write_store(store, groups, attrs)


def _refuse_replaced(scored: dict[Path, str]) -> None:
    """Raise InputError unless the fits that lie there are those that were read: fit -> its identity then."""
    for path, was in scored.items():
        if not (path / MARKER).is_file() or identity(path) != was:
            raise InputError(
                f"{path}: the fit was replaced while it was scored; see that no other job works on it, and "
                "run again"
            )


def _latents(model: Any, modalities: tuple[str, ...], fold: Fold, time: NDArray[np.float64]) -> xr.Dataset:
    """Return the posterior of all trials, training trials included, given all modalities."""
    mean, variance = model.latents(fold.everything, modalities)
    count: dict[str, int] = {}
    names = []
    for group in model.latent_groups:
        count[group] = count.get(group, 0) + 1
        names.append(f"{group} {count[group]}")
    dims = ("trial", "time", "latent")
    return xr.Dataset(
        {
            "mean": (dims, mean.astype(np.float32)),
            "variance": (dims, variance.astype(np.float32)),
            "role": ("trial", fold.role),
        },
        coords={"time": time, "latent": names, "group": ("latent", list(model.latent_groups))},
        attrs={"given": "+".join(modalities)},
    )


def _recovery(latents: xr.Dataset, truth: xr.Dataset, role: NDArray[np.int8]) -> list[dict[str, Any]]:
    return latent_recovery(
        latents["mean"].values,
        tuple(map(str, latents["group"].values)),
        truth["value"].values,
        truth["observed"].values,
        tuple(map(str, truth["group"].values)),
        role == TRAINING,
        role == TEST,
    )
