"""GPFA of counts: the same prior with Poisson or negative-binomial observations.

    y_t ~ p(y | eta_t),   eta_t = C z_t + d,   z_k ~ GP(0, correlation(. / tau_k))

The posterior is approximated by the Gaussian that maximises the evidence lower bound: the prior times
Gaussian sites, whose parameters are expectations of the likelihood's derivatives under the posterior
itself. They are iterated to this fixed point (conjugate-computation variational inference, Khan & Lin
2017), where the bound's gradient with respect to the model parameters needs no derivative of the sites.
"""

from collections.abc import Callable
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import gammaln, xlogy

from colatent.data import likelihoods
from colatent.data.likelihoods import CountLikelihood
from colatent.models.gpfa.base import (
    GPFAEstimator,
    LatentMoments,
    Prediction,
    canonical_order,
    check_trainable,
)
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.optimiser import minimize
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.padded_trials import PaddedTrials, TrialsLike, as_padded_trials
from colatent.models.gpfa.prior import Prior
from colatent.models.gpfa.sites import (
    CoefficientBasis,
    CountParameters,
    Counts,
    CountSites,
    SitePosterior,
    bound_gradient,
    initial_sites,
    iterate_sites,
    predictor,
)

Array = NDArray[np.float64]

LIKELIHOODS = {
    name: record for name, record in likelihoods.LIKELIHOODS.items() if isinstance(record, CountLikelihood)
}

_FIT_TOLERANCE = 1e-4
# For a fit, longer trials are cut into pieces of at most this many bins: the cost is cubic in length.
_PIECE = 100
_SITE_TOLERANCE = 1e-7  # nats per observation
_FITTING = FitOptions(max_iterations=100)
_INITIAL_DISPERSION = 10.0
# Bounds that keep the parameters of nearly silent units from diverging.
_LARGEST_LOADING = 5.0
_OFFSET_REACH = 8.0
_LOG_DISPERSION_BOUNDS = (-4.0, 9.0)


