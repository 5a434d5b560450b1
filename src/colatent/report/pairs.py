"""Differences between every two models of a session on the same question, for the tables of its page."""

from typing import Any, NamedTuple

import numpy as np

from colatent.report.results import SessionResults
from colatent.report.words import given_text, number, signed
from colatent.scoring.paired import paired_differences


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
        own = scores[(scores["predicted"] == modality.name) & (scores["metric"] == modality.main_metric)]
        table: Any = paired_differences(own)
        for row in table.itertuples():
            error = number(row.standard_error)
            difference = f"{signed(row.difference)} ± {error}" if row.n_folds > 1 else signed(row.difference)
            p_value = "–" if np.isnan(row.p_value) else f"{row.p_value:.3g}"
            pair = Pair(given_text(row.given), row.model, row.other, difference, row.n_folds, p_value)
            found.setdefault((row.heldout, row.predicted), []).append(pair)
    return found
