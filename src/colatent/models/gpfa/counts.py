"""GPFA of counts, alone or beside other modalities: the same prior with counts by their own likelihood.

    y_mt ~ p(y | eta_mt),   eta_m(t) = C_m z(t - D_m) + d_m,   z_k ~ GP(0, correlation(. / tau_k))

The posterior is approximated by the Gaussian that maximises the evidence lower bound: the prior times
Gaussian sites, whose parameters are expectations of the likelihood's derivatives under the posterior
itself. They are iterated to this fixed point (conjugate-computation variational inference, Khan & Lin
2017), where the bound's gradient with respect to the model parameters needs no derivative of the sites.
Gaussian observations are their own sites.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from colatent.data import likelihoods
from colatent.data.likelihoods import CountLikelihood, SiteLikelihood
from colatent.models.gpfa.base import (
    GPFAEstimator,
    LatentMoments,
    Prediction,
    canonical_order,
    check_trainable,
)
from colatent.models.gpfa.coordinates import Basis
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.mixing import Mixing, minimize_mixed
from colatent.models.gpfa.modalities import Groups
from colatent.models.gpfa.options import FitOptions, RareOptions
from colatent.models.gpfa.padded_trials import PaddedTrials, TrialsLike, kinds_of
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.prior import Prior
from colatent.models.gpfa.sites import CountSites, Observations, SiteData, SiteInference, SitePosterior
from colatent.models.gpfa.structure import Structure

Array = NDArray[np.float64]

_OF_SITES = {name: one for name, one in likelihoods.LIKELIHOODS.items() if isinstance(one, SiteLikelihood)}
# the first is what counts have by default
LIKELIHOODS = {name: one for name, one in _OF_SITES.items() if isinstance(one, CountLikelihood)}
_NAMES = list(likelihoods.LIKELIHOODS)

_FIT_TOLERANCE = 1e-4
# For a fit, longer trials are cut into pieces of at most this many bins: the cost is cubic in length.
_PIECE = 100
# Nats per observation: for a fit, and for inference, where a trial must not depend on those beside it.
_SITE_TOLERANCE = 1e-7
_INFERENCE_TOLERANCE = 1e-12
# Of the Gaussian fit of several modalities, from which theirs starts. With 200, bounds on two folds of the
# demo were higher by less than a nat in 63,000, and fits took nearly twice as long; delays need them.
_START_ITERATIONS = 20
_START_TOLERANCE = 1e-4  # of the posterior with one covariance for many trials, from which inference starts
_RARE = RareOptions(fitting=FitOptions(max_iterations=100), tolerance=1e-6, device="cpu")
_INITIAL_DISPERSION = 10.0
# Bounds that keep the parameters of nearly silent units from diverging.
_LARGEST_LOADING = 5.0
_OFFSET_REACH = 8.0
_LOG_DISPERSION_BOUNDS = (-4.0, 9.0)
_LOG_NOISE_BOUND = -5.0  # of Gaussian channels, relative to the noise of the Gaussian fit


class CountGPFA(GPFAEstimator):
    """GPFA with Poisson or negative-binomial counts.

    Example:
        >>> model = CountGPFA(n_latents=3, bin_width=0.02).fit(counts)
        >>> rate = model.predict(counts).mean / 0.02         # spikes per second

    Trials take the same forms as for ``GPFA``; NaN means missing. As there, ``latents`` of groups are for
    trials of several modalities, of which those that are not counts are Gaussian.

    Args:
        n_latents: number of latents, for trials that are one array.
        bin_width: seconds.
        kernel: "squared-exponential", "matern-3/2" or "matern-5/2".
        likelihood: "poisson" (mean exp(eta)), "poisson-softplus" (mean log(1 + exp(eta))) or
            "negative-binomial" (mean mu = exp(eta), variance mu + mu^2 / r); of several modalities,
            modality -> likelihood, by default "poisson" for whole numbers and "gaussian" for others.
        latents, delays: as for ``GPFA``.
        rare: see `RareOptions`.

    Attributes:
        dispersion_: r (channel,) of the negative binomial, standard deviation of the Gaussian; unused
            otherwise.
        delay_, latent_groups_: as for ``GPFA``.
        history_: one row per iteration: iteration, elbo (nats per bin).
    """

    likelihoods = (*LIKELIHOODS, "gaussian")
    dispersion_: Array

    def __init__(
        self,
        n_latents: int = 8,
        bin_width: float = 0.02,
        kernel: str = "squared-exponential",
        *,
        likelihood: str | Mapping[str, str] = "poisson",
        latents: Mapping[str, int] | None = None,
        delays: bool = False,
        **rare: Unpack[RareOptions],
    ):
        by_modality = {} if isinstance(likelihood, str) else likelihood
        super().__init__(n_latents, bin_width, kernel, Groups(latents, by_modality, delays), _RARE | rare)
        self.of_one = likelihood if isinstance(likelihood, str) else "poisson"
        if self.of_one not in LIKELIHOODS:
            raise ValueError(f"unknown likelihood {self.of_one!r}; choose one of {', '.join(LIKELIHOODS)}")

    def fit(self, trials: TrialsLike, progress: Callable[[str], None] | None = None) -> Self:
        """Maximise the evidence lower bound.

        Args:
            trials: training trials. Trials longer than 100 bins are cut into pieces.
            progress: called with one line of text per iteration.

        Raises:
            ValueError: the counts are none, or trials have the wrong shape or too few channels.
        """
        whole = self._training(trials)
        check_trainable(whole, self.n_latents)
        self._check_counts(whole)
        start, unit, center = self._initial_parameters(whole, progress)
        scaled = PaddedTrials((whole.value - center) / unit * whole.observed, whole.observed, whole.length)
        data = cut(scaled, _PIECE)
        self.history_ = []

        def report(value: float) -> None:
            self.history_.append({"iteration": len(self.history_) + 1, "elbo": -value})
            if progress is not None:
                progress(f"iteration {len(self.history_)}: bound {-value:.6g} nats per bin")

        bound = _NegativeBound(self, data)
        bounds = self._bounds(start, whole, data.value.shape[1])
        structure = self._layout(whole)
        support = torch.as_tensor(structure.support, device=self.device)
        mixing = Mixing(start, support, torch.ones_like(start.offset))
        fitted, self.converged_ = minimize_mixed(
            bound, start, mixing, bounds, self.fitting, report, bound.n_bins
        )
        loading, log_scale, offset, log_time_scale, delay = (p.cpu().numpy() for p in fitted)
        order, sign = canonical_order(loading, structure.groups)
        # the memory layout of a loaded file, so that a saved fit gives bitwise equal results
        self.loading_ = np.ascontiguousarray(loading[:, order] * sign * unit[:, None])
        self.offset_ = center + unit * offset
        self.dispersion_ = np.exp(log_scale) * unit
        self.time_scale_ = np.exp(log_time_scale[order]) * self.bin_width
        late = np.broadcast_to(delay, structure.drives.shape)[:, order] * self.bin_width
        self.delay_ = np.where(structure.drives, late, np.nan)
        self._say_longest_delays(structure, progress)
        return self

    def posterior(self, trials: TrialsLike, alike: bool = False) -> LatentMoments:
        """Return mean and variance of the latents in every bin of the padded trials.

        Args:
            trials: training trials or others.
            alike: give trials that were observed alike one covariance, as fits do: several times quicker.
        """
        inference, found = self._infer(self._check(trials), alike)
        variance = found.spread.covariance[0].diagonal(dim1=2, dim2=3)[inference.data.alike.kind]
        return LatentMoments(found.mean[0].cpu().numpy(), variance.cpu().numpy().copy())

    def _predictions(self, data: PaddedTrials) -> list[Prediction]:
        log_scale = torch.as_tensor(np.log(self.dispersion_), device=self.device)
        found = []
        for (channels, likelihood), eta in zip(self._parts, self._predictors(data), strict=True):
            moments = likelihood.moments(*eta, log_scale[channels])
            found.append(Prediction(*(m.cpu().numpy() for m in moments)))
        return found

    def predictor(self, trials: TrialsLike) -> Prediction:
        """Return the posterior mean and variance of eta = C z + d, each (trial, time, channel)."""
        (eta,) = self._predictors(self._check(trials))
        return Prediction(*(m.cpu().numpy() for m in eta))

    def elbo(self, trials: TrialsLike, alike: bool = False) -> Array:
        """Return the evidence lower bound of each trial (nats), shape (trial,); see `posterior`."""
        return self._infer(self._check(trials), alike)[1].elbo.cpu().numpy()

    def state(self) -> dict[str, np.ndarray]:
        """Return the fit as plain arrays."""
        state = super().state() | {"dispersion": self.dispersion_}
        if self.modalities_ is None:
            state["likelihood"] = np.array(_NAMES.index(self.of_one))
        return state

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], device: str = "cpu") -> Self:
        """Rebuild a fitted model from `state`."""
        of_one = {"likelihood": _NAMES[int(state["likelihood"])]} if "likelihood" in state else {}
        model = cls._from_shared_state(state, device, **of_one)
        model.dispersion_ = np.asarray(state["dispersion"], dtype=float)
        return model

    @property
    def _parts(self) -> list[tuple[slice, SiteLikelihood]]:
        """Channels and likelihood of each modality."""
        if self.modalities_ is None:
            return [(slice(None), LIKELIHOODS[self.of_one])]
        names, found = self.modalities_.names, self.modalities_.likelihoods
        return [
            (self.modalities_.channels(name), _OF_SITES[one]) for name, one in zip(names, found, strict=True)
        ]

    def _counts(self, n_channels: int) -> NDArray[np.bool_]:
        """Return which channels are counts."""
        counts = np.zeros(n_channels, dtype=bool)
        for channels, likelihood in self._parts:
            counts[channels] = likelihood.discrete
        return counts

    def _initial_parameters(
        self, data: PaddedTrials, progress: Callable[[str], None] | None = None
    ) -> tuple[Parameters, Array, Array]:
        """Return initial parameters from Gaussian GPFA of square roots, and the channels' units and zeros.

        Gaussian channels are in units of their noise from their offset on, counts as they are. Under the
        Poisson distribution, the derivative of E[sqrt(y)] with respect to the log rate is Cov(sqrt(y), y),
        which converts loadings for square roots into loadings for log rates.
        """
        counts = self._counts(data.value.shape[2])
        seen = np.where(data.observed, np.where(counts, np.sqrt(np.abs(data.value)), data.value), np.nan)
        if self.modalities_ is None:
            fitting = FitOptions(self.fitting.time_scale_bounds)
            gaussian = GPFA(self.n_latents, self.bin_width, self.kernel, fitting=fitting).fit(seen)
        else:
            most = FitOptions.max_iterations if self.delays else _START_ITERATIONS
            fitting = FitOptions(self.fitting.time_scale_bounds, self.fitting.noise_floor, most)
            names = self.modalities_.names
            gaussian = GPFA(
                bin_width=self.bin_width,
                kernel=self.kernel,
                latents=self.latents,
                likelihood=dict.fromkeys(names, "gaussian"),
                delays=self.delays,
                fitting=fitting,
            ).fit({name: seen[..., self.modalities_.channels(name)] for name in names}, progress)
        sigma = np.sqrt(gaussian.noise_variance_)
        loading, offset = gaussian.loading_ / sigma[:, None], np.zeros(len(sigma))
        for channels, likelihood in self._parts:
            if isinstance(likelihood, CountLikelihood):
                mean = _mean_counts(data)[channels]
                log_rate = np.clip(gaussian.loading_[channels] / _response(mean)[:, None], -2.0, 2.0)
                loading[channels], offset[channels] = likelihood.initial_loading_and_offset(log_rate, mean)
        arrays = (
            loading,
            np.where(counts, np.log(_INITIAL_DISPERSION), 0.0),
            offset,
            np.log(gaussian.time_scale_ / self.bin_width),
            self._delay_in_bins(gaussian.delay_),
        )
        start = Parameters(*(torch.as_tensor(a, device=self.device) for a in arrays))
        return start, np.where(counts, 1.0, sigma), np.where(counts, 0.0, gaussian.offset_)

    def _delay_in_bins(self, delay: Array) -> Array:
        return np.nan_to_num(delay) / self.bin_width if self.delays else np.zeros((1, 1))

    def _bounds(self, start: Parameters, data: PaddedTrials, n_bins: int) -> list[tuple[Any, Any]]:
        counts = self._counts(len(start.offset))
        structure = self._layout(data)
        offset = start.offset.cpu().numpy()
        far = np.where(counts, _LARGEST_LOADING, np.inf)[:, None]
        far = np.where(structure.support, far, 0.0)
        reach = np.where(counts, _OFFSET_REACH, np.inf)
        least, most = _LOG_DISPERSION_BOUNDS
        late = structure.delayed * structure.longest_delay if self.delays else 0.0
        shortest, longest = self.fitting.bounds_in_bins(self.bin_width, data)
        return [
            (-far, far),
            (np.where(counts, least, _LOG_NOISE_BOUND), np.where(counts, most, -_LOG_NOISE_BOUND)),
            (offset - reach, offset + reach),
            (np.log(shortest), np.log(min(longest, 1.5 * n_bins))),
            (-late, late),
        ]

    def _layout(self, data: PaddedTrials) -> Structure:
        if self.modalities_ is None:
            return Structure.of_one(data.value.shape[2], self.n_latents)
        return self._structure(self._longest_delay(data))

    def _mean(self, data: PaddedTrials, modality: int = 0) -> Array:
        return self._infer(data)[1].mean[modality].cpu().numpy()

    def _predictors(self, data: PaddedTrials) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return the posterior mean and variance of each modality's eta."""
        inference, found = self._infer(data)
        offset = inference.parameters.offset
        return [
            (eta + offset[channels], variance)
            for (channels, _), eta, variance in zip(
                self._parts, found.eta, inference.variance(found.spread), strict=True
            )
        ]

    def _parameters(self) -> Parameters:
        arrays = (
            self.loading_,
            np.log(self.dispersion_),
            self.offset_,
            np.log(self.time_scale_ / self.bin_width),
            self._delay_in_bins(self.delay_),
        )
        return Parameters(*(torch.as_tensor(a, device=self.device) for a in arrays))

    def _infer(self, data: PaddedTrials, alike: bool = False) -> tuple[SiteInference, SitePosterior]:
        """Infer the latents, with a covariance for each trial, or for all trials observed alike.

        The first iterations need only one inversion for all trials observed alike.
        """
        self._check_counts(data)
        parameters = self._parameters()
        basis = site_basis(Prior(self.kernel, self.tolerance), parameters, data.value.shape[1])[0]
        shared = SiteInference(self._observations(data, kinds_of(data.observed)), parameters, basis)
        start = shared.optimum(shared.start(None), _SITE_TOLERANCE if alike else _START_TOLERANCE)
        if alike:
            return shared, start
        inference = SiteInference(self._observations(data), parameters, basis)
        at = inference.at(start.u, [e.curvature for e in start.expectation])
        return inference, inference.optimum(at, _INFERENCE_TOLERANCE)

    def _observations(self, data: PaddedTrials, alike: NDArray[np.intp] | None = None) -> SiteData:
        """Return the observations of each modality; by default no trials share a covariance."""
        value = torch.as_tensor(data.value, device=self.device)
        observed = torch.as_tensor(data.observed.astype(float), device=self.device)
        found = [
            Observations(c, one, value[..., c], observed[..., c], bool(data.observed[..., c].all()))
            for c, one in self._parts
        ]
        kind = np.arange(len(data.value)) if alike is None else alike
        return SiteData.of(found, torch.as_tensor(kind, device=self.device))

    def _check_counts(self, data: PaddedTrials) -> None:
        value = data.value[..., self._counts(data.value.shape[2])]
        if (value < 0).any() or (value != np.round(value)).any():
            raise ValueError("counts must be whole numbers, zero or more; use GPFA for continuous values")


