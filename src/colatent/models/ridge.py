"""Ridge regression whose penalty is chosen inside the training trials."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from colatent.splits import inner_folds

Array = NDArray[np.float64]
PENALTIES = np.logspace(0, 5, 6)
INNER_FOLDS = 3


class RidgeFit(NamedTuple):
    """y = x ``weight`` + ``intercept``.

    Attributes:
        weight: (predictor, channel). intercept: (channel,).
        residual: (channel,), r.m.s. error in trials that the regression was not fitted to.
    """

    weight: Array
    intercept: Array
    residual: Array


def fit_ridge(x: Array, y: Array, observed: NDArray[np.bool_], time_locked: bool) -> RidgeFit:
    """Regress every bin of y on the same bin of x; the penalty is chosen by cross-validation over trials.

    Args:
        x: (trial, time, predictor) of the training trials.
        y: (trial, time, channel). ``observed``: of the same shape; other bins are not looked at.
        time_locked: False for windows of a continuous recording, which are left out in blocks.
    """
    from sklearn.linear_model import Ridge  # takes two seconds, and not all who score need it

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
        chosen, residual[channel] = _choose_penalty(rows[seen], own, trial[seen], time_locked)
        model = Ridge(chosen).fit(rows[seen], own)
        weight[:, channel] = np.reshape(model.coef_, (-1, rows.shape[1])).T
        intercept[channel] = model.intercept_
    return RidgeFit(weight, intercept, residual)


def _choose_penalty(x: Array, y: Array, trial: NDArray[np.int_], time_locked: bool) -> tuple[float, Array]:
    """Return the penalty with the least held-out error, and each channel's r.m.s. error at it."""
    seen, position = np.unique(trial, return_inverse=True)
    folds = inner_folds(len(seen), INNER_FOLDS, time_locked)
    if not folds:
        return float(PENALTIES[-1]), y.std(axis=0)
    error = np.zeros((len(PENALTIES), y.shape[1]))
    for train, test in ((np.isin(position, part) for part in fold) for fold in folds):
        # all penalties from one decomposition of the predictors' covariance
        mean_x, mean_y = x[train].mean(axis=0), y[train].mean(axis=0)
        centred = x[train] - mean_x
        value, vector = np.linalg.eigh(centred.T @ centred)
        projected = vector.T @ (centred.T @ (y[train] - mean_y))
        test_x = (x[test] - mean_x) @ vector
        for i, penalty in enumerate(PENALTIES):
            prediction = test_x @ (projected / (value.clip(0)[:, None] + penalty)) + mean_y
            error[i] += ((y[test] - prediction) ** 2).sum(axis=0)
    best = int(error.sum(axis=1).argmin())
    return float(PENALTIES[best]), np.sqrt(error[best] / len(y))
