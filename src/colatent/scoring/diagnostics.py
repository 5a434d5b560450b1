"""Prediction errors by time within the trial and by trial."""

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from colatent.data.scaling import Standardizer
from colatent.data.trials import Trials
from colatent.scoring.answers import Answer

Array = NDArray[np.float64]


def diagnostics(answered: Answer, training: Trials, scale: Array, scorable: NDArray[np.bool_]) -> xr.Dataset:
    """Return the errors of each test trial and each bin.

    Residuals (observed minus predicted) are in units of ``scale`` (channel,), each channel's training s.d.,
    and averaged over the ``scorable`` channels (channel,) with a finite scale (units silent in training
    have none).

    Returns:
        ``log_density`` (trial; nats per scored bin and channel), ``nrmse`` (trial; root mean squared
        residual), ``n`` (trial; number of scored bins x channels), ``residual_mean`` and ``residual_rms``
        (time), and ``baseline_rms`` (time; r.m.s. deviation from each channel's training mean).
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
    """Mean over the scored entries; NaN where there are none."""
    n = scored.sum(axis=axis)
    return np.where(n > 0, np.where(scored, value, 0.0).sum(axis=axis) / np.maximum(n, 1), np.nan)
