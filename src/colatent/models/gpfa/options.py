"""Rarely used options of a fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from colatent.models.gpfa.padded_trials import PaddedTrials


@dataclass(frozen=True)
class FitOptions:
    """Limits of a fit.

    Attributes:
        time_scale_bounds: shortest and longest time scale in seconds; by default one bin and the longest
            trial.
        noise_floor: smallest noise variance of a channel as a share of its variance; unused for counts.
        max_iterations: iterations of the optimiser.
        convergence: relative improvement of the objective below which a fit stops; a fit of several
            modalities stops when an iteration gains less than 0.05 nats in all.
    """

    time_scale_bounds: tuple[float, float] | None = None
    noise_floor: float = 1e-3
    max_iterations: int = 200
    convergence: float = 1e-6

    def bounds_in_bins(self, bin_width: float, data: PaddedTrials) -> tuple[float, float]:
        """Return the bounds of the time scales in bins, for a fit to the given trials.

        Raises:
            ValueError: the bounds are not positive and increasing.
        """
        if self.time_scale_bounds is None:
            return 1.0, max(2.0, float(data.length.max()))
        shortest, longest = (b / bin_width for b in self.time_scale_bounds)
        if not 0 < shortest < longest:
            raise ValueError("time_scale_bounds must be positive and increasing")
        return shortest, longest

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the limits of the parameters as arrays."""
        bounds = self.time_scale_bounds
        known = {} if bounds is None else {"time_scale_bounds": np.array(bounds)}
        return {"noise_floor": np.array(self.noise_floor)} | known

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self:
        """Rebuild the limits of the parameters; those that are absent are the defaults."""
        limits: dict[str, Any] = {}
        if "noise_floor" in state:
            limits["noise_floor"] = float(state["noise_floor"])
        if "time_scale_bounds" in state:
            limits["time_scale_bounds"] = tuple(map(float, state["time_scale_bounds"]))
        return cls(**limits)


class RareOptions(TypedDict, total=False):
    """Rarely used options of a model.

    Attributes:
        fitting: limits of the fit.
        tolerance: accuracy of inference: Fourier coefficients below this share of the largest prior
            variance are dropped, and correlations below it are neglected.
        device: PyTorch device, such as "cpu" or "cuda".
    """

    fitting: FitOptions
    tolerance: float
    device: str
