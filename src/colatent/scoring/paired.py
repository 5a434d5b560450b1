"""Which of two models scores better on the same held-out data, and could it be chance?"""

from itertools import combinations, product
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

METRICS = ("bits_per_spike", "psth_r2", "r2", "nrmse", "log_density")
MOST_ENUMERATED = 14  # differences; signs of more are drawn
N_DRAWN = 9_999


class Question(NamedTuple):
    """What models are compared on, as in the columns of the table of scores."""

    session: str
    heldout: str
    given: str
    predicted: str
    metric: str

    def given_nothing(self) -> "Question":
        """Return the question as a model answers it that looks at no modality: one not given is no other."""
        heldout = "trials" if self.heldout in ("modality", "decoding") else self.heldout
        return self._replace(heldout=heldout, given="none")

    def without_latents(self) -> "Question":
        """Return the question as a model answers it that has no latents to decode from."""
        return self._replace(heldout="modality") if self.heldout == "decoding" else self


QUESTION = list(Question._fields)
COLUMNS = [*QUESTION, "model", "other", "difference", "standard_error", "n_folds", "p_value"]


def sign_flip_p_value(difference: NDArray[np.float64]) -> float:
    """Return the two-sided p-value of a mean difference of zero.

    Under the null hypothesis the sign of each difference (n,) is a coin's: the p-value is the share of
    all 2^n assignments of signs whose mean is at least as far from zero. Beyond ``MOST_ENUMERATED``, of
    ``N_DRAWN`` random ones and the observed one (Phipson & Smyth 2010, doi 10.2202/1544-6115.1585).

    An infinite difference (one model held impossible what happened) counts as larger than all finite
    ones together; the p-value is the one that any finite number so large would give.
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
    """Return the smallest p-value that ``n`` differences can have: with 5 folds 0.0625."""
    return 2 / 2**n if n <= MOST_ENUMERATED else 1 / (N_DRAWN + 1)


def paired_differences(scores: pd.DataFrame) -> pd.DataFrame:
    """Return pairs of models on each question: mean difference over folds, and its sign-flip p-value.

    Folds are the pairs: pooled scores are averaged over seeds first. A model that is given no modality (the
    condition mean, told at most the trial's condition) stands beside the others in every question about its
    modality; one without latents (a lag regression) stands with its cross-prediction beside what is decoded
    from latents. Folds share training trials, so that p-values are approximate; they are not corrected for
    the number of comparisons.

    Args:
        scores: `scores.csv`.

    Returns:
        Columns ``COLUMNS``: ``difference`` is ``model`` minus ``other`` in the metric's unit (of all
        metrics but ``nrmse``, more is better), ``standard_error`` that of its mean over the ``n_folds``
        in which both have the score and not both the same infinite one, whose difference is unknown. NaN,
        and no p-value, with fewer than two such folds. A difference that is infinite in one fold is
        infinite (NaN if in another fold it is so the other way), with a p-value but no standard error.
    """
    pooled = scores[(scores["channel"] == "pooled") & scores["metric"].isin(METRICS)]
    by_fold = pooled.groupby([*QUESTION, "model", "fold"], sort=False)["value"].mean()
    answers: dict[Question, dict[str, dict[int, float]]] = {}
    for *asked, model, fold, value in by_fold.reset_index().itertuples(index=False):
        answers.setdefault(Question(*asked), {}).setdefault(model, {})[fold] = value
    rows = []
    for question, own in answers.items():
        others = answers.get(question.without_latents(), {}) | answers.get(question.given_nothing(), {})
        by_model = own | {model: score for model, score in others.items() if model not in own}
        for model, other in combinations(by_model, 2):
            if model not in own:  # of two that only stand beside the others, another question tells
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