def site_basis(
    prior: Prior, parameters: Parameters, n_bins: int
) -> tuple[Basis, tuple[torch.Tensor, torch.Tensor]]:
    """Return the basis for trials of ``n_bins``, and the prior variances with their slopes."""
    apart = 2 * math.ceil(float(parameters.delay.abs().max()))  # one modality may be late and another early
    n_circle = prior.n_circle(n_bins + apart, float(parameters.log_time_scale.exp().max()))
    variances, slope = prior.variances_and_slope(parameters.log_time_scale, n_circle)
    return Basis(variances, n_circle, n_bins, parameters.delay), (variances, slope)


class _NegativeBound:
    """Negative bound per bin and its gradient; each call starts from the sites of the last."""

    def __init__(self, model: CountGPFA, data: PaddedTrials):
        self.data = model._observations(data, kinds_of(data.observed))
        self.n_bins = int(data.observed.any(axis=2).sum())
        self.prior = Prior(model.kernel, max(model.tolerance, _FIT_TOLERANCE))
        self.n_time = data.value.shape[1]
        self.sites: list[CountSites] | None = None

    def __call__(self, parameters: Parameters) -> tuple[float, Parameters]:
        basis, variances = site_basis(self.prior, parameters, self.n_time)
        inference = SiteInference(self.data, parameters, basis)
        best = inference.optimum(inference.start(self.sites), _SITE_TOLERANCE)
        self.sites = inference.sites(best)
        gradient = inference.gradient(best, variances)
        value = -float(best.elbo.sum()) / self.n_bins
        return value, Parameters(*(-part / self.n_bins for part in gradient))


