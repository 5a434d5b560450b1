"""Scores over folds: the table of models and baselines, its differences, the headline numbers."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.report.session_results import SessionResults
from colatent.report.text.labels import (
    METRICS,
    heldout_statement,
    number,
)

HELDOUT_ORDER = ("trials", "channels", "time", "modality", "decoding")


class Summary(NamedTuple):
    """Mean and standard error over folds, after averaging over seeds; ``fold`` has each fold's value."""

    mean: float
    sem: float
    fold: NDArray[np.float64]

    @property
    def folds(self) -> str:
        """What to add where not all folds have a value."""
        good = int((~np.isnan(self.fold)).sum())
        return "" if good == len(self.fold) else f" ({good} of {len(self.fold)} folds)"


# from the level, in coverage: more is said beside the score
MISCALIBRATED = 0.04


@dataclass(frozen=True)
class Row:
    """One model, with what it was given, in a table of scores.

    Attributes:
        n: number of observations that the main metric pools, over folds.
        channels_without_score: number of channels without the main metric in some fold, of ``n_channels``.
        more_without: of a metric that more channels lack -> their number.
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


@dataclass(frozen=True)
class Block:
    """All models that predicted one modality, with the same thing held out."""

    heldout: str
    predicted: str
    metric: str
    second_metric: str | None
    statement: str
    rows: tuple[Row, ...]

    @property
    def metric_name(self) -> str:
        return METRICS[self.metric]


def summarise(fold: NDArray[np.float64]) -> Summary:
    """Return mean and s.e.m. over the folds that have a value (fold,); NaN s.e.m. for fewer than two."""
    good = fold[~np.isnan(fold)]
    mean = float(good.mean()) if len(good) else np.nan
    known = len(good) > 1 and np.isfinite(good).all()
    sem = float(good.std(ddof=1) / np.sqrt(len(good))) if known else np.nan
    return Summary(mean, sem, fold)


def blocks(results: SessionResults) -> list[Block]:
    """Return the tables of a session, in the order of ``HELDOUT_ORDER``."""
    found = []
    for heldout in HELDOUT_ORDER:
        for modality in results.modalities.values():
            block = _block(results, heldout, modality.name, modality.main_metric)
            if block.rows:
                found.append(block)
    return found


def _block(results: SessionResults, heldout: str, predicted: str, metric: str) -> Block:
    scores = results.scores[results.scores["predicted"] == predicted]
    wanted = scores["heldout"] == heldout
    if heldout in ("modality", "decoding") and wanted.any():
        wanted |= _beside(scores, wanted)
    rows = []
    for model in results.config.models:
        own = scores[wanted & (scores["model"] == model)]
        for given in shown_sets(own["given"].unique()):
            rows.append(_row(results, model, given, own[own["given"] == given], metric))
    second = next((m for m in ("psth_r2", "nrmse") if rows and m in rows[0].metrics), None)
    return Block(
        heldout,
        predicted,
        metric,
        second,
        heldout_statement(heldout, predicted, results.trial_word, results.end, results.nothing),
        tuple(_mark_best(_compare(rows, metric), metric)),
    )


def _beside(scores: pd.DataFrame, wanted: pd.Series) -> pd.Series:
    """Return the scores of models that answer no such question, and saw no more of the modality either.

    They are those of the condition mean, and beside what is decoded from latents the cross-prediction of
    models that have none, the lag regressions, given the same modalities.
    """
    others = ~scores["model"].isin(scores.loc[wanted, "model"])
    same = (scores["heldout"] == "modality") & scores["given"].isin(scores.loc[wanted, "given"])
    nothing = (scores["heldout"] == "trials") & (scores["given"] == "none")
    return others & (same | nothing)


def shown_sets(given: NDArray) -> list[str]:
    """The largest set of given modalities and each one alone; the matrix shows all others."""
    ordered = sorted(given, key=lambda g: (-len(g.split("+")), g))
    return [g for i, g in enumerate(ordered) if i == 0 or "+" not in g]


def _row(results: SessionResults, model: str, given: str, scores: pd.DataFrame, metric: str) -> Row:
    pooled = scores[scores["channel"] == "pooled"]
    metrics = {
        str(name): summarise(_by_fold(table, results.config.heldout.folds))
        for name, table in pooled.groupby("metric")
    }
    channels = scores[scores["channel"] != "pooled"]
    lacking = channels[channels["value"].isna()].groupby("metric")["channel"].nunique()
    without = int(lacking.get(metric, 0))
    n = pooled[pooled["metric"] == metric].groupby("seed")["n"].sum().mean()
    return Row(
        model=model,
        baseline=results.is_baseline(model),
        given=given,
        metrics=metrics,
        n=int(n) if np.isfinite(n) else 0,
        channels_without_score=without,
        n_channels=int(channels.loc[channels["metric"] == metric, "channel"].nunique()),
        more_without={str(name): int(count) for name, count in lacking.items() if count > without},
    )


def _by_fold(table: pd.DataFrame, folds: int) -> NDArray[np.float64]:
    return table.groupby("fold")["value"].mean().reindex(range(folds)).to_numpy(dtype=float)


def _compare(rows: list[Row], metric: str) -> list[Row]:
    """Give every model's row its paired difference from the best baseline that saw the same, or nothing."""
    compared = []
    for row in rows:
        rivals = [r for r in rows if r.baseline and metric in r.metrics and r.given in (row.given, "none")]
        if row.baseline or metric not in row.metrics or not rivals:
            compared.append(row)
            continue
        best = max(rivals, key=lambda r: np.nan_to_num(r.metrics[metric].mean, nan=-np.inf))
        difference = summarise(row.metrics[metric].fold - best.metrics[metric].fold)
        compared.append(replace(row, difference=difference, compared_with=best.model))
    return compared


