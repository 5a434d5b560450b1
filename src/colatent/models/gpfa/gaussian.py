"""Gaussian-process factor analysis with Gaussian observations, fitted exactly.

Yu, Cunningham, Santhanam, Ryu, Shenoy & Sahani (2009), J Neurophysiol 102:614-635,
doi 10.1152/jn.90941.2008.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from colatent.models.gpfa.base import (
    GPFAEstimator,
    LatentMoments,
    Prediction,
    canonical_order,
    check_trainable,
)
from colatent.models.gpfa.evidence import Parameters, Prior, TrialBlock, evaluate, make_blocks
from colatent.models.gpfa.fit import NEGLIGIBLE_COLUMN, FitProblem, initial_parameters, maximize, standardize
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.padded_trials import PaddedTrials, TrialsLike, as_padded_trials
from colatent.models.gpfa.solvers import to_bins
from colatent.models.gpfa.time_scale_interval import (
    PROFILE_TOLERANCE,
    TimeScaleInterval,
    interval_drop,
    profile_intervals,
)

Array = NDArray[np.float64]

# The loss relative to 1e-8 is far below the standard error of the maximal log likelihood.
_FIT_TOLERANCE = 1e-4
_FITTING = FitOptions()


class GPFA(GPFAEstimator):
    """y_t = C z_t + d + e_t,  e_t ~ N(0, diag R),  z_k ~ GP(0, kernel with time scale tau_k).

    Example:
        >>> model = GPFA(n_latents=3, bin_width=0.02).fit(np.sqrt(counts))
        >>> latents = model.transform(np.sqrt(counts))       # (trial, time, latent)

    Trials are an array (trial, time, channel), a list of arrays (time, channel) of any lengths, or
    a DataArray with dims trial, time and channel. NaN means missing, in any pattern of bins and
    channels. Missing values are marginalised exactly.

    Args:
        n_latents: number of latents.
        bin_width: seconds.
        kernel: "squared-exponential", "matern-3/2" or "matern-5/2".
        automatic_relevance: strength of a prior that shrinks the loadings of latents, from 0 (maximum
            likelihood) to 1, which shrinks superfluous latents to zero, so that ``n_relevant_`` counts
            the others. About 0.5 predicts best with few trials.
        fitting: limits of the fit.
        tolerance: accuracy of inference: Fourier coefficients below this share of the largest prior
            variance are dropped, and correlations below it are neglected.
        device: PyTorch device, such as "cpu" or "cuda".

    Attributes:
        loading_: C (channel, latent). offset_: d (channel,). noise_variance_: R (channel,).
        time_scale_: seconds (latent,).
        history_: one row per iteration: iteration, log_likelihood (nats per bin).
    """

    noise_variance_: Array

    def __init__(
        self,
        n_latents: int = 8,
        bin_width: float = 0.02,
        kernel: str = "squared-exponential",
        *,
        automatic_relevance: float = 0.0,
        fitting: FitOptions = _FITTING,
        tolerance: float = 1e-8,
        device: str = "cpu",
    ):
        super().__init__(n_latents, bin_width, kernel, fitting, tolerance, device)
        if not 0 <= automatic_relevance <= 1:
            raise ValueError(f"automatic_relevance must lie in [0, 1], not {automatic_relevance!r}")
        self.automatic_relevance = automatic_relevance

    def fit(self, trials: TrialsLike, progress: Callable[[str], None] | None = None) -> Self:
        """Maximise the exact log marginal likelihood.

        Args:
            trials: training trials.
            progress: called with one line of text per iteration.

        Raises:
            ValueError: the trials have the wrong shape, no observations, or fewer channels than latents.
        """
        data = as_padded_trials(trials)
        check_trainable(data, self.n_latents)
        problem = self._problem(data)
        data, mean, scale = standardize(data)
        self.history_ = []
        log_volume = np.log(scale) @ data.observed.sum((0, 1)) / data.observed.any(axis=2).sum()

        def report(iteration: int, log_likelihood: float) -> None:
            log_likelihood = float(log_likelihood - log_volume)
            self.history_.append({"iteration": iteration, "log_likelihood": log_likelihood})
            if progress is not None:
                progress(f"iteration {iteration}: log likelihood {log_likelihood:.6g} nats per bin")

        prior = Prior(self.kernel, max(self.tolerance, _FIT_TOLERANCE), self.device)
        start = initial_parameters(data, self.n_latents, self.kernel, problem)
        with torch.inference_mode():  # gradients are analytic
            fitted, self.converged_ = maximize(data, start, prior, problem, report)
        loading, log_noise, offset, log_time_scale = (p.numpy() for p in fitted)

        order, sign = canonical_order(loading)
        # the memory layout of a loaded file, so that a saved fit gives bitwise equal results
        scaled = loading[:, order] * sign * (np.exp(log_noise / 2) * scale)[:, None]
        self.loading_ = np.ascontiguousarray(scaled)
        self.noise_variance_ = np.exp(log_noise) * scale**2
        self.offset_ = mean + scale * offset
        self.time_scale_ = np.exp(log_time_scale[order]) * self.bin_width
        return self

    def posterior(self, trials: TrialsLike) -> LatentMoments:
        """Return mean and variance of the latents in every bin of the padded trials."""
        mean, covariance = self._mean_and_covariance(self._check(trials))
        return LatentMoments(mean, covariance.diagonal(axis1=2, axis2=3).copy())

    def predict(self, trials: TrialsLike) -> Prediction:
        """Return the predictive mean and variance of every channel, including missing ones.

        For co-smoothing, set the held-out channels to NaN.
        """
        mean, covariance = self._mean_and_covariance(self._check(trials))
        variance = ((self.loading_ @ covariance) * self.loading_).sum(-1)
        return Prediction(mean @ self.loading_.T + self.offset_, variance + self.noise_variance_)

    def sample(self, trials: TrialsLike, n_samples: int, seed: int = 0) -> Array:
        """Return samples of the latents' joint posterior, (sample, trial, time, latent).

        By Matheron's rule: a prior sample plus the posterior mean given the difference between the data
        and data simulated from that sample.
        """
        data = self._check(trials)
        rng = torch.Generator(device=self.device).manual_seed(seed)
        blocks, parameters = self._blocks(data)
        shape = (n_samples, len(data.value), data.value.shape[1], self.n_latents)
        samples = np.random.default_rng(seed).standard_normal(shape)  # prior, kept beyond the reach of data
        for block in blocks:
            n_bins = min(block.n_bins, shape[2])
            for sample in samples:
                coefficients = block.sample(parameters, rng)
                z = to_bins(coefficients, block.n_circle)[:n_bins].permute(2, 0, 1)
                sample[block.trial, :n_bins] = z.cpu().numpy()
        return samples

    def log_marginal_likelihood(self, trials: TrialsLike) -> float:
        """Return log p(observed values) over all trials (nats)."""
        blocks, parameters = self._blocks(self._check(trials))
        return -evaluate(blocks, parameters)[0]

    def time_scale_interval(self, trials: TrialsLike, level: float = 0.95) -> TimeScaleInterval:
        """Return the profile-likelihood intervals of the time scales.

        An interval contains the time scales at which the log marginal likelihood, maximised over all other
        parameters, is at most chi2(1, level) / 2 nats (1.92 for 95 %) below its maximum (Venzon &
        Moolgavkar 1988, doi 10.2307/2347496). With ``automatic_relevance`` the likelihood is penalised. The
        maximum is located more accurately than in the fit.

        Args:
            trials: the training trials of the fit.
            level: confidence level, between 0 and 1.

        Returns:
            Ends and maxima in seconds, each (latent,). An end is 0 or infinite where the profile does not
            fall that far down to the shortest or up to the longest time scale of the fit, and for latents
            with negligible loadings; NaN if the search for it failed. Latents with similar time scales can
            swap along a profile, so that the interval of each covers the others.
        """
        data = self._check(trials)
        problem = self._problem(data)
        data, mean, scale = standardize(data)
        sigma = np.sqrt(self.noise_variance_)
        arrays = (
            self.loading_ / sigma[:, None],
            2 * np.log(sigma / scale),
            (self.offset_ - mean) / scale,
            np.log(self.time_scale_ / self.bin_width),
        )
        fitted = Parameters(*map(torch.as_tensor, arrays))
        prior = Prior(self.kernel, max(self.tolerance, PROFILE_TOLERANCE), self.device)
        with torch.inference_mode():
            ends = profile_intervals(data, fitted, prior, problem, interval_drop(level))
        return TimeScaleInterval(*(end * self.bin_width for end in ends))

    @property
    def n_relevant_(self) -> int:
        """Number of latents whose loadings are not negligible relative to the noise."""
        size = (self.loading_**2 / self.noise_variance_[:, None]).sum(axis=0)
        return int((size > 10 * NEGLIGIBLE_COLUMN).sum())

    @property
    def variance_explained_(self) -> Array:
        """Share of each channel's variance explained by each orthonormal latent (channel, latent)."""
        left, singular, _ = self._svd()
        signal = (left * singular) ** 2
        return signal / (signal.sum(1) + self.noise_variance_)[:, None]

    def _problem(self, data: PaddedTrials) -> FitProblem:
        bounds = self.fitting.bounds_in_bins(self.bin_width, data)
        return FitProblem(self.fitting, bounds, self.automatic_relevance)

    def _blocks(self, data: PaddedTrials) -> tuple[list[TrialBlock], Parameters]:
        """Return blocks of the data with the offset subtracted, and the matching parameters."""
        value = data.value - self.offset_
        if not data.observed.all():
            value *= data.observed
        time_scale = self.time_scale_ / self.bin_width
        wanted = data.length if data.ragged else np.full(len(value), value.shape[1])
        blocks = make_blocks(
            PaddedTrials(value, data.observed, data.length),
            Prior(self.kernel, self.tolerance, self.device),
            time_scale,
            float(time_scale.max()),
            wanted,
        )
        sigma = np.sqrt(self.noise_variance_)
        arrays = self.loading_ / sigma[:, None], 2 * np.log(sigma), np.zeros_like(sigma), np.log(time_scale)
        return blocks, Parameters(*(torch.as_tensor(a, device=self.device) for a in arrays))

    def _mean(self, data: PaddedTrials) -> Array:
        blocks, parameters = self._blocks(data)
        mean = np.zeros((*data.value.shape[:2], self.n_latents))
        for block in blocks:
            _put_mean(mean, block, parameters)
        return mean

    def _mean_and_covariance(self, data: PaddedTrials) -> tuple[Array, Array]:
        """Return posterior means, and covariances between latents within each bin (trial, time, q, q)."""
        blocks, parameters = self._blocks(data)
        n_trials, n_bins, q = *data.value.shape[:2], self.n_latents
        mean = np.zeros((n_trials, n_bins, q))
        covariance = np.broadcast_to(np.eye(q), (n_trials, n_bins, q, q)).copy()
        for block in blocks:
            _put_mean(mean, block, parameters)
            of_block = block.bin_covariance(parameters, min(block.n_bins, n_bins))
            covariance[block.trial, : of_block.shape[1]] = of_block.cpu().numpy()
        return mean, covariance

    def state(self) -> dict[str, np.ndarray]:
        """Return the fit as plain arrays."""
        state = super().state() | {
            "noise_variance": self.noise_variance_,
            "noise_floor": np.array(self.fitting.noise_floor),
            "automatic_relevance": np.array(self.automatic_relevance),
        }
        if self.fitting.time_scale_bounds is not None:
            state["time_scale_bounds"] = np.array(self.fitting.time_scale_bounds)
        return state

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], device: str = "cpu") -> Self:
        """Rebuild a fitted model from `state`; arrays needed only for fitting may be missing."""
        limits: dict[str, Any] = {}
        if "noise_floor" in state:
            limits["noise_floor"] = float(state["noise_floor"])
        if "time_scale_bounds" in state:
            limits["time_scale_bounds"] = tuple(map(float, state["time_scale_bounds"]))
        relevance = float(state.get("automatic_relevance", 0.0))
        model = cls._from_shared_state(
            state, device, automatic_relevance=relevance, fitting=FitOptions(**limits)
        )
        model.noise_variance_ = np.asarray(state["noise_variance"], dtype=float)
        return model


def _put_mean(mean: Array, block: TrialBlock, parameters: Parameters) -> None:
    n_bins = min(block.n_bins, mean.shape[1])
    z = to_bins(block.posterior_mean(parameters), block.n_circle)[:n_bins]
    mean[block.trial, :n_bins] = z.permute(2, 0, 1).cpu().numpy()
