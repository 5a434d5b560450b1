"""Gaussian variational posterior of GPFA of counts, with one site per bin and channel.

Shapes: N trials, T bins, p channels, q latents, n kept Fourier coefficients of all latents together.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from colatent.data.likelihoods import CountLikelihood, Expectation
from colatent.models.gp import fourier_basis

_MAX_SITE_ITERATIONS = 50


class CountParameters(NamedTuple):
    """C (p, q), d (p,), log r (p,), log time scale in bins (q,)."""

    loading: Tensor
    offset: Tensor
    log_dispersion: Tensor
    log_time_scale: Tensor


class CountSites(NamedTuple):
    """Factors exp(slope * eta - precision * eta^2 / 2), one per count, eta without its offset (N, T, p)."""

    slope: Tensor
    precision: Tensor


class SitePosterior(NamedTuple):
    """Moments of the latents under the prior times the sites.

    Attributes:
        mean: (N, T, q).
        covariance: between latents within a bin (N, T, q, q).
        kl: Kullback-Leibler divergence from the prior (N,), nats.
        relevance: sum over trials of E[x^2] / S for each kept coefficient, one tensor per latent.
    """

    mean: Tensor
    covariance: Tensor
    kl: Tensor
    relevance: list[Tensor]


class CoefficientBasis:
    """Rows of S^(1/2) B, one matrix (kept coefficients, T) per latent."""

    def __init__(self, variances: Tensor, n_circle: int, n_bins: int):
        basis = torch.as_tensor(fourier_basis(n_circle, n_bins, variances.shape[1]), device=variances.device)
        self.counts = [int(n) for n in (variances > 0).sum(1)]
        self.rows = [s[:n].sqrt()[:, None] * basis[:n] for s, n in zip(variances, self.counts, strict=True)]

    def posterior(self, sites: CountSites, loading: Tensor) -> SitePosterior:
        """Return the posterior; the cost per trial is a Cholesky factorisation of n x n plus n^2 T."""
        n_trials, n_bins, n_channels = sites.slope.shape
        q = loading.shape[1]
        outer = (loading[:, :, None] * loading[:, None, :]).view(n_channels, q * q)
        precision = (sites.precision @ outer).view(n_trials, n_bins, q, q)
        natural = sites.slope @ loading
        ends = [sum(self.counts[: k + 1]) for k in range(q)]
        parts = [slice(end - n, end) for end, n in zip(ends, self.counts, strict=True)]

        a = loading.new_empty(n_trials, ends[-1], ends[-1])
        for k, rows_k in enumerate(self.rows):
            for j in range(k + 1):
                block = (rows_k * precision[:, None, :, k, j]) @ self.rows[j].T
                a[:, parts[k], parts[j]] = block
                a[:, parts[j], parts[k]] = block.transpose(1, 2)
        a.diagonal(dim1=1, dim2=2).add_(1.0)
        factor, failed = torch.linalg.cholesky_ex(a)
        h = torch.cat([natural[:, :, k] @ rows.T for k, rows in enumerate(self.rows)], dim=1)
        u = torch.cholesky_solve(h[:, :, None], factor)[:, :, 0]
        inverse = torch.cholesky_inverse(factor)

        mean = torch.stack([u[:, parts[k]] @ rows for k, rows in enumerate(self.rows)], dim=-1)
        covariance = loading.new_empty(n_trials, n_bins, q, q)
        for k, rows_k in enumerate(self.rows):
            for j in range(k + 1):
                between = ((inverse[:, parts[k], parts[j]] @ self.rows[j]) * rows_k).sum(1)
                covariance[:, :, k, j] = covariance[:, :, j, k] = between
        log_det = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(1)
        second = u**2 + inverse.diagonal(dim1=1, dim2=2)
        # overflowing sites give an infinite KL divergence, so that iterations turn back
        kl = torch.where(failed == 0, 0.5 * (second.sum(1) - ends[-1] + log_det), math.inf)
        return SitePosterior(mean, covariance, kl, [second[:, part].sum(0) for part in parts])


class Counts(NamedTuple):
    """Counts and where they were observed (1 or 0), both (N, T, p)."""

    value: Tensor
    observed: Tensor


def predictor(posterior: SitePosterior, loading: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and variance of C z (N, T, p)."""
    variance = ((loading @ posterior.covariance) * loading).sum(-1)
    return posterior.mean @ loading.T, variance


class Bound(NamedTuple):
    """Evidence lower bound of each trial (N,) and the quantities behind it."""

    elbo: Tensor
    posterior: SitePosterior
    expectation: Expectation
    mean: Tensor


