"""Where in a trial, and in which trials, a model's held-out predictions go wrong."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from colatent.scoring.evaluate import answer, largest_tasks, training_scale
from colatent.standardize import Standardizer
from colatent.trials import Trials

Array = NDArray[np.float64]


def diagnostics(
    model: Any,
    modalities: tuple[str, ...],
    training: Trials,
    test: Trials,
    trial_index: NDArray[np.int_],
    time: Array,
    hidden: Mapping[str, NDArray[np.bool_]],
) -> dict[str, xr.Dataset]:
    """Return errors of each test trial and of each bin, under ``{heldout}/{predicted}``.

    Of each kind of question and predicted modality, the one with the most modalities given. Residuals
    (observed minus predicted) are in units of each channel's s.d. in the training trials, and averaged
    over all channels that are scored and have one.

    Each dataset holds ``log_density`` (trial; nats per scored bin and channel), ``nrmse`` (trial; root mean
    squared residual), ``n`` (trial; number of scored bins x channels), ``residual_mean`` and ``residual_rms``
    (time), and ``baseline_rms`` (time): the r.m.s. about each channel's mean in the training trials.
    """
    groups = {}
    for task in largest_tasks(model, modalities, hidden):
        predictive, scored = answer(model, task, test, hidden)
        observation = test.values[task.predicted]
        values, observed = training.values[task.predicted], training.observed[task.predicted]
        scale = training_scale(values, observed)
        scored = scored & np.isfinite(scale)
        scale = np.where(np.isfinite(scale), scale, 1.0)
        residual = (observation - predictive.mean) / scale
        baseline = (observation - Standardizer.fit(values, observed).mean) / scale
        groups[f"{task.heldout}/{task.predicted}"] = xr.Dataset(
            {
                "log_density": ("trial", _mean(predictive.log_density(observation), scored, (1, 2))),
                "nrmse": ("trial", np.sqrt(_mean(residual**2, scored, (1, 2)))),
                "n": ("trial", scored.sum(axis=(1, 2))),
                "residual_mean": ("time", _mean(residual, scored, (0, 2))),
                "residual_rms": ("time", np.sqrt(_mean(residual**2, scored, (0, 2)))),
                "baseline_rms": ("time", np.sqrt(_mean(baseline**2, scored, (0, 2)))),
            },
            coords={"trial": trial_index, "time": time},
            attrs={"given": "+".join(task.given) or "none", "heldout": task.heldout},
        )
    return groups


def _mean(value: Array, scored: NDArray[np.bool_], axis: tuple[int, int]) -> Array:
    """Mean over what is scored; NaN where nothing is."""
    n = scored.sum(axis=axis)
    return np.where(n > 0, np.where(scored, value, 0.0).sum(axis=axis) / np.maximum(n, 1), np.nan)
