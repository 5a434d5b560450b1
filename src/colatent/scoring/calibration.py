"""Calibration of predictions: histograms of the probability integral transform (PIT)."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from colatent.data.predictive import share_below

N_BINS = 20


class Histogram(NamedTuple):
    """PIT histogram of one task over its scored bins and channels.

    Attributes:
        heldout, given, predicted: the task, as in the table of scores.
        share: share of the observations in each of ``N_BINS`` equal parts of [0, 1]; NaN if none is scored.
        n: number of observations.
    """

    heldout: str
    given: str
    predicted: str
    share: NDArray[np.float64]
    n: int


def pit_histogram(
    pit: tuple[NDArray[np.float64], NDArray[np.float64]], scored: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], int]:
    """Return the share of PIT values in each of ``N_BINS`` equal bins, and the number of observations.

    Flat (1 / ``N_BINS``) if the predictive distributions are calibrated; U-shaped if they are too narrow,
    hump-shaped if too wide. Counts enter with the expectation of their randomised PIT.

    Args:
        pit: the two ends from `Predictive.pit`, (trial, time, channel).
        scored: mask (trial, time, channel).
    """
    lower, upper = (end[scored] for end in pit)
    if not lower.size:
        return np.full(N_BINS, np.nan), 0
    inner = [share_below(lower, upper, k / N_BINS).mean() for k in range(1, N_BINS)]
    return np.diff([0.0, *inner, 1.0]), int(lower.size)


def as_dataset(histograms: list[Histogram]) -> xr.Dataset:
    """Return all histograms of a fit: ``share`` (question, bin), ``n`` (question)."""
    text = {key: ("question", [getattr(h, key) for h in histograms]) for key in Histogram._fields[:3]}
    return xr.Dataset(
        {
            "share": (("question", "bin"), np.stack([h.share for h in histograms])),
            "n": ("question", [h.n for h in histograms]),
        },
        coords=text | {"bin": (np.arange(N_BINS) + 0.5) / N_BINS},
    )
