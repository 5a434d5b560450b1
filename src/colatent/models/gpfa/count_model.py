"""Count GPFA as the workflow uses it: of one modality, predicting its counts itself."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from colatent.data.predictive import Predictive
from colatent.data.trials import Trials
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.readout.latents import OneModalityModel

Array = NDArray[np.float64]

# Equally likely values of the log mean that stand for its posterior in a predictive distribution.
N_COMPONENTS = 32


class CountGPFAPrediction(OneModalityModel):
    """GPFA of the counts of one modality, Poisson or negative binomial (workflow model interface)."""

    state_dims: ClassVar = {
        "loading": ("channel", "latent"),
        "offset": ("channel",),
        "dispersion": ("channel",),
        "time_scale": ("latent",),
    } | dict.fromkeys(("bin_width", "tolerance", "kernel", "likelihood"), ())

    def __init__(self, modality: str, n_latents: int, bin_width: float, kernel: str, likelihood: str) -> None:
        super().__init__(modality, n_latents, square_root=False)
        self._gpfa = CountGPFA(n_latents, bin_width, kernel, likelihood=likelihood)

    def _fit(self, observation: Array, seed: int, progress: Callable[[str], None]) -> None:
        self._gpfa.fit(observation, progress)  # there is nothing random in it
        self.history = self._gpfa.history_

    def _infer(self, observation: Array) -> tuple[Array, Array]:
        posterior = self._gpfa.posterior(observation)
        return posterior.mean, posterior.variance

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of all channels, those that were not observed included.

        A mixture over the posterior of each channel's log mean, at equally likely quantiles.
        """
        self._only_own((*given, predicted))
        eta = self._gpfa.predictor(self._observation(trials))
        quantile = ndtri((np.arange(N_COMPONENTS) + 0.5) / N_COMPONENTS)
        quantile /= np.sqrt((quantile**2).mean())  # keeps the variance
        component = np.exp(eta.mean + quantile[:, None, None, None] * np.sqrt(eta.variance))
        # the quantiles stop short of the tails: the mean is known exactly
        component *= np.exp(eta.mean + eta.variance / 2) / component.mean(axis=0)
        likelihood = self._gpfa.likelihood
        scale = self._gpfa.dispersion_ if likelihood == "negative-binomial" else None
        return Predictive(likelihood, component, scale)

    def state(self) -> dict[str, np.ndarray]:
        """Return the parameters of the GPFA."""
        return self._gpfa.state()

    @classmethod
    def from_state(cls, options: dict[str, Any], state: dict[str, np.ndarray], training: Trials) -> Self:
        """Rebuild a fit from its parameters; it needs no training trials."""
        model = cls(**options)
        model._gpfa = CountGPFA.from_state(state)
        return model
