"""Gaussian-process factor analysis with Gaussian observations, fitted exactly.

Yu, Cunningham, Santhanam, Ryu, Shenoy & Sahani (2009), J Neurophysiol 102:614-635,
doi 10.1152/jn.90941.2008.
"""

from collections.abc import Callable, Mapping
from typing import Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray

from colatent.models.gpfa.base import (
    GPFAEstimator,
    LatentMoments,
    Prediction,
    canonical_order,
    check_trainable,
    of_squares,
    variance_along,
)
from colatent.models.gpfa.evidence import Block, evaluate, make_blocks, posterior_covariances, posterior_means
from colatent.models.gpfa.fit import NEGLIGIBLE_COLUMN, FitProblem, initial_parameters, maximize, standardize
from colatent.models.gpfa.latent_groups import found_groups
from colatent.models.gpfa.modalities import AUTO, Groups, Modalities
from colatent.models.gpfa.options import FitOptions, RareOptions
from colatent.models.gpfa.padded_trials import PaddedTrials, TrialsLike
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.prior import Prior
from colatent.models.gpfa.profile_intervals import (
    PROFILE_TOLERANCE,
    Interval,
    interval_drop,
    profile_intervals,
)
from colatent.models.gpfa.shared_start import shared_start

Array = NDArray[np.float64]

# The loss relative to 1e-8 is far below the standard error of the maximal log likelihood.
_FIT_TOLERANCE = 1e-4
_RARE = RareOptions(fitting=FitOptions(), tolerance=1e-8, device="cpu")