def cut(data: PaddedTrials, n_bins: int) -> PaddedTrials:
    """Cut trials into pieces of roughly equal length, at most ``n_bins`` bins each."""
    length = data.value.shape[1]
    n_pieces = -(-length // n_bins)
    if n_pieces == 1:
        return data
    size = -(-length // n_pieces)
    pad = ((0, 0), (0, n_pieces * size - length), (0, 0))
    value = np.pad(data.value, pad).reshape(-1, size, data.value.shape[2])
    observed = np.pad(data.observed, pad).reshape(value.shape)
    kept = observed.any(axis=(1, 2))
    return PaddedTrials(value[kept], observed[kept], np.full(int(kept.sum()), size))


def _response(mean: Array) -> Array:
    """Return the derivative of E[sqrt(y)] with respect to the log rate of Poisson counts y (channel,)."""
    k = np.arange(int(20 + 10 * mean.max()))
    pmf = np.exp(xlogy(k, mean[:, None]) - mean[:, None] - gammaln(k + 1))
    return (pmf * np.sqrt(k) * (k - mean[:, None])).sum(1)


def _mean_counts(data: PaddedTrials) -> Array:
    """Mean count per bin; a silent channel is assumed to have half a spike."""
    n = np.maximum(data.observed.sum((0, 1)), 1)
    return np.maximum(data.value.sum((0, 1)), 0.5) / n
