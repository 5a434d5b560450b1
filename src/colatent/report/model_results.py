"""The results behind the page of one model of one session."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from colatent.config import Config
from colatent.report.session_results import SessionResults, read_session
from colatent.store.layout import where
from colatent.store.stores import group_names, read_group

Array = NDArray[np.float64]
FitKey = tuple[int, int]  # fold, seed
NOT_EVENTS = {"start", "stop", "start_time", "stop_time"}
MOST_EVENTS = 3
SHARE_TIMED = 0.9  # of the trials, in which an event's time must lie within the trial


@dataclass(frozen=True)
class ModelResults:
    """The results of one model of one session.

    Attributes:
        session: results of the session, read for this model only.
        model: its name.
        latents: fit -> posterior of the latents in all trials, of fits with the groups of the fit shown.
        summaries: fit -> datasets of `colatent.analyses.latent_summary`, of the same fits.
        diagnostics: (heldout, predicted) -> fit -> dataset of `colatent.scoring.diagnostics`.
        calibration: fit -> dataset of `colatent.scoring.calibration`.
        groups_found: fit -> group of each latent, of all fits; they differ only if the fits find them.
    """

    session: SessionResults
    model: str
    latents: dict[FitKey, xr.Dataset]
    summaries: dict[FitKey, dict[str, xr.Dataset]]
    diagnostics: dict[tuple[str, str], dict[FitKey, xr.Dataset]]
    calibration: dict[FitKey, xr.Dataset]
    groups_found: dict[FitKey, tuple[str, ...]]

    @property
    def shown(self) -> FitKey:
        """Fold and seed of the fit shown where a figure shows only one."""
        return self.session.shown_fold, self.session.shown_seed

    @property
    def groups(self) -> list[str]:
        """Group of each latent."""
        data = self.latents.get(self.shown)
        return [] if data is None else [str(g) for g in data["group"].values]

    @property
    def latent_names(self) -> list[str]:
        groups = self.groups
        return [f"{g} {groups[: k + 1].count(g)}" for k, g in enumerate(groups)]

    def events(self) -> dict[str, Array]:
        """Return name -> time in trial (s), shape (trial,), of columns of the trial table that are times."""
        trials = self.session.trials
        if "start" not in trials or "stop" not in trials:
            return {}
        start, stop = trials["start"].values, trials["stop"].values
        origin = self.session.time[0] - float(self.session.attrs["bin_width"]) / 2
        found = {}
        for name, column in trials.data_vars.items():
            value = column.values
            if name in NOT_EVENTS or value.dtype.kind != "f":
                continue
            inside = (value >= start) & (value <= stop)
            edge = np.isclose(value, start).all() or np.isclose(value, stop).all()
            if inside.mean() >= SHARE_TIMED and not edge:
                found[str(column.attrs.get("name", name))] = np.where(inside, value - start + origin, np.nan)
        return dict(list(found.items())[:MOST_EVENTS])


def read_model(config: Config, session: str, model: str) -> ModelResults:
    """Gather the results of one model of one session.

    Raises:
        InputError: a store or table is missing or damaged.
    """
    own = config.model_copy(update={"models": {model: config.models[model]}})
    results = read_session(own, session)  # checks the stores
    store = where(config.results, "score", "store", session=session, model=model)
    latents: dict[FitKey, xr.Dataset] = {}
    summaries: dict[FitKey, dict[str, xr.Dataset]] = {}
    diagnostics: dict[tuple[str, str], dict[FitKey, xr.Dataset]] = {}
    calibration: dict[FitKey, xr.Dataset] = {}
    for name in group_names(store):
        kind, _, rest = name.partition("/")
        if kind not in ("latents", "summary", "diagnostics", "calibration"):
            continue
        fit, _, part = rest.partition("/")
        key = _fit_key(fit)
        if kind == "latents":
            latents[key] = read_group(store, name)
        elif kind == "calibration":
            calibration[key] = read_group(store, name)
        elif kind == "summary":
            summaries.setdefault(key, {})[part] = read_group(store, name)
        else:
            heldout, predicted = part.split("/")
            diagnostics.setdefault((heldout, predicted), {})[key] = read_group(store, name)
    groups = {key: tuple(map(str, data["group"].values)) for key, data in latents.items()}
    shown = groups.get((results.shown_fold, results.shown_seed))
    others = {key for key, found in groups.items() if found != shown}
    latents = {key: data for key, data in latents.items() if key not in others}
    summaries = {key: data for key, data in summaries.items() if key not in others}
    return ModelResults(results, model, latents, summaries, diagnostics, calibration, groups)


def _fit_key(name: str) -> FitKey:
    """Return fold and seed of ``fold-{fold}_seed-{seed}``."""
    fold, seed = name.split("_")
    return int(fold.removeprefix("fold-")), int(seed.removeprefix("seed-"))