class GPFA(GPFAEstimator):
    """y_t = C z_t + d + e_t,  e_t ~ N(0, diag R),  z_k ~ GP(0, kernel with time scale tau_k).

    Example:
        >>> model = GPFA(n_latents=3, bin_width=0.02).fit(np.sqrt(counts))
        >>> latents = model.transform(np.sqrt(counts))       # (trial, time, latent)

    Several modalities, with latents that they share and latents of one of them:
        >>> model = GPFA(latents={"spikes+emg": 4, "spikes": 4}, bin_width=0.02, delays=True)
        >>> model.fit({"spikes": counts, "emg": emg})
        >>> model.predict({"spikes": counts}, given=("spikes",))["emg"].mean

    Each modality then sees the latents of its groups, y_m(t) = C_m z(t - D_m) + d_m + e_m(t), with delays
    D_m of zero unless ``delays``. All latents have one joint posterior. Counts enter as square roots.

    Trials are an array (trial, time, channel), a list of arrays (time, channel) of any lengths, or
    a DataArray with dims trial, time and channel. NaN means missing, in any pattern of bins and
    channels. Missing values are marginalised exactly.

    Args:
        n_latents: number of latents, for trials that are one array.
        bin_width: seconds.
        kernel: "squared-exponential", "matern-3/2" or "matern-5/2".
        latents: group of modalities -> number of latents, for trials of several modalities (modality ->
            trials): "spikes+emg" is shared, "spikes" private. Or "auto": `fit` finds both.
        likelihood: modality -> "gaussian" or "gaussian-sqrt"; by default the latter for whole numbers.
        delays: whether to learn by how much the modalities of a group follow the one of them that
            ``latents`` names first, one delay for each shared latent and modality, at most a quarter of the
            median trial either way.
        automatic_relevance: strength of a prior that shrinks the loadings of latents, from 0 (maximum
            likelihood) to 1, which shrinks superfluous latents to zero, so that ``n_relevant_`` counts
            the others. About 0.5 predicts best with few trials.
        rare: see `RareOptions`.

    Attributes:
        loading_: C (channel, latent). offset_: d (channel,). noise_variance_: R (channel,).
        time_scale_: seconds (latent,).
        delay_: seconds (modality, latent), NaN where a latent does not drive a modality; one row of zeros
            for one array. longest_delay_: the longest delay that the fit allowed, in either direction.
        latent_groups_: the group of each latent; empty for one array.
        history_: one row per iteration: iteration, log_likelihood (nats per bin).
    """

    likelihoods = ("gaussian-sqrt", "gaussian")
    noise_variance_: Array

    def __init__(
        self,
        n_latents: int = 8,
        bin_width: float = 0.02,
        kernel: str = "squared-exponential",
        *,
        latents: Mapping[str, int] | str | None = None,
        likelihood: Mapping[str, str] | None = None,
        delays: bool = False,
        automatic_relevance: float = 0.0,
        **rare: Unpack[RareOptions],
    ):
        self.finds_groups = latents == AUTO
        groups = Groups(None, {}, False) if self.finds_groups else Groups(latents, likelihood or {}, delays)
        super().__init__(n_latents, bin_width, kernel, groups, _RARE | rare)
        self.likelihood, self.delays = likelihood or {}, delays
        if latents is not None and automatic_relevance:
            raise ValueError("automatic_relevance cannot be used with latents of groups")
        if not 0 <= automatic_relevance <= 1:
            raise ValueError(f"automatic_relevance must lie in [0, 1], not {automatic_relevance!r}")
        self.automatic_relevance = automatic_relevance

    def fit(self, trials: TrialsLike, progress: Callable[[str], None] | None = None) -> Self:
        """Maximise the exact log marginal likelihood.

        Args:
            trials: training trials; of several modalities, modality -> trials.
            progress: called with one line of text per iteration.

        Raises:
            ValueError: the trials have the wrong shape, no observations, or fewer channels than latents.
        """
        if self.finds_groups:
            self.latents = self.find_groups(trials, progress)
            self.n_latents = sum(self.latents.values())
        data = self._training(trials)
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

        prior = self._fit_prior
        if problem.structure is None:
            start = initial_parameters(data, self.n_latents, self.kernel, problem)
        else:
            start = shared_start(data, problem.structure, self.kernel, problem)
        with torch.inference_mode():  # gradients are analytic
            fitted, self.converged_ = maximize(data, start, prior, problem, report)
        loading, log_noise, offset, log_time_scale, delay = (p.numpy() for p in fitted)

        groups = None if problem.structure is None else problem.structure.groups
        order, sign = canonical_order(loading, groups)
        # the memory layout of a loaded file, so that a saved fit gives bitwise equal results
        scaled = loading[:, order] * sign * (np.exp(log_noise / 2) * scale)[:, None]
        self.loading_ = np.ascontiguousarray(scaled)
        self.noise_variance_ = np.exp(log_noise) * scale**2
        self.offset_ = mean + scale * offset
        self.time_scale_ = np.exp(log_time_scale[order]) * self.bin_width
        self.delay_ = np.zeros((1, self.n_latents))
        if problem.structure is not None:
            self.delay_ = np.where(problem.structure.drives, delay[:, order] * self.bin_width, np.nan)
            self._say_longest_delays(problem.structure, progress)
        return self

    def find_groups(
        self, trials: TrialsLike, progress: Callable[[str], None] | None = None
    ) -> dict[str, int]:
        """Return the latent groups of training trials and their numbers of latents, as `fit` finds them."""
        self.modalities_ = None
        if not isinstance(trials, Mapping):
            raise ValueError("with latents='auto', trials must be a mapping: modality -> trials")
        everything = {"+".join(trials): 1}
        known, data = Modalities.of(trials, everything, self.likelihood, self.likelihoods)
        n_channels = dict(zip(known.names, known.n_channels, strict=True))
        problem, late = self._problem(data), self._longest_delay(data)
        return found_groups(data, n_channels, self._fit_prior, problem, late, progress)

    @property
    def _fit_prior(self) -> Prior:
        return Prior(self.kernel, max(self.tolerance, _FIT_TOLERANCE), self.device)

    def posterior(self, trials: TrialsLike) -> LatentMoments:
        """Return mean and variance of the latents in every bin of the padded trials."""
        mean, covariance = self._mean_and_covariance(self._check(trials))
        return LatentMoments(mean, covariance.diagonal(axis1=2, axis2=3).copy())

    def _predictions(self, data: PaddedTrials) -> list[Prediction]:
        if self.modalities_ is None:
            return [self._predict(data, 0, slice(None))]
        found = []
        for m, name in enumerate(self.modalities_.names):
            of_values = self._predict(data, m, self.modalities_.channels(name))
            is_root = self.modalities_.likelihoods[m] == "gaussian-sqrt"
            found.append(of_squares(of_values) if is_root else of_values)
        return found

    def _predict(self, data: PaddedTrials, modality: int, channels: slice) -> Prediction:
        mean, covariance = self._mean_and_covariance(data, modality)
        loading = self.loading_[channels]
        variance = variance_along(loading, covariance) + self.noise_variance_[channels]
        return Prediction(mean @ loading.T + self.offset_[channels], variance)

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
                z = block.at_bins(coefficients, parameters, n_bins).permute(2, 0, 1)
                sample[block.trial, :n_bins] = z.cpu().numpy()
        return samples

    def log_marginal_likelihood(self, trials: TrialsLike) -> float:
        """Return log p(observed values) over all trials (nats)."""
        blocks, parameters = self._blocks(self._check(trials))
        return -evaluate(blocks, parameters)[0]

    def time_scale_interval(self, trials: TrialsLike, level: float = 0.95) -> Interval:
        """Return the profile-likelihood intervals of the time scales (latent,), see `intervals`."""
        return self.intervals(trials, level)[0]

    def intervals(self, trials: TrialsLike, level: float = 0.95) -> tuple[Interval, Interval]:
        """Return the profile-likelihood intervals of the time scales and of the delays.

        An interval contains the values at which the log marginal likelihood, maximised over all other
        parameters, is at most chi2(1, level) / 2 nats (1.92 for 95 %) below its maximum (Venzon &
        Moolgavkar 1988, doi 10.2307/2347496). With ``automatic_relevance`` the likelihood is penalised. The
        maximum is located more accurately than in the fit.

        Args:
            trials: the training trials of the fit.
            level: confidence level, between 0 and 1.

        Returns:
            Ends and maxima in seconds, of time scales (latent,) and of delays (modality, latent), NaN where
            none is learned. An end is 0 (of a delay minus infinity) or infinite where the profile does not
            fall that far down to the smallest or up to the largest value of the fit, and for latents with
            negligible loadings; NaN if the search for it failed. Latents with similar time scales can swap
            along a profile, so that the interval of each covers the others.
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
            np.nan_to_num(self.delay_) / self.bin_width,
        )
        fitted = Parameters(*map(torch.as_tensor, arrays))
        prior = Prior(self.kernel, max(self.tolerance, PROFILE_TOLERANCE), self.device)
        with torch.inference_mode():
            found = profile_intervals(data, fitted, prior, problem, interval_drop(level))
        of_time_scales, of_delays = (Interval(*(end * self.bin_width for end in one)) for one in found)
        return of_time_scales, of_delays

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
        structure = None if self.modalities_ is None else self._structure(self._longest_delay(data))
        return FitProblem(self.fitting, bounds, self.automatic_relevance, structure)

    def _blocks(self, data: PaddedTrials) -> tuple[list[Block], Parameters]:
        """Return blocks of the data with the offset subtracted, and the matching parameters."""
        value = data.value - self.offset_
        if not data.observed.all():
            value *= data.observed
        time_scale = self.time_scale_ / self.bin_width
        wanted = data.length if data.ragged else np.full(len(value), value.shape[1])
        delay = np.nan_to_num(self.delay_) / self.bin_width
        delays = None
        if self.modalities_ is not None:
            delays = self._structure(float(np.abs(delay).max())).delays
        blocks = make_blocks(
            PaddedTrials(value, data.observed, data.length),
            Prior(self.kernel, self.tolerance, self.device),
            time_scale,
            float(time_scale.max()),
            wanted,
            delays,
        )
        sigma = np.sqrt(self.noise_variance_)
        shift = np.zeros_like(sigma)
        arrays = self.loading_ / sigma[:, None], 2 * np.log(sigma), shift, np.log(time_scale), delay
        return blocks, Parameters(*(torch.as_tensor(a, device=self.device) for a in arrays))

    def _mean(self, data: PaddedTrials, modality: int = 0) -> Array:
        return posterior_means(*self._blocks(data), data.observed.shape[:2], modality)

    def _mean_and_covariance(self, data: PaddedTrials, modality: int = 0) -> tuple[Array, Array]:
        """Return posterior means, and covariances between latents within each bin (trial, time, q, q).

        At the times at which a modality sees the latents.
        """
        blocks, parameters = self._blocks(data)
        at = blocks, parameters, data.observed.shape[:2], modality
        return posterior_means(*at), posterior_covariances(*at)

    def state(self) -> dict[str, np.ndarray]:
        """Return the fit as plain arrays."""
        state = super().state() | self.fitting.state()
        state |= {
            "noise_variance": self.noise_variance_,
            "automatic_relevance": np.array(self.automatic_relevance),
        }
        return state

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], device: str = "cpu") -> Self:
        """Rebuild a fitted model from `state`; arrays needed only for fitting may be missing."""
        relevance = float(state.get("automatic_relevance", 0.0))
        model = cls._from_shared_state(
            state, device, fitting=FitOptions.from_state(state), automatic_relevance=relevance
        )
        model.noise_variance_ = np.asarray(state["noise_variance"], dtype=float)
        if (model.noise_variance_ <= 0).any():
            raise ValueError("noise variances must be positive")
        return model
