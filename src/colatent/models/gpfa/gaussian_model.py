"""GPFA as the workflow uses it: of one modality, with a read-out to its observations."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.trials import Trials
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.time_scale_interval import TimeScaleInterval
from colatent.models.readout.latents import LatentReadoutModel

Array = NDArray[np.float64]
# Stopped as early as by default, time scales may lie outside the intervals that the report gives them.
FITTING = FitOptions(max_iterations=500, convergence=1e-8)


class GPFAReadout(LatentReadoutModel):
    """Exact Gaussian GPFA of one modality (square-rooted counts, or continuous values)."""

    state_dims: ClassVar = {
        "loading": ("channel", "latent"),
        "offset": ("channel",),
        "noise_variance": ("channel",),
        "time_scale": ("latent",),
    } | dict.fromkeys(("bin_width", "tolerance", "kernel", "noise_floor", "automatic_relevance"), ())

    def __init__(
        self,
        modality: str,
        n_latents: int,
        square_root: bool,
        bin_width: float,
        kernel: str,
        automatic_relevance: float = 0.0,
    ) -> None:
        super().__init__(modality, n_latents, square_root)
        self._gpfa = GPFA(
            n_latents, bin_width, kernel, automatic_relevance=automatic_relevance, fitting=FITTING
        )

    def _fit(self, observation: Array, seed: int, progress: Callable[[str], None]) -> None:
        self._gpfa.fit(observation, progress=progress)
        self.history = self._gpfa.history_

    def _infer(self, observation: Array) -> tuple[Array, Array]:
        posterior = self._gpfa.posterior(observation)
        return posterior.mean, posterior.variance

    @property
    def penalised(self) -> bool:
        """Whether the fit maximised a penalised likelihood."""
        return self._gpfa.automatic_relevance > 0

    def time_scale_interval(self, training: Trials, level: float) -> TimeScaleInterval:
        """Return `GPFA.time_scale_interval` of the training trials."""
        return self._gpfa.time_scale_interval(self._observation(training), level)

    def state(self) -> dict[str, np.ndarray]:
        """Return the parameters of the GPFA."""
        return self._gpfa.state()

    @classmethod
    def from_state(cls, options: dict[str, Any], state: dict[str, np.ndarray], training: Trials) -> Self:
        """Rebuild a fit from its parameters and the training trials."""
        model = cls(**options)
        model._gpfa = GPFA.from_state(state)
        model._training = training
        return model
