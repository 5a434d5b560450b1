"""Where in a trial, and in which trials, a model's held-out predictions go wrong."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from colatent.data.scaling import Standardizer
from colatent.data.trials import Trials
from colatent.scoring.answers import Answer

Array = NDArray[np.float64]


def diagnostics(answered: Answer, training: Trials, scale: Array, scorable: NDArray[np.bool_]) -> xr.Dataset:
    """Return errors of each test trial and of each bin.

    Residuals (observed minus predicted) are in units of ``scale`` (channel,), each channel's s.d. in the
    training trials, and averaged over all ``scorable`` channels (channel,) that have one: units silent in
    training have none.

    Returns:
        ``log_density`` (trial; nats per scored bin and channel), ``nrmse`` (trial; root mean squared
        residual), ``n`` (trial; number of scored bins x channels), ``residual_mean`` and ``residual_rms``
        (time), and ``baseline_rms`` (time): the r.m.s. about each channel's mean in the training trials.
    """
    task = answered.task
    values, observed = training.values[task.predicted], training.observed[task.predicted]
    scored = answered.scored & scorable & np.isfinite(scale)
    scale = np.where(np.isfinite(scale), scale, 1.0)
    residual = (answered.observation - answered.mean) / scale
    baseline = (answered.observation - Standardizer.fit(values, observed).mean) / scale
    return xr.Dataset(
        {
            "log_density": ("trial", _mean(answered.log_density, scored, (1, 2))),
            "nrmse": ("trial", np.sqrt(_mean(residual**2, scored, (1, 2)))),
            "n": ("trial", scored.sum(axis=(1, 2))),
            "residual_mean": ("time", _mean(residual, scored, (0, 2))),
            "residual_rms": ("time", np.sqrt(_mean(residual**2, scored, (0, 2)))),
            "baseline_rms": ("time", np.sqrt(_mean(baseline**2, scored, (0, 2)))),
        },
        coords={"trial": np.arange(len(scored))},
        attrs={"given": task.given_name, "heldout": task.heldout},
    )


def _mean(value: Array, scored: NDArray[np.bool_], axis: tuple[int, int]) -> Array:
    """Mean over what is scored; NaN where nothing is."""
    n = scored.sum(axis=axis)
    return np.where(n > 0, np.where(scored, value, 0.0).sum(axis=axis) / np.maximum(n, 1), np.nan)
