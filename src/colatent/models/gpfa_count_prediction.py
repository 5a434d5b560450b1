"""Count GPFA as the workflow uses it: of one modality, predicting its counts itself."""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from colatent.models.gpfa_counts import CountGPFA
from colatent.predictive import Predictive
from colatent.trials import Trials

Array = NDArray[np.float64]

# Equally likely values of the log mean that stand for its posterior in a predictive distribution.
N_COMPONENTS = 32


class CountGPFAPrediction:
    """GPFA of the counts of one modality, Poisson or negative binomial (workflow model interface).

    Attributes:
        latent_groups: the group of each latent: always the one modality.
        history: rows for training curves.
    """

    def __init__(self, modality: str, n_latents: int, bin_width: float, kernel: str, likelihood: str) -> None:
        self.modality = modality
        self.latent_groups = (modality,) * n_latents
        self.history: list[dict[str, float]] = []
        self._gpfa = CountGPFA(n_latents, bin_width, kernel, likelihood=likelihood)

    def fit(self, trials: Trials, seed: int = 0, progress: Callable[[str], None] = print) -> Self:
        """Fit to the training trials; there is nothing random in it."""
        self._gpfa.fit(self._counts(trials), progress)
        self.history = self._gpfa.history_
        return self

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return the posterior mean and variance of the latents, each (trial, time, latent)."""
        self._only_own(given)
        posterior = self._gpfa.posterior(self._counts(trials))
        return posterior.mean, posterior.variance

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of all channels, those that were not observed included.

        A mixture over the posterior of each channel's log mean, at equally likely quantiles.
        """
        self._only_own((*given, predicted))
        eta = self._gpfa.predictor(self._counts(trials))
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

    def _counts(self, trials: Trials) -> Array:
        return np.where(trials.observed[self.modality], trials.values[self.modality], np.nan)

    def _only_own(self, modalities: tuple[str, ...]) -> None:
        if set(modalities) != {self.modality}:
            raise ValueError(f"this model knows only {self.modality!r}, not {modalities}")