class CountGPFA(GPFAEstimator):
    """GPFA with Poisson or negative-binomial counts.

    Example:
        >>> model = CountGPFA(n_latents=3, bin_width=0.02).fit(counts)
        >>> rate = model.predict(counts).mean / 0.02         # spikes per second

    Trials take the same forms as for ``GPFA``; NaN means missing.

    Args:
        n_latents: number of latents.
        bin_width: seconds.
        kernel: "squared-exponential", "matern-3/2" or "matern-5/2".
        likelihood: "poisson" (mean exp(eta)), "poisson-softplus" (mean log(1 + exp(eta))) or
            "negative-binomial" (mean mu = exp(eta), variance mu + mu^2 / r).
        fitting: limits of the fit.
        tolerance: accuracy of the prior's Fourier representation in inference.
        device: PyTorch device, such as "cpu" or "cuda".

    Attributes:
        dispersion_: r (channel,) of the negative binomial; unused otherwise.
        history_: one row per iteration: iteration, elbo (nats per bin).
    """

    dispersion_: Array

    def __init__(
        self,
        n_latents: int = 8,
        bin_width: float = 0.02,
        kernel: str = "squared-exponential",
        *,
        likelihood: str = "poisson",
        fitting: FitOptions = _FITTING,
        tolerance: float = 1e-6,
        device: str = "cpu",
    ):
        super().__init__(n_latents, bin_width, kernel, fitting, tolerance, device)
        if likelihood not in LIKELIHOODS:
            raise ValueError(f"unknown likelihood {likelihood!r}; choose one of {', '.join(LIKELIHOODS)}")
        self.likelihood = likelihood

    def fit(self, trials: TrialsLike, progress: Callable[[str], None] | None = None) -> Self:
        """Maximise the evidence lower bound.

        Args:
            trials: training trials of counts. Trials longer than 100 bins are cut into pieces.
            progress: called with one line of text per iteration.

        Raises:
            ValueError: the trials are not counts, have the wrong shape, or have too few channels.
        """
        whole = as_padded_trials(trials)
        check_trainable(whole, self.n_latents)
        _check_counts(whole)
        shortest, longest = self.fitting.bounds_in_bins(self.bin_width, whole)
        data = cut(whole, _PIECE)
        self.history_ = []

        def report(value: float) -> None:
            self.history_.append({"iteration": len(self.history_) + 1, "elbo": -value})
            if progress is not None:
                progress(f"iteration {len(self.history_)}: bound {-value:.6g} nats per bin")

        start = self._initial_parameters(whole)
        offset = start.offset.cpu().numpy()
        bounds = [
            (-_LARGEST_LOADING, _LARGEST_LOADING),
            (offset - _OFFSET_REACH, offset + _OFFSET_REACH),
            _LOG_DISPERSION_BOUNDS,
            (np.log(shortest), np.log(min(longest, 1.5 * data.value.shape[1]))),
        ]
        fitted, self.converged_ = minimize(_NegativeBound(self, data), start, bounds, self.fitting, report)
        loading, offset, log_dispersion, log_time_scale = (p.cpu().numpy() for p in fitted)
        order, sign = canonical_order(loading)
        # the memory layout of a loaded file, so that a saved fit gives bitwise equal results
        self.loading_ = np.ascontiguousarray(loading[:, order] * sign)
        self.offset_ = offset
        self.dispersion_ = np.exp(log_dispersion)
        self.time_scale_ = np.exp(log_time_scale[order]) * self.bin_width
        return self

    def posterior(self, trials: TrialsLike) -> LatentMoments:
        """Return mean and variance of the latents in every bin of the padded trials."""
        posterior, _ = self._infer(self._check(trials))
        variance = posterior.covariance.diagonal(dim1=2, dim2=3)
        return LatentMoments(posterior.mean.cpu().numpy(), variance.cpu().numpy().copy())

    def predict(self, trials: TrialsLike) -> Prediction:
        """Return the predictive mean and variance of the counts of every channel, including missing ones.

        Both average over the posterior of the latents. For co-smoothing, set held-out channels to NaN.
        """
        mean, variance = self._predictor(trials)
        log_dispersion = torch.as_tensor(np.log(self.dispersion_), device=self.device)
        moments = LIKELIHOODS[self.likelihood].moments(mean, variance, log_dispersion)
        return Prediction(*(m.cpu().numpy() for m in moments))

    def predictor(self, trials: TrialsLike) -> Prediction:
        """Return the posterior mean and variance of eta = C z + d, each (trial, time, channel)."""
        return Prediction(*(m.cpu().numpy() for m in self._predictor(trials)))

    def _predictor(self, trials: TrialsLike) -> tuple[torch.Tensor, torch.Tensor]:
        posterior, _ = self._infer(self._check(trials))
        mean, variance = predictor(posterior, torch.as_tensor(self.loading_, device=self.device))
        return mean + torch.as_tensor(self.offset_, device=self.device), variance

    def elbo(self, trials: TrialsLike) -> Array:
        """Return the evidence lower bound of each trial (nats), shape (trial,)."""
        return self._infer(self._check(trials))[1]

    def state(self) -> dict[str, np.ndarray]:
        """Return the fit as plain arrays."""
        likelihood = np.array(list(LIKELIHOODS).index(self.likelihood))
        return super().state() | {"dispersion": self.dispersion_, "likelihood": likelihood}

    @classmethod
    def from_state(cls, state: dict[str, np.ndarray], device: str = "cpu") -> Self:
        """Rebuild a fitted model from `state`."""
        likelihood = list(LIKELIHOODS)[int(state["likelihood"])]
        model = cls._from_shared_state(state, device, likelihood=likelihood)
        model.dispersion_ = np.asarray(state["dispersion"], dtype=float)
        return model

    def _initial_parameters(self, data: PaddedTrials) -> CountParameters:
        """Return initial parameters from Gaussian GPFA of the square roots.

        Under the Poisson distribution, the derivative of E[sqrt(y)] with respect to the log rate is
        Cov(sqrt(y), y), which converts loadings for square roots into loadings for log rates.
        """
        roots = np.where(data.observed, np.sqrt(data.value), np.nan)
        fitting = FitOptions(self.fitting.time_scale_bounds)
        gaussian = GPFA(self.n_latents, self.bin_width, self.kernel, fitting=fitting).fit(roots)
        mean = _mean_counts(data)
        k = np.arange(int(20 + 10 * mean.max()))
        pmf = np.exp(xlogy(k, mean[:, None]) - mean[:, None] - gammaln(k + 1))  # Poisson
        response = (pmf * np.sqrt(k) * (k - mean[:, None])).sum(1)
        loading = np.clip(gaussian.loading_ / response[:, None], -2.0, 2.0)
        arrays = (
            *LIKELIHOODS[self.likelihood].initial_loading_and_offset(loading, mean),
            np.full(len(mean), np.log(_INITIAL_DISPERSION)),
            np.log(gaussian.time_scale_ / self.bin_width),
        )
        return CountParameters(*(torch.as_tensor(a, device=self.device) for a in arrays))

    def _mean(self, data: PaddedTrials) -> Array:
        return self._infer(data)[0].mean.cpu().numpy()

    def _infer(self, data: PaddedTrials) -> tuple[SitePosterior, Array]:
        _check_counts(data)
        arrays = (
            self.loading_,
            self.offset_,
            np.log(self.dispersion_),
            np.log(self.time_scale_ / self.bin_width),
        )
        parameters = CountParameters(*(torch.as_tensor(a, device=self.device) for a in arrays))
        counts = _to_counts(data, self.device)
        prior = Prior(self.kernel, self.tolerance)
        n_bins = data.value.shape[1]
        n_circle = prior.n_circle(n_bins, float(self.time_scale_.max() / self.bin_width))
        basis = CoefficientBasis(prior.variances(parameters.log_time_scale, n_circle), n_circle, n_bins)
        likelihood = LIKELIHOODS[self.likelihood]
        sites = initial_sites(counts, parameters, likelihood)
        _, bound = iterate_sites(sites, counts, parameters, basis, likelihood, _SITE_TOLERANCE)
        return bound.posterior, bound.elbo.cpu().numpy()


