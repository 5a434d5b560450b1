"""Exact log marginal likelihood of Gaussian GPFA and its gradient.

    y_t = C z_t + d + e_t,   e_t ~ N(0, diag R),   z_k ~ GP(0, correlation(. / tau_k))

(Yu et al. 2009, eqs 1-4). By Fisher's identity the gradient is the posterior expectation of the
gradient of the complete-data log likelihood, so no Cholesky factorisation is differentiated.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from colatent.models.gpfa.delayed import DelayedBlock, Delays
from colatent.models.gpfa.padded_trials import (
    PaddedTrials,
    Pattern,
    chain_patterns,
    channel_masks,
    find_patterns,
)
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.prior import Prior
from colatent.models.gpfa.scattered import ScatteredSolver
from colatent.models.gpfa.solvers import (
    CirculantSolver,
    DenseSolver,
    Solver,
    operations,
    to_bins,
    to_coefficients,
    to_leading_coefficients,
)

_CHUNK = 2**18  # values projected at once: limits memory and fits in the cache


class TrialBlock:
    """The trials of one chain of patterns, projected onto the Fourier basis of their circle.

    The projection is cached, so that evaluations work on coefficients alone.

    Attributes:
        trial: indices of the trials, in the order of the block.
        n_bins: bins up to which the circle represents the latents.
        n_circle: bins in the circle.
        solver: solver for the posterior, the one with the fewest operations.
    """

    def __init__(
        self,
        data: PaddedTrials,
        patterns: Sequence[Pattern],
        prior: Prior,
        time_scale: np.ndarray,
        longest: float,
        n_wanted: int,
    ):
        self.prior, device = prior, prior.device
        self.trial = np.concatenate([p.trial for p in patterns])
        # beyond the reach of the last observation the posterior is the prior
        n_reached = patterns[0].n_bins + prior.extension(longest)
        self.n_bins = max(1, patterns[0].n_bins, min(n_wanted, n_reached))
        self.n_circle = prior.n_circle(self.n_bins, longest)
        self.solver = choose_solver(patterns, self.n_circle, prior.counts(time_scale, self.n_circle), device)

        n_bins = patterns[0].n_bins
        self._value = data.value
        n_channels = data.value.shape[2]
        self._observation = torch.empty((0, n_channels, len(self.trial)), dtype=torch.float64, device=device)
        self.total = torch.zeros(n_channels, dtype=torch.float64, device=device)
        self.square = torch.zeros_like(self.total)
        for _, values in self._chunks(n_bins):
            self.total += values.sum((0, 1))
            self.square += torch.einsum("ntc,ntc->c", values, values)

        first = np.array([p.trial[0] for p in patterns])
        observed = data.observed[first, :n_bins].transpose(1, 2, 0).astype(float)
        self.observed = torch.as_tensor(observed, device=device)  # (T, p, pattern)
        self.mask = to_coefficients(self.observed, self.n_circle)
        sizes = torch.tensor([len(p.trial) for p in patterns], device=device)
        self.pattern = torch.arange(len(sizes), device=device).repeat_interleave(sizes)
        self.count = self.observed.sum(0) @ sizes.to(torch.float64)
        self.channels = torch.as_tensor(channel_masks(patterns)[0].astype(float), device=device)

    def _chunks(self, n_bins: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield slices of the block's trials and their values (trial, time, channel)."""
        step = 1 + _CHUNK // (self.n_circle * self._value.shape[2])
        for i in range(0, len(self.trial), step):
            values = self._value[self.trial[i : i + step], :n_bins]
            yield slice(i, i + step), torch.as_tensor(values, device=self.prior.device)

    def observation(self, n_coef: int) -> Tensor:
        """Return the leading coefficients of the observations (F, p, N)."""
        if n_coef > len(self._observation):
            n_projected = min(self.n_circle, n_coef + n_coef // 4)  # room for shorter time scales
            shape = (n_projected, *self._observation.shape[1:])
            self._observation = torch.empty(shape, dtype=torch.float64, device=self.prior.device)
            for position, values in self._chunks(len(self.observed)):
                projected = to_leading_coefficients(values, self.n_circle, n_projected)
                self._observation[:, :, position] = projected.permute(1, 2, 0)
        return self._observation[:n_coef]

    def precision(self, parameters: Parameters) -> Tensor:
        """Return M for every channel mask (J, q, q)."""
        loading = parameters.loading
        square = loading[:, :, None] * loading[:, None, :]
        return (self.channels @ square.flatten(1)).unflatten(1, square.shape[1:])

    def natural(self, parameters: Parameters, n_coef: int) -> Tensor:
        """Return the natural parameters h of the observations (F, q, N); see `solvers`."""
        sigma = (0.5 * parameters.log_noise).exp()[:, None]
        weight = (parameters.loading / sigma).T
        constant = (weight * parameters.offset) @ self.mask[:n_coef]
        return weight @ self.observation(n_coef) - constant[:, :, self.pattern]

    def posterior_mean(self, parameters: Parameters) -> Tensor:
        """Return the posterior mean of the coefficients (F, q, N)."""
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        h = self.natural(parameters, variances.shape[1])
        return self.solver.mean(h, self.precision(parameters), variances)

    def at_bins(self, coefficients: Tensor, parameters: Parameters, n_bins: int, modality: int = 0) -> Tensor:
        """Return the latents (n_bins, q, N) from coefficients (F, q, N); the same for all modalities."""
        return to_bins(coefficients, self.n_circle)[:n_bins]

    def bin_covariance(self, parameters: Parameters, n_bins: int, modality: int = 0) -> Tensor:
        """Return the latents' posterior covariance within each of the first bins (N, n_bins, q, q)."""
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        bins = torch.arange(n_bins, device=variances.device)
        return self.solver.bin_covariance(self.precision(parameters), variances, bins)[self.pattern]

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Tensor:
        """Return one posterior sample of the coefficients (F, q, N), by Matheron's rule."""
        loading = parameters.loading
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        n_coef = variances.shape[1]

        def normal(*size: int) -> Tensor:
            return torch.randn(*size, generator=generator, dtype=loading.dtype, device=loading.device)

        prior = normal(n_coef, loading.shape[1], len(self.trial)) * variances.T.sqrt()[:, :, None]
        simulated = loading @ to_bins(prior, self.n_circle)[: len(self.observed)]
        simulated += normal(*simulated.shape)
        simulated *= self.observed[:, :, self.pattern]
        h = self.natural(parameters, n_coef)
        h -= loading.T @ to_coefficients(simulated, self.n_circle)[:n_coef]
        return prior + self.solver.mean(h, self.precision(parameters), variances)

    def evaluate(self, parameters: Parameters) -> tuple[Tensor, Parameters]:
        """Return the negative log marginal likelihood (nats) and its gradient."""
        loading, log_noise, offset, log_time_scale, _ = parameters
        s, s_slope = self.prior.variances_and_slope(log_time_scale, self.n_circle)
        h = self.natural(parameters, s.shape[1])
        mean, log_det, scatter, relevance = self.solver.moments(h, self.precision(parameters), s)

        sigma = (0.5 * log_noise).exp()
        residual = (self.square - 2 * offset * self.total + offset**2 * self.count) / sigma**2
        value = residual + self.count * (log_noise + math.log(2 * math.pi))
        value = 0.5 * (value.sum() + log_det - (h * mean).sum())

        n_coef, q, n_trials = mean.shape
        by_pattern = mean.new_zeros(n_coef, q, self.mask.shape[2]).index_add_(2, self.pattern, mean)
        y_mean = (self.observation(n_coef) @ mean.transpose(1, 2)).sum(0)
        mask_mean = (self.mask[:n_coef] @ by_pattern.transpose(1, 2)).sum(0)
        cross = (y_mean - offset[:, None] * mask_mean) / sigma[:, None]
        by_channel = (self.channels.T @ scatter.flatten(1)).unflatten(1, scatter.shape[1:])
        second = (by_channel @ loading[:, :, None]).squeeze(2)
        shrink = torch.where(s > 0, 0.5 * (n_trials - relevance) / s.clamp_min(1e-300), 0.0)
        gradient = Parameters(
            loading=second - cross,
            log_noise=0.5 * (self.count - residual + (loading * cross).sum(1)),
            offset=(loading * mask_mean).sum(1) / sigma - (self.total - offset * self.count) / sigma**2,
            log_time_scale=(shrink * s_slope).sum(1),
            delay=torch.zeros_like(parameters.delay),
        )
        return value, gradient


Block = TrialBlock | DelayedBlock


def choose_solver(
    patterns: Sequence[Pattern], n_circle: int, counts: Sequence[int], device: torch.device
) -> Solver:
    """Return the applicable solver with the fewest operations."""
    if any(p.is_scattered for p in patterns):
        return ScatteredSolver(patterns, n_circle, device)
    dense, circulant = operations(patterns, n_circle, counts)
    if dense <= circulant:
        return DenseSolver(patterns, n_circle, device)
    return CirculantSolver(patterns, n_circle, device)


def make_blocks(
    data: PaddedTrials,
    prior: Prior,
    time_scale: np.ndarray,
    longest: float,
    n_wanted: np.ndarray | None = None,
    delays: Delays | None = None,
) -> list[Block]:
    """Return the blocks of all trials.

    Lengths within a chain differ by at most the circle's extension, because the circulant solver's
    cost is cubic in the sum of both.

    Args:
        time_scale: time scales in bins (latent,), to choose the solver.
        longest: longest time scale that the circles must represent, bins.
        n_wanted: bins of each trial in which the posterior is needed (trial,); default: observed ones.
        delays: where modalities can be delayed; None if nowhere.
    """
    wanted = np.zeros(len(data.value), dtype=int) if n_wanted is None else n_wanted
    chains = chain_patterns(find_patterns(data.observed), prior.extension(longest))
    blocks: list[Block] = []
    for chain in chains:
        n_bins = int(max(wanted[p.trial].max() for p in chain))
        if delays is None:
            blocks.append(TrialBlock(data, chain, prior, time_scale, longest, n_bins))
        else:
            blocks.append(DelayedBlock(data, chain, prior, longest, n_bins, delays))
    return blocks


def evaluate(blocks: Sequence[Block], parameters: Parameters) -> tuple[float, Parameters]:
    """Return the negative log marginal likelihood of all blocks (nats) and its gradient."""
    values, gradients = zip(*(block.evaluate(parameters) for block in blocks), strict=True)
    gradient = Parameters(*(torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True)))
    return float(sum(values)), gradient


def posterior_means(
    blocks: Sequence[Block], parameters: Parameters, shape: tuple[int, int], modality: int = 0
) -> np.ndarray:
    """Return posterior means of the latents as a modality sees them (trial, time, latent).

    Args:
        shape: number of trials and of bins.
    """
    mean = np.zeros((*shape, len(parameters.log_time_scale)))
    for block in blocks:
        n_bins = min(block.n_bins, shape[1])
        z = block.at_bins(block.posterior_mean(parameters), parameters, n_bins, modality)
        mean[block.trial, :n_bins] = z.permute(2, 0, 1).cpu().numpy()
    return mean


def posterior_covariances(
    blocks: Sequence[Block], parameters: Parameters, shape: tuple[int, int], modality: int = 0
) -> np.ndarray:
    """Return covariances between latents within each bin (trial, time, q, q), see `posterior_means`."""
    q = len(parameters.log_time_scale)
    covariance = np.broadcast_to(np.eye(q), (*shape, q, q)).copy()
    for block in blocks:
        of_block = block.bin_covariance(parameters, min(block.n_bins, shape[1]), modality)
        covariance[block.trial, : of_block.shape[1]] = of_block.cpu().numpy()
    return covariance
