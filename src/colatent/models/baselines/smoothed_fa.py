"""Baseline: factor analysis of smoothed observations."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from colatent.config.models import SmoothedFASettings
from colatent.data.predictive import Predictive
from colatent.data.trials import Layout, Trials
from colatent.models.base import Array, FitRun, LatentSummary, State, arrays_of
from colatent.models.readout.latents import OneModalityModel, observations, unit_of_loadings
from colatent.models.readout.readouts import Readouts


class SmoothedFA(OneModalityModel):
    """Factor analysis of Gaussian-smoothed (square-rooted) observations, bin by bin.

    y_t = C z_t + d + e, z_t ~ N(0, I), e ~ N(0, diag R). Smoothing stays within a trial and skips
    missing observations.
    """

    def __init__(self, settings: SmoothedFASettings, layout: Layout, device: str = "cpu") -> None:
        super().__init__(settings, layout)
        self.counts = layout.kinds[self.modality] == "spikes"
        self.smoothing = settings.smoothing / layout.bin_width  # bins

    def _fit(self, training: Trials, run: FitRun) -> None:
        from sklearn.decomposition import FactorAnalysis  # slow to import, and only fits need it

        smooth = self._smooth(training)
        mean = np.nanmean(np.where(np.isnan(smooth).all(axis=(0, 1)), 0.0, smooth), axis=(0, 1))
        bins = np.where(np.isnan(smooth), mean, smooth).reshape(-1, self.n_channels)
        seen = ~np.isnan(smooth).all(axis=-1).ravel()
        analysis = FactorAnalysis(self.n_latents, svd_method="lapack", random_state=run.seed).fit(bins[seen])
        # a silent channel has no variance, which would make its precision infinite
        floor = 1e-6 * max(float(analysis.noise_variance_.max()), 1e-12)
        self._loading, self._offset = np.ascontiguousarray(analysis.components_.T), analysis.mean_
        self._noise = np.maximum(analysis.noise_variance_, floor)
        self.history = [
            {"iteration": float(i), "log_likelihood": float(v)} for i, v in enumerate(analysis.loglike_)
        ]
        run.progress(f"factor analysis: {len(analysis.loglike_)} iterations")
        self._readouts = Readouts.fit(self._mean, self.modality, training, run.withheld)

    def _mean(self, trials: Trials) -> Array:
        return self._infer(trials)[0]

    def _infer(self, trials: Trials) -> tuple[Array, Array]:
        smooth = self._smooth(trials)
        observed = ~np.isnan(smooth)
        centred = np.where(observed, smooth - self._offset, 0.0)
        weight = self._loading / self._noise[:, None]
        # few distinct patterns of observed channels occur: invert once for each
        patterns, which = np.unique(observed.reshape(-1, self.n_channels), axis=0, return_inverse=True)
        precision = np.eye(self.n_latents) + np.einsum(
            "pc,ck,cl->pkl", patterns.astype(float), self._loading, weight
        )
        covariance = np.linalg.inv(precision)[which.reshape(observed.shape[:2])]
        mean = np.einsum("ntkl,ntl->ntk", covariance, centred @ weight)
        return mean, np.diagonal(covariance, axis1=-2, axis2=-1).copy()

    def _smooth(self, trials: Trials) -> Array:
        observation = observations(trials, self.modality, self.counts)
        observed = ~np.isnan(observation)
        # renormalise the window where it is cut at the trial's ends or by gaps
        total, weight = (
            gaussian_filter1d(a, self.smoothing, axis=1, mode="constant", truncate=4.0)
            for a in (np.where(observed, observation, 0.0), observed.astype(float))
        )
        return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), np.nan)

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the read-out of every bin and channel, observed or not."""
        self._only_own((*given, predicted))
        return self._readouts.predict(self._mean(trials), trials)

    def decode(self, latents: Array, modality: str, condition: NDArray[np.str_] | None = None) -> Array:
        """Return the read-out fitted without missing channels, at the given latents."""
        self._only_own((modality,))
        return self._readouts.decode(latents)

    def summary(self, latents: Array) -> LatentSummary:
        """Return the loadings; factor analysis has no time scales."""
        unit = unit_of_loadings(self.modality, "gaussian-sqrt" if self.counts else "gaussian")
        return LatentSummary({self.modality: self._loading}, {self.modality: unit})

    def state(self) -> dict[str, NDArray[Any]]:
        """Return loading (channel, latent), offset and noise variance (channel,), and the read-outs."""
        own = {"loading": self._loading, "offset": self._offset, "noise": self._noise}
        return own | self._readouts.state()

    @classmethod
    def from_state(
        cls, settings: SmoothedFASettings, layout: Layout, state: State, device: str = "cpu"
    ) -> Self:
        """Rebuild a fit from its arrays."""
        model = cls(settings, layout)
        n, q = model.n_channels, model.n_latents
        shapes = {"loading": (n, q), "offset": (n,), "noise": (n,)}
        arrays = arrays_of(state, Readouts.shapes(state, n, q) | shapes)
        model._loading, model._offset, model._noise = (arrays[k] for k in ("loading", "offset", "noise"))
        model._readouts = Readouts.from_state(model.modality, model.counts, arrays)
        return model
