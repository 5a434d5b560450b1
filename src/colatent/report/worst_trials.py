"""The test trials that a model predicts worst."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from colatent.report.model_results import ModelResults

WORST = 6


class WorstTrials(NamedTuple):
    """Rows of the worst trials of one question; ``typical`` is the median n.r.m.s.e. over all trials."""

    heldout: str
    predicted: str
    given: str
    rows: list[dict[str, object]]
    typical: float


def worst_trials(model: ModelResults) -> list[WorstTrials]:
    """Return the trials with the largest r.m.s. residual of each question, worst first."""
    found = []
    for (heldout, predicted), fits in model.diagnostics.items():
        table = trial_errors(model, heldout, predicted)
        given = str(next(iter(fits.values())).attrs["given"])
        worst = table.sort_values("nrmse", ascending=False, kind="stable").head(WORST)
        rows = [{str(k): v for k, v in row.items()} for row in worst.to_dict("records")]
        found.append(WorstTrials(heldout, predicted, given, rows, float(table["nrmse"].median())))
    return found


def trial_errors(model: ModelResults, heldout: str, predicted: str) -> pd.DataFrame:
    """Return one row per test trial, mean over seeds: trial, condition, start_s, fold, nrmse,
    log_density, n.
    """
    results = model.session
    tables = []
    for (fold, _), data in model.diagnostics[heldout, predicted].items():
        own = data[["nrmse", "log_density", "n"]].to_dataframe().reset_index()
        tables.append(own.assign(fold=fold))
    table = pd.concat(tables).groupby(["trial", "fold"], as_index=False)[["nrmse", "log_density", "n"]].mean()
    table = table[table["n"] > 0]
    trial = table["trial"].to_numpy(dtype=int)
    condition = np.full(len(trial), "") if results.condition is None else results.condition[trial]
    start = (
        results.trials["start"].values[trial] if "start" in results.trials else np.full(len(trial), np.nan)
    )
    return table.assign(condition=condition, start_s=start)


def ranked_trials(model: ModelResults, heldout: str, predicted: str) -> dict[int, str]:
    """Return trial -> rank of the best, median and worst trial among those with a stored prediction."""
    data = model.session.reconstructions.get((model.model, heldout, predicted))
    if data is None or (heldout, predicted) not in model.diagnostics:
        return {}
    table = trial_errors(model, heldout, predicted)
    own = table[(table["fold"] == model.session.shown_fold) & table["trial"].isin(data["trial"].values)]
    trials = own.sort_values("nrmse", kind="stable")["trial"].astype(int).tolist()
    if len(trials) < 3:
        return dict.fromkeys(trials, "")
    return {trials[0]: "best", trials[len(trials) // 2]: "median", trials[-1]: "worst"}
