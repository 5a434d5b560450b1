"""GPFA of one modality as a model of the workflow: Gaussian with read-outs, or of counts directly."""

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from colatent.config.models import COUNT_LIKELIHOODS, GPFASettings
from colatent.data.predictive import Predictive
from colatent.data.trials import Layout, Trials
from colatent.models.base import Array, FitRun, LatentSummary, State, array_of, arrays_of, with_prefix
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.time_scale_interval import TimeScaleInterval, interval_drop
from colatent.models.readout.latents import OneModalityModel, gaussian_unit, observations
from colatent.models.readout.readouts import Readouts

# With the default convergence, fitted time scales can lie outside their own confidence intervals.
FITTING = FitOptions(max_iterations=500, convergence=1e-8)
LEVEL = 0.95  # confidence level of time-scale intervals
# Equiprobable values of the log mean that represent its posterior in a predictive distribution.
N_COMPONENTS = 32
INTERVAL = "interval."
_INTERVALS = [INTERVAL + end for end in TimeScaleInterval._fields]


class GPFAModel(OneModalityModel):
    """GPFA of one modality: Gaussian (of values or square-rooted counts), Poisson or negative binomial.

    See `GPFA` and `CountGPFA` for the models themselves.
    """

    def __init__(self, settings: GPFASettings, layout: Layout, device: str = "cpu") -> None:
        super().__init__(settings, layout)
        counts = settings.likelihood_of(layout.kinds[self.modality]) in COUNT_LIKELIHOODS
        self._observation_model: _ObservationModel = (_Counts if counts else _Gaussian)(settings, layout)

    def _fit(self, training: Trials, run: FitRun) -> None:
        self._observation_model.fit(training, run)  # deterministic: needs no seed
        self.history = self._observation_model.gpfa.history_

    def _infer(self, trials: Trials) -> tuple[Array, Array]:
        posterior = self._observation_model.gpfa.posterior(self._observation_model.observation(trials))
        return posterior.mean, posterior.variance

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of every bin and channel, observed or not."""
        self._only_own((*given, predicted))
        return self._observation_model.predict(trials)

    def decode(self, latents: Array, modality: str) -> Array:
        """Return the expected observations (trial, time, channel) at latents (trial, time, latent)."""
        self._only_own((modality,))
        return self._observation_model.decode(latents)

    def summary(self, latents: Array) -> LatentSummary:
        """Return loadings and time scales, with confidence intervals if the likelihood is Gaussian."""
        return self._observation_model.summary()

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the parameters and, for Gaussian likelihoods, read-outs and time-scale intervals."""
        return self._observation_model.state()

    @classmethod
    def from_state(cls, settings: GPFASettings, layout: Layout, state: State, device: str = "cpu") -> Self:
        """Rebuild a fit from its arrays."""
        model = cls(settings, layout)
        model._observation_model.load(state)
        return model


class _ObservationModel(ABC):
    """The parts of `GPFAModel` that depend on the likelihood; methods as there."""

    gpfa: GPFA | CountGPFA

    def __init__(self, settings: GPFASettings, layout: Layout) -> None:
        self.modality, self.n_latents = settings.modality, settings.latents[settings.modality]
        self.n_channels = layout.n_channels(self.modality)
        self.spikes = layout.kinds[self.modality] == "spikes"
        self.likelihood = settings.likelihood_of(layout.kinds[self.modality])

    def observation(self, trials: Trials) -> Array:
        """Return the input of the GPFA (trial, time, channel), NaN where nothing was observed."""
        return observations(trials, self.modality, self.likelihood == "gaussian-sqrt")

    @abstractmethod
    def fit(self, training: Trials, run: FitRun) -> None: ...

    @abstractmethod
    def predict(self, trials: Trials) -> Predictive: ...

    @abstractmethod
    def decode(self, latents: Array) -> Array: ...

    @abstractmethod
    def summary(self) -> LatentSummary: ...

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]: ...

    @abstractmethod
    def load(self, state: State) -> None:
        """Restore a fit from its state."""


