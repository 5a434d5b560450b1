"""The headline numbers of a session's main model."""

from dataclasses import dataclass

import numpy as np

from colatent.report.score_tables import ScoreRow, ScoreTable, Summary, summarise
from colatent.report.session_results import SessionResults
from colatent.report.text.heldout import HELDOUT
from colatent.report.text.numbers import number
from colatent.report.text.words import Words

MOST = 6
MISCALIBRATED = 0.04  # difference of coverage from nominal beyond which the headline mentions it


@dataclass(frozen=True)
class Headline:
    """One number at the head of a session, with what was held out for it."""

    value: Summary
    metric: str
    title: str
    detail: str


def headlines(results: SessionResults, tables: list[ScoreTable]) -> list[Headline]:
    """Return the numbers of the session's main model, hardest questions first."""
    found = []
    for table in sorted(tables, key=lambda t: HELDOUT[t.heldout].rank):
        own = [r for r in table.rows if r.model == results.main_model and table.metric in r.metrics]
        if own:
            # the row that baselines can be compared with, if there is one
            alone = [r for r in own if r.given == table.predicted]
            found.append(_headline(table, (alone or own)[0], results.words))
    recovered = _recovery_headlines(results)
    return found[: MOST - len(recovered)] + recovered


def _headline(table: ScoreTable, row: ScoreRow, words: Words) -> Headline:
    kind, names = HELDOUT[table.heldout], {"predicted": table.predicted, "given": row.given}
    saw = "inference saw {nothing}" if row.given == "none" else kind.saw
    detail = words.fill("; ".join(["held out: " + kind.held, *([saw] if saw else [])]), **names)
    if row.difference is not None:
        rival = next(r for r in table.rows if r.model == row.compared_with and r.given in (row.given, "none"))
        detail += f". Best baseline: {number(rival.metrics[table.metric].mean)} ({rival.model})"
    covered = row.metrics["coverage_95"].mean if "coverage_95" in row.metrics else np.nan
    if abs(covered - 0.95) > MISCALIBRATED:
        fault = "too narrow" if covered < 0.95 else "too wide"
        detail += f". Its 95 % intervals are {fault}: they contain {100 * covered:.0f} %"
    if (apart := row.metrics[table.metric].apart) is not None:
        each = row.metrics[table.metric].fold
        rest = number(float(np.delete(each, apart).mean()))
        detail += f". Fold {apart} stands apart: {number(float(each[apart]))}, the others {rest} on average"
    title = words.fill(kind.headline, **names)
    return Headline(row.metrics[table.metric], table.metric_name, title, detail)


def _recovery_headlines(results: SessionResults) -> list[Headline]:
    table = results.recovery[results.recovery["model"] == results.main_model]
    if table.empty:
        return []
    latents = {key: rows.groupby("fold")["r2"].mean() for key, rows in table.groupby(["group", "latent"])}
    (group, _), fold = min(latents.items(), key=lambda item: item[1].mean())
    trials = results.words.trials
    detail = (
        f"held out: {trials}; the least well recovered of the simulation’s true latents ({group}), aligned "
        f"on the training {trials}"
    )
    return [Headline(summarise(fold.to_numpy(dtype=float)), "R²", "worst true latent", detail)]
