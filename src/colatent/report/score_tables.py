"""Scores over folds: tables of models and baselines, with differences from the best baseline."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from colatent.data.metrics import METRICS, main_metric
from colatent.report.session_results import SessionResults
from colatent.report.text.heldout import HELDOUT, heldout_statement


class Summary(NamedTuple):
    """Mean and standard error over folds, after averaging over seeds; ``fold`` has each fold's value."""

    mean: float
    sem: float
    fold: NDArray[np.float64]

    @property
    def folds(self) -> str:
        """Note on folds without a value; empty if all have one."""
        good = int((~np.isnan(self.fold)).sum())
        return "" if good == len(self.fold) else f" ({good} of {len(self.fold)} folds)"

    @property
    def apart(self) -> int | None:
        """The fold that the others would not lead one to expect, if there is one; of less than four, none.

        Its value lies outside the prediction interval (level 99 % for all folds together) of a normal
        distribution with mean and s.d. of the others (Hahn & Meeker 1991, section 4.7).
        """
        n = len(self.fold)
        if n < 4 or not np.isfinite(self.fold).all():
            return None
        others = [np.delete(self.fold, i) for i in range(n)]
        spread = [np.std(x, ddof=1) * np.sqrt(1 + 1 / (n - 1)) for x in others]
        distance = np.array([abs(y - x.mean()) for y, x in zip(self.fold, others, strict=True)])
        t = distance / np.maximum(spread, np.finfo(float).tiny)
        furthest = int(np.argmax(t))
        return furthest if t[furthest] > stdtrit(n - 2, 1 - 0.005 / n) else None


@dataclass(frozen=True)
class ScoreRow:
    """One model, with what it was given, in a table of scores.

    Attributes:
        n: number of observations that the main metric pools, over folds.
        channels_without_score: number of channels without the main metric in some fold, of ``n_channels``.
        more_without: metric -> number of channels without it, where more than without the main one.
    """

    model: str
    baseline: bool
    given: str
    metrics: dict[str, Summary]
    n: int
    channels_without_score: int
    n_channels: int
    more_without: dict[str, int]
    difference: Summary | None = None
    compared_with: str = ""
    best: bool = False


class ScoreColumn(NamedTuple):
    """A column besides the main metric's, shared by ``metrics``; a bare one shows means only."""

    head: str
    metrics: tuple[str, ...]
    bare: bool


@dataclass(frozen=True)
class ScoreTable:
    """All models that predicted one modality, with the same thing held out."""

    heldout: str
    predicted: str
    metric: str
    statement: str
    rows: tuple[ScoreRow, ...]

    @property
    def metric_name(self) -> str:
        return METRICS[self.metric].title

    @property
    def columns(self) -> list[ScoreColumn]:
        """The columns of all other metrics in any row, in the order of `METRICS`."""
        present = {name for row in self.rows for name in row.metrics} - {self.metric}
        found: dict[str, list[str]] = {}
        for name, metric in METRICS.items():
            if name in present:
                found.setdefault(metric.column or metric.title, []).append(name)
        return [
            ScoreColumn(head, tuple(names), METRICS[names[0]].more_is_better is None)
            for head, names in found.items()
        ]


def summarise(fold: NDArray[np.float64]) -> Summary:
    """Return mean and s.e.m. over the folds that have a value (fold,); NaN s.e.m. for fewer than two."""
    good = fold[~np.isnan(fold)]
    mean = float(good.mean()) if len(good) else np.nan
    known = len(good) > 1 and np.isfinite(good).all()
    sem = float(good.std(ddof=1) / np.sqrt(len(good))) if known else np.nan
    return Summary(mean, sem, fold)


def score_tables(results: SessionResults) -> list[ScoreTable]:
    """Return the tables of a session, in the order of ``HELDOUT``."""
    tables = (
        _table(results, heldout, modality.name, main_metric(modality.counts))
        for heldout in HELDOUT
        for modality in results.modalities.values()
    )
    return [table for table in tables if table.rows]