def evaluate_bound(
    sites: CountSites,
    counts: Counts,
    parameters: CountParameters,
    basis: CoefficientBasis,
    likelihood: CountLikelihood,
) -> Bound:
    """Return the bound at the posterior defined by the sites; it is a lower bound for any sites."""
    posterior = basis.posterior(sites, parameters.loading)
    mean, variance = predictor(posterior, parameters.loading)
    expectation = likelihood.expectation(
        counts.value, mean + parameters.offset, variance, parameters.log_dispersion
    )
    elbo = (expectation.log_density * counts.observed).sum((1, 2)) - posterior.kl
    return Bound(elbo, posterior, expectation, mean)


def next_sites(bound: Bound, counts: Counts) -> CountSites:
    """Return the sites implied by the current posterior; at the optimum they are a fixed point."""
    precision = counts.observed * bound.expectation.curvature
    return CountSites(counts.observed * bound.expectation.slope + precision * bound.mean, precision)


def initial_sites(counts: Counts, parameters: CountParameters, likelihood: CountLikelihood) -> CountSites:
    """Return sites for a predictor equal to the offset everywhere.

    Their precision is raised so that no site implies a step larger than 1: from a low rate, a
    Newton step towards a high count would overshoot far.
    """
    zero = torch.zeros_like(counts.value)
    e = likelihood.expectation(counts.value, zero + parameters.offset, zero, parameters.log_dispersion)
    return CountSites(counts.observed * e.slope, counts.observed * (e.curvature + e.slope.abs()))


def iterate_sites(
    sites: CountSites,
    counts: Counts,
    parameters: CountParameters,
    basis: CoefficientBasis,
    likelihood: CountLikelihood,
    tolerance: float,
) -> tuple[CountSites, Bound]:
    """Iterate the sites to the optimum, halving the step of trials whose bound would fall.

    Stops when no trial's bound gains more than ``tolerance`` nats per observation.
    """
    min_gain = tolerance * counts.observed.sum((1, 2)).clamp_min(1.0)
    step = torch.ones(len(counts.value), dtype=torch.float64, device=counts.value.device)
    bound = evaluate_bound(sites, counts, parameters, basis, likelihood)
    if not bound.elbo.isfinite().all():  # the sites came from other parameters
        sites = initial_sites(counts, parameters, likelihood)
        bound = evaluate_bound(sites, counts, parameters, basis, likelihood)
    for _ in range(_MAX_SITE_ITERATIONS):
        target = next_sites(bound, counts)
        share = step[:, None, None]
        proposed = CountSites(*(old + share * (new - old) for old, new in zip(sites, target, strict=True)))
        candidate = evaluate_bound(proposed, counts, parameters, basis, likelihood)
        gain = candidate.elbo - bound.elbo
        fell = ~(gain >= -min_gain)  # also True for NaN
        if not fell.any():
            sites, bound = proposed, candidate
            if bool((gain <= min_gain).all()):
                break
            step = torch.clamp(step * 2, max=1.0)
            continue
        step = torch.where(fell, step / 2, step)
        kept = fell[:, None, None]
        sites = CountSites(*(torch.where(kept, old, new) for old, new in zip(sites, proposed, strict=True)))
        bound = evaluate_bound(sites, counts, parameters, basis, likelihood)
        if float(step.min()) < 1e-6:
            break
    return sites, bound


def bound_gradient(
    bound: Bound, counts: Counts, parameters: CountParameters, variances: Tensor, variance_slope: Tensor
) -> CountParameters:
    """Return the gradient of the bound, summed over trials, at converged sites.

    Args:
        bound, counts, parameters: the bound and what it was evaluated at.
        variances: prior variances S (q, F).
        variance_slope: their derivatives with respect to the log time scales (q, F).
    """
    slope = counts.observed * bound.expectation.slope
    curvature = counts.observed * bound.expectation.curvature
    n_channels, q = parameters.loading.shape
    flat = curvature.reshape(-1, n_channels).T @ bound.posterior.covariance.reshape(-1, q * q)
    spread = (flat.view(n_channels, q, q) @ parameters.loading[:, :, None])[:, :, 0]
    by_log_variance = torch.zeros_like(variances)
    for row, relevance in zip(by_log_variance, bound.posterior.relevance, strict=True):
        row[: len(relevance)] = 0.5 * (relevance - len(counts.value))
    weight = torch.where(variances > 0, by_log_variance / variances.clamp_min(1e-300), 0.0)
    return CountParameters(
        loading=slope.reshape(-1, n_channels).T @ bound.posterior.mean.reshape(-1, q) - spread,
        offset=slope.sum((0, 1)),
        log_dispersion=(counts.observed * bound.expectation.scale_slope).sum((0, 1)),
        log_time_scale=(weight * variance_slope).sum(1),
    )
