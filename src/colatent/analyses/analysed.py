"""The input of an analysis, and its record."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from colatent.data import metrics
from colatent.data.trials import Trials
from colatent.models.base import LatentModel
from colatent.store.session import Fold


@dataclass(frozen=True)
class AnalysedFit:
    """A fitted model with latents.

    Attributes:
        model: the fit.
        fold: training and test trials of the fit.
        truth: true latents of a simulation: ``value`` and ``observed``, each (trial, time, latent), with the
            coordinate ``group``.
    """

    model: LatentModel
    fold: Fold
    truth: xr.Dataset | None = None

    @cached_property
    def latents(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Posterior mean and variance (trial, time, latent) of all trials, given all modalities."""
        mean, variance = self.model.latents(self.fold.everything, self.model.modalities)
        return mean.astype(np.float32), variance.astype(np.float32)

    @property
    def groups(self) -> tuple[str, ...]:
        """Name of the group of each latent."""
        return tuple(group.name for group in self.model.latent_groups)


def pooled_r2(
    predicted: NDArray[np.float64], modality: str, scale: NDArray[np.float64], test: Trials
) -> float:
    """Return the R² of a modality over all bins and channels, in units of ``scale`` (channel,)."""
    return metrics.r2(test.values[modality], predicted, test.observed[modality], scale).pooled


Found = Mapping[str, xr.Dataset] | pd.DataFrame


@dataclass(frozen=True)
class Analysis:
    """The record of an analysis.

    Attributes:
        name: name of its group in the score store.
        function: returns subgroups by name (the empty name is the group itself), or a table, which is
            concatenated over fits.
        needs_truth: whether the analysis applies only to simulations.
    """

    name: str
    function: Callable[[AnalysedFit], Found]
    needs_truth: bool = False