class _Gaussian(_ObservationModel):
    """Exact Gaussian GPFA; observations are predicted from the latents by `Readouts`."""

    gpfa: GPFA

    def __init__(self, settings: GPFASettings, layout: Layout) -> None:
        super().__init__(settings, layout)
        self.gpfa = GPFA(
            self.n_latents,
            layout.bin_width,
            settings.kernel,
            fitting=FITTING,
            automatic_relevance=settings.automatic_relevance,
        )

    def fit(self, training: Trials, run: FitRun) -> None:
        seen = self.observation(training)
        self.gpfa.fit(seen, progress=run.progress)
        self.readouts = Readouts.fit(self._mean, self.modality, training, run.withheld)
        unknown = TimeScaleInterval(*np.full((3, self.n_latents), np.nan))
        self.interval = self.gpfa.time_scale_interval(seen, LEVEL) if run.intervals else unknown

    def _mean(self, trials: Trials) -> Array:
        return self.gpfa.posterior(self.observation(trials)).mean

    def predict(self, trials: Trials) -> Predictive:
        return self.readouts.predict(self._mean(trials), trials)

    def decode(self, latents: Array) -> Array:
        return self.readouts.decode(latents)

    def summary(self) -> LatentSummary:
        likelihood = "penalised" if self.gpfa.automatic_relevance > 0 else "marginal"
        return LatentSummary(
            {self.modality: self.gpfa.loading_},
            {self.modality: gaussian_unit(self.modality, self.likelihood == "gaussian-sqrt")},
            self.gpfa.time_scale_,
            self.interval._asdict(),
            {"level": LEVEL, "drop": interval_drop(LEVEL), "likelihood": likelihood},
        )

    def state(self) -> dict[str, NDArray[Any]]:
        return self.gpfa.state() | self.readouts.state() | with_prefix(INTERVAL, self.interval._asdict())

    def load(self, state: State) -> None:
        n, q = self.n_channels, self.n_latents
        scalars = ("bin_width", "tolerance", "kernel", "noise_floor", "automatic_relevance")
        shapes = Readouts.shapes(state, n, q) | dict.fromkeys(scalars, ())
        shapes |= {"loading": (n, q), "offset": (n,), "noise_variance": (n,), "time_scale": (q,)}
        # an end may be open (0 or infinite) or unknown (NaN)
        ends = {name: array_of(state, name, q, finite=False) for name in _INTERVALS}
        arrays = arrays_of({k: v for k, v in state.items() if k not in ends}, shapes)
        self.gpfa = GPFA.from_state(arrays)
        self.readouts = Readouts.from_state(self.modality, self.spikes, arrays)
        self.interval = TimeScaleInterval(*ends.values())


class _Counts(_ObservationModel):
    """GPFA of counts, which predicts counts directly."""

    gpfa: CountGPFA

    def __init__(self, settings: GPFASettings, layout: Layout) -> None:
        super().__init__(settings, layout)
        self.gpfa = CountGPFA(self.n_latents, layout.bin_width, settings.kernel, likelihood=self.likelihood)

    def fit(self, training: Trials, run: FitRun) -> None:
        self.gpfa.fit(self.observation(training), run.progress)

    def predict(self, trials: Trials) -> Predictive:
        """Return a mixture over the posterior of each channel's log mean, at equiprobable quantiles."""
        eta = self.gpfa.predictor(self.observation(trials))
        quantile = ndtri((np.arange(N_COMPONENTS) + 0.5) / N_COMPONENTS)
        quantile /= np.sqrt((quantile**2).mean())  # unit variance
        component = np.exp(eta.mean + quantile[:, None, None, None] * np.sqrt(eta.variance))
        # the quantiles miss the tails: correct the mean, which is known exactly
        component *= np.exp(eta.mean + eta.variance / 2) / component.mean(axis=0)
        scale = self.gpfa.dispersion_ if self.likelihood == "negative-binomial" else None
        return Predictive(self.likelihood, component, scale)

    def decode(self, latents: Array) -> Array:
        return np.exp(latents @ self.gpfa.loading_.T + self.gpfa.offset_)

    def summary(self) -> LatentSummary:
        loading = {self.modality: self.gpfa.loading_}
        return LatentSummary(loading, {self.modality: "log rate"}, self.gpfa.time_scale_)

    def state(self) -> dict[str, NDArray[Any]]:
        return self.gpfa.state()

    def load(self, state: State) -> None:
        n, q = self.n_channels, self.n_latents
        scalars = ("bin_width", "tolerance", "kernel", "likelihood")
        shapes = {"loading": (n, q), "offset": (n,), "dispersion": (n,), "time_scale": (q,)}
        self.gpfa = CountGPFA.from_state(arrays_of(state, shapes | dict.fromkeys(scalars, ())))
