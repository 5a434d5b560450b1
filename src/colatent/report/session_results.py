"""The results behind the pages of a session, read from its stores and tables for the models of a config."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from colatent.config import Config, Model
from colatent.data.trials import running
from colatent.models.methods import About
from colatent.report.text.words import Words
from colatent.scoring.tables import check_table, read_recovery, read_scores
from colatent.store.layout import where
from colatent.store.stores import check_store, group_names, read_attrs, read_group

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

KINDS_IN_ORDER = get_args(get_args(Model)[0])  # settings of the kinds of models, as the manual lists them


@dataclass(frozen=True)
class Modality:
    """Observations of one modality: ``value`` and ``observed`` are (trial, time, channel)."""

    name: str
    kind: str
    unit: str
    channels: tuple[str, ...]
    value: Array
    observed: Mask
    attrs: dict[str, Any]

    @property
    def counts(self) -> bool:
        """Whether its values are spike counts; otherwise they are continuous."""
        return self.kind == "spikes"


@dataclass(frozen=True)
class Fit:
    """One fit: its place in the design, its attributes and its history (step), if it has one."""

    model: str
    fold: int
    seed: int
    attrs: dict[str, Any]
    history: xr.Dataset | None


@dataclass(frozen=True)
class SessionResults:
    """All results of one session.

    Attributes:
        time: bin centres (s), shape (time,).
        trials: table with ``start``, ``stop`` (s) and maybe ``condition``, dim trial.
        role: (fold, trial): 0 training, 1 test, 2 guard.
        hidden: modality -> (seed, fold, channel), channels held out for co-smoothing.
        scores: rows of the models' tables of scores.
        recovery: R² of the true latents; empty for real recordings.
        latents: model -> latents of the fold and seed shown.
        reconstructions: (model, heldout, predicted) -> prediction and bands, of that fold and seed.
    """

    name: str
    config: Config
    attrs: dict[str, Any]
    time: Array
    modalities: dict[str, Modality]
    trials: xr.Dataset
    truth: xr.Dataset | None
    role: NDArray[np.int8]
    hidden: dict[str, Mask]
    fits: list[Fit]
    scores: pd.DataFrame
    recovery: pd.DataFrame
    latents: dict[str, xr.Dataset] = field(default_factory=dict)
    reconstructions: dict[tuple[str, str, str], xr.Dataset] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    shown_fold = 0

    @property
    def shown_seed(self) -> int:
        return self.config.heldout.seeds[0]

    @property
    def condition(self) -> NDArray[np.str_] | None:
        return self.trials["condition"].values if "condition" in self.trials.coords else None

    @property
    def continuous(self) -> bool:
        return self.attrs.get("alignment") == "continuous"

    @property
    def simulated(self) -> bool:
        return bool(self.attrs.get("simulated"))

    @property
    def about(self) -> About:
        """What the methods texts of the models depend on."""
        kinds = {name: modality.kind for name, modality in self.modalities.items()}
        return About(kinds, self.condition is not None, self.continuous)

    @property
    def words(self) -> Words:
        return Words.of(self.about, self.config.heldout.time)

    @property
    def main_model(self) -> str:
        """The model that heads the page: the first, in the manual's order of kinds, that is no baseline."""
        models = self.config.models
        subjects = [name for name, model in models.items() if not model.record.baseline]
        ranked = sorted(subjects, key=lambda name: KINDS_IN_ORDER.index(type(models[name])))
        return (ranked or list(models))[0]

    def reached(self) -> Mask:
        """Return where (trial, time) a trial still runs: up to its last bin with any observation."""
        return running(m.observed for m in self.modalities.values())

    def test_trials(self) -> NDArray[np.int_]:
        return np.flatnonzero(self.role[self.shown_fold] == 1)


def read_session(config: Config, session: str) -> SessionResults:
    """Gather the results of one session, of the models that the config names, from its checked stores.

    Raises:
        InputError: a store or table is missing or damaged.
    """
    data, split = (where(config.results, rule, "store", session=session) for rule in ("ingest", "split"))
    for store in (data, split):
        check_store(store)
    scored = {m: where(config.results, "score", "store", session=session, model=m) for m in config.models}
    attrs = read_attrs(data)
    time, modalities = _read_modalities(data, attrs)
    groups = group_names(data)
    fits = _read_fits(config, session)
    scores = [_read_checked_scores(store) for store in scored.values()]
    latents, reconstructions, score_attrs = _read_score_stores(scored, config.heldout.seeds[0])
    stages = {"ingest": attrs, "split": read_attrs(split)}
    return SessionResults(
        name=session,
        config=config,
        attrs=attrs,
        time=time,
        modalities=modalities,
        trials=read_group(data, "trials"),
        truth=read_group(data, "truth") if "truth" in groups else None,
        role=read_group(split, "split")["role"].values,
        hidden=_read_hidden(split),
        fits=fits,
        scores=pd.concat(scores, ignore_index=True),
        recovery=read_recovery(list(scored.values())),
        latents=latents,
        reconstructions=reconstructions,
        stages=stages | ({"fit": fits[0].attrs} if fits else {}) | score_attrs,
    )


def _read_modalities(store: Path, attrs: dict[str, Any]) -> tuple[Array, dict[str, Modality]]:
    names = [g.removeprefix("modality/") for g in group_names(store) if g.startswith("modality/")]
    order = [n for n in attrs.get("modalities", []) if n in names]
    modalities, time = {}, np.empty(0)
    for name in order + [n for n in names if n not in order]:
        data = read_group(store, f"modality/{name}")
        time = data["time"].values
        modalities[name] = Modality(
            name=name,
            kind=data.attrs["kind"],
            unit=data.attrs.get("unit", ""),
            channels=tuple(map(str, data["channel"].values)),
            value=data["value"].values,
            observed=data["observed"].values.astype(bool),
            attrs={k: v for k, v in data.attrs.items() if k not in ("kind", "unit")},
        )
    return time, modalities


def _read_hidden(store: Path) -> dict[str, Mask]:
    names = [g for g in group_names(store) if g.startswith("hidden/")]
    return {n.removeprefix("hidden/"): read_group(store, n)["hidden"].values.astype(bool) for n in names}


def _read_fits(config: Config, session: str) -> list[Fit]:
    fits = []
    for model in config.models:
        for fold in range(config.heldout.folds):
            for seed in config.heldout.seeds:
                store = where(
                    config.results, "fit", "store", session=session, model=model, fold=fold, seed=seed
                )
                check_store(store)
                history = read_group(store, "history") if "history" in group_names(store) else None
                fits.append(Fit(model, fold, seed, read_attrs(store), history))
    return fits


def _read_score_stores(
    stores: Mapping[str, Path], seed: int
) -> tuple[dict[str, xr.Dataset], dict[tuple[str, str, str], xr.Dataset], dict[str, dict[str, Any]]]:
    shown = f"fold-{SessionResults.shown_fold}_seed-{seed}"
    latents, reconstructions, attrs = {}, {}, {}
    for model, store in stores.items():
        attrs["score"] = read_attrs(store)
        names = group_names(store)
        if f"latents/{shown}" in names:
            latents[model] = read_group(store, f"latents/{shown}")
        for name in names:
            if name.startswith(f"reconstruction/{shown}/"):
                heldout, predicted = name.split("/")[2:]
                reconstructions[model, heldout, predicted] = read_group(store, name)
    return latents, reconstructions, attrs


def _read_checked_scores(store: Path) -> pd.DataFrame:
    table = store.with_name(f"{store.name}.csv")
    check_table(table, store)
    return read_scores(table)
