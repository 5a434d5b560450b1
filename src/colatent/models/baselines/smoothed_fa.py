"""Baseline: factor analysis of smoothed observations."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from sklearn.decomposition import FactorAnalysis

from colatent.data.trials import Trials
from colatent.models.readout.latents import LatentReadoutModel

Array = NDArray[np.float64]


class SmoothedFA(LatentReadoutModel):
    """Factor analysis of Gaussian-smoothed (square-rooted) observations, bin by bin.

    y_t = C z_t + d + e, z_t ~ N(0, I), e ~ N(0, diag R). Smoothing stays within a trial and skips
    what was not observed. ``smoothing`` is the window's standard deviation in bins.
    """

    state_dims: ClassVar = {"loading": ("channel", "latent"), "offset": ("channel",), "noise": ("channel",)}

    def __init__(self, modality: str, n_latents: int, square_root: bool, smoothing: float) -> None:
        super().__init__(modality, n_latents, square_root)
        self.smoothing = smoothing

    def _fit(self, observation: Array, seed: int, progress: Callable[[str], None]) -> None:
        smooth = self._smooth(observation)
        n_channels = smooth.shape[-1]
        mean = np.nanmean(np.where(np.isnan(smooth).all(axis=(0, 1)), 0.0, smooth), axis=(0, 1))
        bins = np.where(np.isnan(smooth), mean, smooth).reshape(-1, n_channels)
        seen = ~np.isnan(smooth).all(axis=-1).ravel()
        analysis = FactorAnalysis(self.n_latents, svd_method="lapack", random_state=seed).fit(bins[seen])
        # a silent channel has no variance at all: give it a little, or its precision is infinite
        floor = 1e-6 * max(float(analysis.noise_variance_.max()), 1e-12)
        self._loading, self._offset = analysis.components_.T, analysis.mean_
        self._noise = np.maximum(analysis.noise_variance_, floor)
        self.history = [
            {"iteration": float(i), "log_likelihood": float(v)} for i, v in enumerate(analysis.loglike_)
        ]
        progress(f"factor analysis: {len(analysis.loglike_)} iterations")

    def _infer(self, observation: Array) -> tuple[Array, Array]:
        smooth = self._smooth(observation)
        observed = ~np.isnan(smooth)
        centred = np.where(observed, smooth - self._offset, 0.0)
        weight = self._loading / self._noise[:, None]
        # bins share few patterns of observed channels: one inverse for each pattern
        n_channels = observed.shape[-1]
        patterns, which = np.unique(observed.reshape(-1, n_channels), axis=0, return_inverse=True)
        precision = np.eye(self.n_latents) + np.einsum(
            "pc,ck,cl->pkl", patterns.astype(float), self._loading, weight
        )
        covariance = np.linalg.inv(precision)[which.reshape(observed.shape[:2])]
        mean = np.einsum("ntkl,ntl->ntk", covariance, centred @ weight)
        return mean, np.diagonal(covariance, axis1=-2, axis2=-1).copy()

    def _smooth(self, observation: Array) -> Array:
        observed = ~np.isnan(observation)
        # the window is cut at the trial's ends; what is left of it is weighted up again
        total, weight = (
            gaussian_filter1d(a, self.smoothing, axis=1, mode="constant", truncate=4.0)
            for a in (np.where(observed, observation, 0.0), observed.astype(float))
        )
        return np.where(weight > 1e-3, total / np.maximum(weight, 1e-3), np.nan)

    def state(self) -> dict[str, np.ndarray]:
        """Return loading (channel, latent), offset and noise variance (channel,)."""
        return {"loading": self._loading, "offset": self._offset, "noise": self._noise}

    @classmethod
    def from_state(cls, options: dict[str, Any], state: dict[str, np.ndarray], training: Trials) -> Self:
        """Rebuild a fit from its arrays and the training trials."""
        model = cls(**options)
        model._training = training
        model._loading, model._offset, model._noise = state["loading"], state["offset"], state["noise"]
        return model
