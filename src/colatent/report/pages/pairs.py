"""Differences between every pair of models of a session on the same question, for its page."""

from typing import Any, NamedTuple

import numpy as np

from colatent.data.metrics import main_metric
from colatent.report.session_results import SessionResults
from colatent.report.text.numbers import number, signed
from colatent.scoring.paired import least_p_value, paired_differences


class Pair(NamedTuple):
    """A row of texts: ``model`` minus ``other``."""

    given: str
    model: str
    other: str
    difference: str
    folds: int
    p_value: str


def pairs(results: SessionResults) -> dict[tuple[str, str], list[Pair]]:
    """Return the pairs of each question: (heldout, predicted) -> rows, of the modality's main metric."""
    scores = results.scores
    found: dict[tuple[str, str], list[Pair]] = {}
    for modality in results.modalities.values():
        metric = main_metric(modality.counts)
        own = scores[(scores["predicted"] == modality.name) & (scores["metric"] == metric)]
        table: Any = paired_differences(own)
        for row in table.itertuples():
            known = np.isfinite(row.standard_error)
            difference = signed(row.difference) + (f" ± {number(row.standard_error)}" if known else "")
            p_value = "–" if np.isnan(row.p_value) else f"{row.p_value:.3g}"
            given = results.words.given(row.given)
            pair = Pair(given, row.model, row.other, difference, row.n_folds, p_value)
            found.setdefault((row.heldout, row.predicted), []).append(pair)
    return found


def p_value_text(rows: list[Pair]) -> str:
    """Return how p-values are computed, and how low they can be."""
    folds = max(row.folds for row in rows)
    if folds < 2:
        return "No two models share two folds with scores, so there is no p."
    fewer = "; with fewer folds the bound is higher" if min(row.folds for row in rows) < folds else ""
    return (
        "p: sign-flip permutation test, two-sided, not corrected for the number of comparisons; with "
        f"{folds} folds it is never below {least_p_value(folds):.2g}{fewer}. Folds share training data, so "
        "it is approximate."
    )
