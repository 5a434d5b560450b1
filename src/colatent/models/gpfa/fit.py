"""Maximum-likelihood fit of Gaussian GPFA: initialisation by factor analysis, then L-BFGS-B."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.linalg
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from colatent.models import gp
from colatent.models.gpfa.delayed import Delays
from colatent.models.gpfa.evidence import Block, evaluate, make_blocks
from colatent.models.gpfa.mixing import Mixing, minimize_mixed
from colatent.models.gpfa.optimiser import minimize
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.padded_trials import PaddedTrials
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.prior import Prior
from colatent.models.gpfa.structure import Structure

Array = NDArray[np.float64]

# Squared norm, in units of the noise, below which a column of C is negligible.
NEGLIGIBLE_COLUMN = 1e-3

_FA_ITERATIONS = 10
START_LAGS = 10
# Longest time scale that a fit's circle can represent, relative to the longest at the start.
_HEADROOM = 1.25


@dataclass(frozen=True)
class FitProblem:
    """Limits and penalty of a fit to given trials.

    Attributes:
        limits: limits that do not depend on the trials.
        time_scale_bounds: shortest and longest time scale, in bins.
        automatic_relevance: strength of ``relevance_penalty``, from 0 (none) to 1. With a structure, it is
            on the loadings of each latent in each modality.
        structure: which loadings and delays are free; None if all loadings are, and no delay.
    """

    limits: FitOptions
    time_scale_bounds: tuple[float, float]
    automatic_relevance: float
    structure: Structure | None = None

    def bounds(self, longest_time_scale: float) -> list[tuple[ArrayLike, ArrayLike]]:
        """Return the bounds of the parameters, time scales at most as long as given (bins)."""
        far = np.inf if self.structure is None else np.where(self.structure.support, np.inf, 0.0)
        late = 0.0 if self.structure is None else self.structure.delayed * self.structure.longest_delay
        shortest = self.time_scale_bounds[0]
        return [
            (-far, far),
            (math.log(self.limits.noise_floor), math.inf),
            (-math.inf, math.inf),
            (math.log(shortest), math.log(longest_time_scale)),
            (-late, late),
        ]

    @property
    def delays(self) -> Delays | None:
        """Where delays can occur."""
        return None if self.structure is None else self.structure.delays

    @property
    def penalised(self) -> list[slice | NDArray[np.intp]]:
        """The channels whose loadings are penalised together."""
        if self.structure is None:
            return [slice(None)]
        modality = self.structure.modality
        return [np.flatnonzero(modality == m) for m in range(len(self.structure.drives))]


def standardize(data: PaddedTrials) -> tuple[PaddedTrials, Array, Array]:
    """Return the data with zero mean and unit variance per channel, and the means and scales.

    A constant channel gets the median scale of the others and the value zero.
    """
    count = np.maximum(data.observed.sum(axis=(0, 1)), 1)
    mean = data.value.sum(axis=(0, 1)) / count
    value = data.value - mean
    if not data.observed.all():
        value *= data.observed
    variance = np.einsum("ntc,ntc->c", value, value) / count
    varies = variance > 1e-20 * (1 + mean**2)
    typical = np.median(variance[varies]) if varies.any() else 1.0
    scale = np.sqrt(np.where(varies, variance, typical))
    value *= np.where(varies, 1 / scale, 0.0)
    return PaddedTrials(value, data.observed, data.length), mean, scale


def initial_parameters(data: PaddedTrials, n_latents: int, kernel: str, problem: FitProblem) -> Parameters:
    """Return initial parameters from factor analysis, rotated to separate latents by time scale.

    Because the noise is white, the covariance of the factor scores at lags > 0 is the covariance of the
    latents. Its eigenvectors are the rotation that also decorrelates the latents at those lags (Tong et
    al. 1991, AMUSE); its eigenvalues are their autocorrelations, which determine the time scales.
    """
    loading, noise = factor_analysis(data, n_latents, problem.limits.noise_floor)
    weight = loading / noise[:, None]
    score = data.value @ (weight @ np.linalg.inv(loading.T @ weight))
    bins = np.asarray(data.observed.any(axis=2))
    correlation, rotation = lagged_rotation(score, bins, START_LAGS)
    n_lags = min(START_LAGS, score.shape[1] - 1)
    time_scale = time_scales(correlation, n_lags, kernel, problem.time_scale_bounds)
    arrays = (loading / np.sqrt(noise)[:, None]) @ rotation, np.log(noise), np.zeros(len(noise))
    return Parameters(*(torch.from_numpy(a) for a in (*arrays, np.log(time_scale))))


def lagged_rotation(score: Array, seen: NDArray[np.bool_], most_lags: int) -> tuple[Array, Array]:
    """Return eigenvalues and eigenvectors of the mean covariance of factor scores over lags > 0.

    Args:
        score: (trial, time, factor), zero where nothing was observed.
        seen: bins with observations (trial, time).
        most_lags: lags 1 .. ``most_lags`` are averaged, fewer in shorter trials.
    """
    n_factors = score.shape[2]
    n_lags = min(most_lags, score.shape[1] - 1)
    lagged = np.zeros((n_factors, n_factors))
    for lag in range(1, n_lags + 1):
        pairs = max(1, int((seen[:, lag:] & seen[:, :-lag]).sum()))
        lagged += np.einsum("ntk,ntl->kl", score[:, lag:], score[:, :-lag], optimize=True) / pairs
    correlation, rotation = np.linalg.eigh((lagged + lagged.T) / (2 * max(n_lags, 1)))
    return correlation, rotation


def factor_analysis(data: PaddedTrials, n_latents: int, noise_floor: float) -> tuple[Array, Array]:
    """Return loadings and noise variances of standardised data (iterated principal factors)."""
    flat = data.value.reshape(-1, data.value.shape[2])
    covariance = flat.T @ flat
    if data.observed.all():
        covariance /= len(flat)
    else:
        mask = data.observed.reshape(flat.shape).astype(float)
        covariance /= np.maximum(mask.T @ mask, 1.0)
    n_channels = len(covariance)
    noise = np.full(n_channels, 0.5)
    for _ in range(_FA_ITERATIONS):
        sigma = np.sqrt(noise)
        eigenvalue, vector = scipy.linalg.eigh(
            covariance / np.outer(sigma, sigma), subset_by_index=[n_channels - n_latents, n_channels - 1]
        )
        # a column of zeros would be a stationary point of the likelihood
        loading = sigma[:, None] * vector * np.sqrt(np.maximum(eigenvalue - 1, 1e-2))
        noise = np.maximum(covariance.diagonal() - (loading**2).sum(1), max(noise_floor, 1e-2))
    return loading, noise


def time_scales(correlation: Array, n_lags: int, kernel: str, bounds: tuple[float, float]) -> Array:
    """Return the time scales (bins) with the given mean autocorrelation over lags 1 .. n_lags."""
    if n_lags == 0:
        return np.full(len(correlation), bounds[0])
    grid = torch.logspace(math.log10(bounds[0]), math.log10(bounds[1]), 200, dtype=torch.float64)
    lags = torch.arange(1, n_lags + 1, dtype=torch.float64)
    expected = gp.correlation(kernel, lags[:, None], grid).mean(0).numpy()
    nearest = np.searchsorted(expected, np.clip(correlation, expected[0], 0.98))
    return grid.numpy()[np.minimum(nearest, len(grid) - 1)]


def maximize(
    data: PaddedTrials,
    start: Parameters,
    prior: Prior,
    problem: FitProblem,
    report: Callable[[int, float], None],
) -> tuple[Parameters, bool]:
    """Return the parameters that maximise the (penalised) marginal likelihood, and whether it converged.

    The circle can represent time scales up to a cap. If a time scale reaches the cap, the fit continues
    with a longer circle.

    Args:
        report: called after each iteration with its number and the log likelihood per bin.
    """
    n_bins = int(data.observed.any(axis=2).sum())
    limits = problem.limits
    upper = problem.time_scale_bounds[1]
    iterations = 0
    parameters = Parameters(*(p.to(prior.device) for p in start))

    while True:
        time_scale = parameters.log_time_scale.exp().cpu().numpy()
        cap = min(upper, _HEADROOM * time_scale.max())
        blocks = make_blocks(data, prior, time_scale, cap, delays=problem.delays)

        def count(value: float) -> None:
            nonlocal iterations
            iterations += 1
            report(iterations, -value)

        evidence = partial(_negative_evidence, blocks=blocks, n_bins=n_bins, problem=problem)
        left = replace(limits, max_iterations=limits.max_iterations - iterations)
        if problem.structure is None:
            parameters, converged = minimize(evidence, parameters, problem.bounds(cap), left, count)
        else:
            support = torch.as_tensor(problem.structure.support, device=prior.device)
            # offsets are in units of the channels' standard deviation, loadings in units of their noise
            mixing = Mixing(parameters, support, (0.5 * parameters.log_noise).exp())
            parameters, converged = minimize_mixed(
                evidence, parameters, mixing, problem.bounds(cap), left, count, n_bins
            )
        at_cap = float(parameters.log_time_scale.max()) > math.log(cap) - 1e-3
        if not (at_cap and cap < upper) or iterations >= limits.max_iterations:
            return Parameters(*(p.cpu() for p in parameters)), converged


def relevance_penalty(loading: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return the automatic-relevance penalty on the columns of C (nats) and its gradient.

    Column k has the prior N(0, I / alpha_k) with unknown precision alpha_k (Bishop 1999, Bayesian
    PCA). At the optimal alpha_k = gamma / |c_k|^2, with gamma the number of loadings determined by the
    data (MacKay 1992), the penalty is (gamma / 2) log |c_k|^2, here bounded from below for negligible
    columns. It shrinks a column to zero unless the gain in likelihood outweighs the penalty.

    Args:
        strength: gamma as a share of the number of channels.
    """
    square = (loading**2).sum(0) + NEGLIGIBLE_COLUMN
    determined = strength * len(loading)
    return 0.5 * determined * square.log().sum(), determined * loading / square


def _negative_evidence(
    parameters: Parameters, blocks: Sequence[Block], n_bins: int, problem: FitProblem
) -> tuple[float, Parameters]:
    """Return the negative (penalised) log marginal likelihood per bin and its gradient."""
    value, gradient = evaluate(blocks, parameters)
    if problem.automatic_relevance:
        for channels in problem.penalised:
            loading = parameters.loading[channels]
            penalty, by_loading = relevance_penalty(loading, problem.automatic_relevance)
            value += float(penalty)
            gradient.loading[channels] += by_loading
    return value / n_bins, Parameters(*(part / n_bins for part in gradient))
