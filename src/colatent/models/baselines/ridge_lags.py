"""Baseline: ridge regression on lagged predictors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from colatent.models.base import Array
from colatent.models.baselines.lag_regression import LagRegression
from colatent.models.readout.ridge import fit_ridge


class RidgeLags(LagRegression):
    """Ridge regression with the penalty chosen by cross-validation over the training trials."""

    def _regress(
        self, x: Array, y: Array, observed: NDArray[np.bool_], counts: bool, seed: int
    ) -> dict[str, NDArray[Any]]:
        return fit_ridge(x, y, observed, self.layout.time_locked)._asdict()

    def _shapes(self, n_predictors: int, n_channels: int) -> dict[str, tuple[int, ...]]:
        return {"weight": (n_predictors, n_channels), "intercept": (n_channels,), "residual": (n_channels,)}

    def _apply(self, fitted: dict[str, NDArray[Any]], x: Array, counts: bool) -> Array:
        return x @ fitted["weight"] + fitted["intercept"]