def _mark_best(rows: list[Row], metric: str) -> list[Row]:
    means = [r.metrics[metric].mean if metric in r.metrics else np.nan for r in rows]
    top = np.nanmax(means) if np.isfinite(means).any() else np.nan
    return [replace(r, best=bool(m == top)) for r, m in zip(rows, means, strict=True)]


@dataclass(frozen=True)
class Headline:
    """One number at the head of a session, with what was held out for it."""

    value: Summary
    metric: str
    title: str
    detail: str


def headlines(results: SessionResults, tables: list[Block], limit: int = 6) -> list[Headline]:
    """Return the numbers of the session's main model, hardest questions first."""
    order = {"channels": 0, "modality": 1, "trials": 2, "time": 3, "decoding": 4}
    found = []
    for block in sorted(tables, key=lambda b: order[b.heldout]):
        own = [r for r in block.rows if r.model == results.main_model and block.metric in r.metrics]
        if own:
            # the row that baselines can be compared with, if there is one
            alone = [r for r in own if r.given == block.predicted]
            found.append(_headline(block, (alone or own)[0], results.trial_word, results.end))
    recovered = _recovery_headlines(results)
    return found[: limit - len(recovered)] + recovered


def _headline(block: Block, row: Row, word: str, end: str) -> Headline:
    titles = {
        "trials": f"{block.predicted} reconstructed",
        "channels": f"hidden channels of {block.predicted}",
        "time": f"{block.predicted} predicted forward",
        "modality": f"{block.predicted} predicted from {row.given}",
        "decoding": f"{block.predicted} decoded from the latents of {row.given}",
    }
    details = {
        "trials": f"held out: {word}s; inference saw {row.given} of the test {word}s, so {block.predicted} "
        "too",
        "channels": f"held out: {word}s, and in them the scored channels; inference saw the others of "
        f"{row.given}",
        "time": f"held out: {word}s, and in them the {end}; inference saw {row.given} until then",
        "modality": f"held out: {word}s, and in them all of {block.predicted}",
        "decoding": f"held out: {word}s, and in them all of {block.predicted}; a ridge readout fitted on "
        f"training {word}s",
    }
    detail = details[block.heldout]
    if row.difference is not None:
        rival = next(r for r in block.rows if r.model == row.compared_with and r.given in (row.given, "none"))
        detail += f". Best baseline: {number(rival.metrics[block.metric].mean)} ({rival.model})"
    covered = row.metrics["coverage_95"].mean if "coverage_95" in row.metrics else np.nan
    if abs(covered - 0.95) > MISCALIBRATED:
        word = "too narrow" if covered < 0.95 else "too wide"
        detail += f". Its 95 % intervals are {word}: they hold {100 * covered:.0f} %"
    return Headline(row.metrics[block.metric], block.metric_name, titles[block.heldout], detail)


def _recovery_headlines(results: SessionResults) -> list[Headline]:
    table = results.recovery[results.recovery["model"] == results.main_model]
    if table.empty:
        return []
    latents = {key: rows.groupby("fold")["r2"].mean() for key, rows in table.groupby(["group", "latent"])}
    (group, _), fold = min(latents.items(), key=lambda item: item[1].mean())
    detail = (
        f"held out: {results.trial_word}s; the least well recovered of the simulation’s true latents "
        f"({group}), aligned on the training {results.trial_word}s"
    )
    return [Headline(summarise(fold.to_numpy(dtype=float)), "R²", "worst true latent", detail)]
