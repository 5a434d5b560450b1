"""Choose the number of latents by cross-validated co-smoothing and the one-standard-error rule.

For every number of latents and every fold, the model is fitted to the other folds. In the held-out
trials, each group of channels is predicted from all other channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colatent.data.splits import inner_folds
from colatent.models.gpfa.base import GPFAEstimator
from colatent.models.gpfa.padded_trials import TrialsLike, as_padded_trials

Array = NDArray[np.float64]

_CHANNEL_GROUPS = 4


@dataclass(frozen=True)
class Selection:
    """Co-smoothing scores of the candidate numbers of latents.

    Attributes:
        n_latents: candidates (candidate,).
        r2: share of held-out variance explained (candidate, fold).
        best: the candidate with the largest mean.
        chosen: the smallest candidate within one standard error of ``best``.
    """

    n_latents: tuple[int, ...]
    r2: Array
    best: int
    chosen: int

    @property
    def mean(self) -> Array:
        """Mean over folds (candidate,)."""
        return self.r2.mean(axis=1)

    @property
    def standard_error(self) -> Array:
        """Standard error of the mean over folds (candidate,)."""
        return self.r2.std(axis=1, ddof=1) / np.sqrt(self.r2.shape[1])


def select_n_latents(
    estimator: type[Any],
    trials: TrialsLike,
    n_latents: Sequence[int],
    n_folds: int = 5,
    seed: int = 0,
    time_locked: bool = True,
    **options: Any,
) -> Selection:
    """Choose the number of latents by cross-validated co-smoothing.

    The one-standard-error rule (Hastie, Tibshirani & Friedman 2009, section 7.10) takes the smallest
    model whose mean is within one standard error of the best mean (the standard error of the best model).

    Args:
        estimator: ``GPFA`` or ``CountGPFA``.
        trials: array (trial, time, channel), list or DataArray, as for ``estimator.fit``.
        n_latents: candidates.
        n_folds: number of folds.
        time_locked: False for windows of a continuous recording, whose folds are guarded blocks.
        seed: seed of the random assignment of trials and channels.
        options: options of the estimator.

    Raises:
        ValueError: fewer trials than folds, fewer than two folds, no candidates, or too few channels.
    """
    data = as_padded_trials(trials)
    values = np.where(data.observed, data.value, np.nan)
    n_trials, _, n_channels = values.shape
    if not 2 <= n_folds <= n_trials or n_channels < _CHANNEL_GROUPS or not n_latents:
        raise ValueError(
            f"need a candidate, at least two folds, a trial per fold and {_CHANNEL_GROUPS} channels"
        )
    rng = np.random.default_rng(seed)
    group = rng.permutation(n_channels) % _CHANNEL_GROUPS
    candidates = tuple(sorted(n_latents))
    folds = inner_folds(n_trials, n_folds, time_locked, seed)
    if len(folds) < 2:
        raise ValueError(f"{n_trials} windows are too few to hold some out with a guard beside them")
    r2 = np.empty((len(candidates), len(folds)))
    for i, q in enumerate(candidates):
        for f, (fit, held) in enumerate(folds):
            model = estimator(n_latents=q, **options).fit(values[fit])
            scale = np.nanstd(values[fit], axis=(0, 1))
            r2[i, f] = co_smoothing_r2(model, values[held], group, scale)
    best = int(r2.mean(axis=1).argmax())
    error = r2[best].std(ddof=1) / np.sqrt(len(folds))
    within = r2.mean(axis=1) >= r2[best].mean() - error
    return Selection(candidates, r2, candidates[best], candidates[int(within.argmax())])


def co_smoothing_r2(
    model: GPFAEstimator, trials: Array, group: NDArray[np.intp], scale: Array | None = None
) -> float:
    """Return the pooled R2 of the channels, each group predicted from the other groups.

    Channels that are constant in ``trials`` or without a positive ``scale`` are left out.

    Args:
        model: a fit.
        trials: (trial, time, channel), NaN where missing.
        group: group of each channel (channel,).
        scale: s.d. of each channel in the training trials (channel,), the unit of its errors.
    """
    squared = np.zeros(trials.shape[2])
    for g in np.unique(group):
        seen = np.where(group == g, np.nan, trials)
        error = trials - model.predict(seen).mean
        squared[group == g] = np.nansum(error**2, axis=(0, 1))[group == g]
    total = np.nansum((trials - np.nanmean(trials, axis=(0, 1))) ** 2, axis=(0, 1))
    scale = np.ones_like(total) if scale is None else scale
    varies = (total > 0) & (scale > 0)
    weight = 1 / scale[varies] ** 2
    return float(1 - (squared[varies] * weight).sum() / (total[varies] * weight).sum())