class _NegativeBound:
    """Negative bound per bin and its gradient; each call starts from the sites of the last."""

    def __init__(self, model: CountGPFA, data: PaddedTrials):
        self.likelihood = LIKELIHOODS[model.likelihood]
        self.counts = _to_counts(data, model.device)
        self.n_bins = int(data.observed.any(axis=2).sum())
        self.prior = Prior(model.kernel, max(model.tolerance, _FIT_TOLERANCE))
        self.sites: CountSites | None = None

    def __call__(self, parameters: CountParameters) -> tuple[float, CountParameters]:
        n_bins = self.counts.value.shape[1]
        n_circle = self.prior.n_circle(n_bins, float(parameters.log_time_scale.exp().max()))
        variances, slope = self.prior.variances_and_slope(parameters.log_time_scale, n_circle)
        basis = CoefficientBasis(variances, n_circle, n_bins)
        sites = self.sites or initial_sites(self.counts, parameters, self.likelihood)
        self.sites, bound = iterate_sites(
            sites, self.counts, parameters, basis, self.likelihood, _SITE_TOLERANCE
        )
        gradient = bound_gradient(bound, self.counts, parameters, variances, slope)
        value = -float(bound.elbo.sum()) / self.n_bins
        return value, CountParameters(*(-part / self.n_bins for part in gradient))


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


def _check_counts(data: PaddedTrials) -> None:
    if (data.value < 0).any() or (data.value != np.round(data.value)).any():
        raise ValueError("counts must be whole numbers, zero or more; use GPFA for continuous values")


def _mean_counts(data: PaddedTrials) -> Array:
    """Mean count per bin; a silent channel is assumed to have half a spike."""
    n = np.maximum(data.observed.sum((0, 1)), 1)
    return np.maximum(data.value.sum((0, 1)), 0.5) / n


def _to_counts(data: PaddedTrials, device: torch.device) -> Counts:
    arrays = data.value, data.observed.astype(float)
    return Counts(*(torch.as_tensor(a, device=device) for a in arrays))
