"""Paired comparisons of models on the same held-out data."""

from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.data.metrics import METRICS

MOST_ENUMERATED = 14  # differences up to which all sign flips are enumerated; beyond, they are sampled
N_DRAWN = 9_999


class PairedQuestion(NamedTuple):
    """A task and metric on which models are compared, as in the columns of the table of scores."""

    session: str
    heldout: str
    given: str
    predicted: str
    metric: str

    def given_nothing(self) -> "PairedQuestion":
        """Return the equivalent question for a model that sees no modality."""
        heldout = "trials" if self.heldout in ("modality", "decoding") else self.heldout
        return self._replace(heldout=heldout, given="none")

    def without_latents(self) -> "PairedQuestion":
        """Return the equivalent question for a model without latents to decode from."""
        return self._replace(heldout="modality") if self.heldout == "decoding" else self


QUESTION = list(PairedQuestion._fields)
COLUMNS = [*QUESTION, "model", "other", "difference", "standard_error", "n_folds", "p_value"]


def sign_flip_p_value(difference: NDArray[np.float64]) -> float:
    """Return the two-sided sign-flip p-value for the null hypothesis of zero mean difference.

    Under the null hypothesis each difference (n,) has a random sign: the p-value is the share of all 2^n
    sign assignments whose mean is at least as far from zero as the observed one. Beyond ``MOST_ENUMERATED``
    differences, it is the share among ``N_DRAWN`` random assignments and the observed one (Phipson & Smyth
    2010, doi 10.2202/1544-6115.1585).

    An infinite difference (one model gave the observation zero probability) counts as larger than all
    finite differences together.
    """
    n = len(difference)
    beyond = 2 * np.abs(difference[np.isfinite(difference)]).sum() or 1.0
    difference = np.clip(difference, -beyond, beyond)
    if n <= MOST_ENUMERATED:
        signs = np.array(list(product((1.0, -1.0), repeat=n)))
    else:
        drawn = np.random.default_rng(0).choice((1.0, -1.0), (N_DRAWN, n))
        signs = np.concatenate([np.ones((1, n)), drawn])
    mean = np.abs(signs @ difference)
    return float((mean >= mean[0] * (1 - 1e-12)).mean())


def least_p_value(n: int) -> float:
    """Return the smallest possible p-value of ``n`` differences: 0.0625 for 5 folds."""
    return 2 / 2**n if n <= MOST_ENUMERATED else 1 / (N_DRAWN + 1)


def paired_differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare each pair of models in each task: mean difference over folds and sign-flip p-value.

    Scores are paired by fold, after averaging pooled scores over seeds. A model given no modality (the
    condition mean, which knows at most the trial's condition) is compared with the others in every task
    that predicts the same modality; a model without latents (a lag regression) enters decoding comparisons
    with its cross-prediction. Folds share training trials, so p-values are approximate; they are not
    corrected for multiple comparisons.

    Args:
        scores: the table `scores.csv`.

    Returns:
        Columns ``COLUMNS``: ``difference`` is ``model`` minus ``other`` in the metric's unit (for most
        metrics more is better; see `METRICS`); ``standard_error`` is the standard error of its mean over the
        ``n_folds`` folds in which both have a score. Folds in which both scores are the same infinity do not
        count. With fewer than two folds, error and p-value are NaN. A difference that is infinite in any fold
        is infinite (NaN if infinities of both signs occur), with a p-value but no standard error.
    """
    compared = [name for name, metric in METRICS.items() if metric.more_is_better is not None]
    pooled = scores[(scores["channel"] == "pooled") & scores["metric"].isin(compared)]
    by_fold = pooled.groupby([*QUESTION, "model", "fold"], sort=False)["value"].mean()
    answers: dict[PairedQuestion, dict[str, dict[int, float]]] = {}
    for *asked, model, fold, value in by_fold.reset_index().itertuples(index=False):
        answers.setdefault(PairedQuestion(*asked), {}).setdefault(model, {})[fold] = value
    rows = []
    for question, own in answers.items():
        others = answers.get(question.without_latents(), {}) | answers.get(question.given_nothing(), {})
        by_model = own | {model: score for model, score in others.items() if model not in own}
        for model, other in combinations(by_model, 2):
            if model not in own:  # neither has this task itself: they are paired in their own
                continue
            both = sorted(by_model[model].keys() & by_model[other].keys())
            difference = np.array([by_model[model][fold] - by_model[other][fold] for fold in both])
            rows.append((*question, model, other, *_summary(difference[~np.isnan(difference)])))
    return pd.DataFrame(rows, columns=COLUMNS)


def _summary(difference: NDArray[np.float64]) -> tuple[float, float, int, float]:
    n = len(difference)
    if n < 2:
        return float(difference.mean()) if n else np.nan, np.nan, n, np.nan
    known = np.isfinite(difference).all()
    error = float(difference.std(ddof=1) / np.sqrt(n)) if known else np.nan
    with np.errstate(invalid="ignore"):  # infinities of both signs: NaN
        mean = float(difference.mean())
    return mean, error, n, sign_flip_p_value(difference)
