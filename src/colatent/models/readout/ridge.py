"""Ridge regression with the penalty chosen inside the training trials."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colatent.data.splits import inner_folds

Array = NDArray[np.float64]
# in units of the predictors' mean variance: from as good as none to the mean of y alone
PENALTIES = np.concatenate([[1e-3], np.logspace(0, 5, 6), [1e9]])
INNER_FOLDS = 3


class RidgeFit(NamedTuple):
    """y = x ``weight`` + ``intercept``.

    Attributes:
        weight: (predictor, channel). intercept: (channel,).
        residual: (channel,), r.m.s. error in trials held out of the regression.
    """

    weight: Array
    intercept: Array
    residual: Array


def fit_ridge(x: Array, y: Array, observed: NDArray[np.bool_], time_locked: bool) -> RidgeFit:
    """Regress y on x bin by bin, with the penalty chosen by cross-validation over trials.

    Penalties are relative to the predictors' mean variance, so that a common scale of x does not matter;
    the relative scales of predictors do.

    Args:
        x: predictors of the training trials (trial, time, predictor).
        y: targets (trial, time, channel).
        observed: mask of y; other bins are ignored.
        time_locked: False for windows of a continuous recording, which are held out in blocks.
    """
    from sklearn.linear_model import Ridge  # slow to import, and not needed for scoring

    n_channels = y.shape[-1]
    weight, intercept = np.zeros((x.shape[-1], n_channels)), np.zeros(n_channels)
    residual = np.ones(n_channels)
    trial = np.repeat(np.arange(len(y)), y.shape[1])
    rows, target = x.reshape(len(trial), -1), y.reshape(len(trial), -1)
    # channels observed in the same bins share one regression
    patterns, which = np.unique(observed.reshape(len(trial), -1), axis=1, return_inverse=True)
    for i, seen in enumerate(patterns.T):
        channel = which == i
        if not seen.any():
            continue
        own = target[np.ix_(seen, channel)]
        penalties = PENALTIES * _mean_variance(rows[seen])
        chosen, residual[channel] = _choose_penalty(rows[seen], own, trial[seen], time_locked, penalties)
        model = Ridge(chosen).fit(rows[seen], own)
        weight[:, channel] = np.reshape(model.coef_, (-1, rows.shape[1])).T
        intercept[channel] = model.intercept_
    return RidgeFit(weight, intercept, residual)


def _mean_variance(x: Array) -> float:
    """Return the variance of x (row, predictor), averaged over predictors; 1 if only rounding error."""
    variance = float(x.var(axis=0).mean())
    return variance if variance > 1e-24 * float((x**2).mean()) else 1.0


def _choose_penalty(
    x: Array, y: Array, trial: NDArray[np.int_], time_locked: bool, penalties: Array
) -> tuple[float, Array]:
    """Return the penalty with the least held-out error, and each channel's r.m.s. error at it."""
    seen, position = np.unique(trial, return_inverse=True)
    folds = inner_folds(len(seen), INNER_FOLDS, time_locked)
    if not folds:
        return float(penalties[-1]), y.std(axis=0)
    error = np.zeros((len(penalties), y.shape[1]))
    for train, test in ((np.isin(position, part) for part in fold) for fold in folds):
        mean_x, mean_y = x[train].mean(axis=0), y[train].mean(axis=0)
        centred, test_x = x[train] - mean_x, x[test] - mean_x
        covariance, projected = centred.T @ centred, centred.T @ (y[train] - mean_y)
        for i, penalty in enumerate(penalties):
            weight = _solve(covariance, penalty, projected)
            error[i] += ((y[test] - mean_y - test_x @ weight) ** 2).sum(axis=0)
    best = int(error.sum(axis=1).argmin())
    return float(penalties[best]), np.sqrt(error[best] / len(y))


def _solve(covariance: Array, penalty: float, projected: Array) -> Array:
    """Return (covariance + penalty I)^-1 projected: eight Cholesky factors cost less than one eigenbasis."""
    from scipy.linalg import cho_factor, cho_solve

    penalised = covariance.copy()
    penalised[np.diag_indices_from(penalised)] += penalty
    solved: Array = cho_solve(cho_factor(penalised, overwrite_a=True, check_finite=False), projected)
    return solved