def _table(results: SessionResults, heldout: str, predicted: str, metric: str) -> ScoreTable:
    scores = results.scores[results.scores["predicted"] == predicted]
    wanted = scores["heldout"] == heldout
    if HELDOUT[heldout].from_others and wanted.any():
        wanted |= _beside(scores, wanted)
    rows = []
    for model in results.config.models:
        own = scores[wanted & (scores["model"] == model)]
        for given in shown_sets(own["given"].unique()):
            rows.append(_row(results, model, given, own[own["given"] == given], metric))
    statement = heldout_statement(heldout, predicted, results.words)
    return ScoreTable(
        heldout, predicted, metric, statement, tuple(_mark_best(_compare(rows, metric), metric))
    )


def _beside(scores: pd.DataFrame, wanted: pd.Series) -> pd.Series:
    """Return comparable scores of models that are not asked this question and saw nothing more.

    These are the condition mean and, where latents are decoded, the cross-predictions of models without
    latents given the same modalities.
    """
    others = ~scores["model"].isin(scores.loc[wanted, "model"])
    same = (scores["heldout"] == "modality") & scores["given"].isin(scores.loc[wanted, "given"])
    nothing = (scores["heldout"] == "trials") & (scores["given"] == "none")
    return others & (same | nothing)


def shown_sets(given: NDArray) -> list[str]:
    """Return the largest set of given modalities and each one alone; the matrix shows the other sets."""
    ordered = sorted(given, key=lambda g: (-len(g.split("+")), g))
    return [g for i, g in enumerate(ordered) if i == 0 or "+" not in g]


def _row(results: SessionResults, model: str, given: str, scores: pd.DataFrame, metric: str) -> ScoreRow:
    pooled = scores[scores["channel"] == "pooled"]
    metrics = {
        str(name): summarise(_by_fold(table, results.config.heldout.folds))
        for name, table in pooled.groupby("metric")
    }
    channels = scores[scores["channel"] != "pooled"]
    lacking = channels[channels["value"].isna()].groupby("metric")["channel"].nunique()
    without = int(lacking.get(metric, 0))
    n = pooled[pooled["metric"] == metric].groupby("seed")["n"].sum().mean()
    return ScoreRow(
        model=model,
        baseline=results.config.models[model].record.baseline,
        given=given,
        metrics=metrics,
        n=int(n) if np.isfinite(n) else 0,
        channels_without_score=without,
        n_channels=int(channels.loc[channels["metric"] == metric, "channel"].nunique()),
        more_without={str(name): int(count) for name, count in lacking.items() if count > without},
    )


def _by_fold(table: pd.DataFrame, folds: int) -> NDArray[np.float64]:
    return table.groupby("fold")["value"].mean().reindex(range(folds)).to_numpy(dtype=float)


def _worth(row: ScoreRow, metric: str) -> float:
    """Return a row's mean of a metric, negated if less is better; NaN without one."""
    mean = row.metrics[metric].mean if metric in row.metrics else np.nan
    return mean if METRICS[metric].more_is_better else -mean


def _compare(rows: list[ScoreRow], metric: str) -> list[ScoreRow]:
    """Give every model's row its paired difference from the best baseline that saw the same or nothing."""
    compared = []
    for row in rows:
        rivals = [r for r in rows if r.baseline and metric in r.metrics and r.given in (row.given, "none")]
        if row.baseline or metric not in row.metrics or not rivals:
            compared.append(row)
            continue
        best = max(rivals, key=lambda r: np.nan_to_num(_worth(r, metric), nan=-np.inf))
        difference = summarise(row.metrics[metric].fold - best.metrics[metric].fold)
        compared.append(replace(row, difference=difference, compared_with=best.model))
    return compared


def _mark_best(rows: list[ScoreRow], metric: str) -> list[ScoreRow]:
    worth = [_worth(r, metric) for r in rows]
    top = np.nanmax(worth) if np.isfinite(worth).any() else np.nan
    return [replace(r, best=bool(w == top)) for r, w in zip(rows, worth, strict=True)]
