"""Refine sites from the encoders' output to their optimum for the given trials.

An encoder outputs good sites on average over the training trials; with some channels hidden, or on another
recording day, they are further from the optimum (the amortisation gap, Cremer, Li & Duvenaud 2018). At the
optimum of the evidence lower bound, sites follow from the decoder alone (conjugate-computation variational
inference, Khan & Lin 2017, eq. 12): with L the expected log likelihood of a bin as a function of the mean m
and variance v of a latent there,

    precision = -2 dL/dv,   linear = dL/dm + precision m.

A few such steps from the encoders' sites, with the means of all latents updated jointly (`coupled_mean`),
reach the optimum. They are taken for modalities with a linear decoder, where L needs no sampling; the others
keep their encoders' sites (`calibration`).
"""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from colatent.data.trials import Trials
from colatent.models.mmgpvae.inference import product
from colatent.models.mmgpvae.likelihoods import masked_sum
from colatent.models.mmgpvae.modality import ModalityNetwork, NetworkInput
from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.posterior import Marginals, Posterior, Sites, expected_log, posterior
from colatent.models.mmgpvae.refinement.coupled_mean import coupled_mean, times

MOST_STEPS = 20
MIN_GAIN = 0.02  # nats per trial


class Refined(NamedTuple):
    """Result of refinement.

    Attributes:
        posterior: posterior of the latents.
        free: product of the refined sites.
    """

    posterior: Posterior
    free: Sites


class SiteStart(NamedTuple):
    """Starting point of refinement.

    Attributes:
        data: data of the modalities whose sites are refined, those with a linear decoder.
        fixed: product of the other modalities' sites.
        free: product of the sites to refine.
    """

    data: Data
    fixed: Sites
    free: Sites


@torch.no_grad()
def infer(network: MultiModalNetwork, trials: Trials, given: Iterable[str]) -> Posterior:
    """Return the posterior for the given trials, with refined sites if the inference uses them."""
    if not network.inference.refined:
        return network.encoded_posterior(trials, given)
    return refine(network, network.inputs(trials, given), *network.prior(trials)).posterior


def refine(network: MultiModalNetwork, data: Data, bases: Tensor, empty: Sites) -> Refined:
    """Refine the sites of the modalities with a linear decoder.

    Args:
        data: data of the given modalities, with anything withheld unobserved.
        bases: see `prior_basis`.
        empty: sites with zero precision, (trial, time, latent).
    """
    start = encoded(network, data, empty)
    if not start.data:
        return Refined(posterior(bases, start.fixed), empty)
    return climb(network, start, bases, MIN_GAIN)


def encoded(network: MultiModalNetwork, data: Data, empty: Sites) -> SiteStart:
    """Return the starting point from the encoders' sites."""
    emitted = network.calibrated_sites(data)
    linear = [name for name in data if network.has_linear_decoder(name)]
    fixed = [emitted[name] for name in data if name not in linear]
    free = [emitted[name] for name in linear]
    return SiteStart({name: data[name] for name in linear}, product([empty, *fixed]), product([empty, *free]))


def climb(network: MultiModalNetwork, start: SiteStart, bases: Tensor, tolerance: float) -> Refined:
    """Iterate the sites to refine to the optimum of `bound`.

    Each trial takes full steps, halved when its bound would fall, until it converges; trials do not
    depend on each other.

    Args:
        start: initial sites.
        bases: see `prior_basis`.
        tolerance: change of the bound, nats per trial, below which a trial has converged.
    """
    _, fixed, free = start
    q = posterior(bases, product([fixed, free]))
    best = bound(network, start, q)
    step = torch.ones_like(best)
    active = torch.ones_like(best, dtype=torch.bool)
    for _ in range(MOST_STEPS):
        optimum = _optimum(network, start, q)
        share = (step * active)[:, None, None]
        proposed = Sites(*(old + share * (new - old) for old, new in zip(free, optimum, strict=True)))
        try:
            candidate = posterior(bases, product([fixed, proposed]))
        except torch.linalg.LinAlgError:  # a trial diverged: smaller steps for all
            step = step / 2
            continue
        gain = bound(network, start, candidate) - best
        better = (gain > 0) | ~active  # False for NaN; inactive trials are unchanged
        free = Sites(*(torch.where(better[:, None, None], n, o) for o, n in zip(free, proposed, strict=True)))
        best = torch.where(better, best + gain, best)
        step = torch.where(better, (2 * step).clamp(max=1.0), step / 2)
        active &= gain.abs().nan_to_num(nan=torch.inf) >= tolerance
        q = candidate if bool(better.all()) else posterior(bases, product([fixed, free]))
        if not active.any():
            break
    return Refined(q, free)


def bound(network: MultiModalNetwork, start: SiteStart, q: Posterior) -> Tensor:
    """Return the evidence lower bound with the fixed sites as additional observations, nats (trial,)."""
    expected = network.elbo(start.data, q, torch.Generator(), network.options.settings.weight)
    return expected + expected_log(start.fixed, q.marginals)


def nan_if_diverged(objective: Callable[[], float]) -> float:
    """Return the objective, or NaN if decoders have diverged so far that there is no posterior."""
    try:
        return objective()
    except (torch.linalg.LinAlgError, FloatingPointError):
        return math.nan


def _optimum(network: MultiModalNetwork, start: SiteStart, q: Posterior) -> Sites:
    """Return the product of the modalities' sites implied by the posterior.

    Their precision is the diagonal of the precision between latents; their linear part makes the posterior
    mean equal to the joint mean of all latents (`coupled_mean`).
    """
    mean, weight = q.marginals.mean, network.options.settings.weight
    gradient = torch.zeros_like(mean)
    precision = mean.new_zeros((*mean.shape, mean.shape[-1]))
    for name, data in start.data.items():
        modality = network.modality(name)
        own = modality.latents
        slope, between = _expansion(modality, data, q.marginals.select(own))
        gradient[..., own] += weight.get(name, 1.0) * slope
        precision[..., own[:, None], own] += weight.get(name, 1.0) * between
    pulled = gradient + times(precision, mean)
    with_fixed = precision + torch.diag_embed(start.fixed.precision)
    together = coupled_mean(q, with_fixed, pulled + start.fixed.linear)
    diagonal = precision.diagonal(dim1=-2, dim2=-1)
    linear = pulled - times(precision, together) + diagonal * together
    return Sites(diagonal, linear)


def _expansion(modality: ModalityNetwork, data: NetworkInput, latents: Marginals) -> tuple[Tensor, Tensor]:
    """Return the expected log density's gradient in the latent means, and the precision between latents.

    Shapes (trial, time, latent) and (trial, time, latent, latent), for the modality's latents.
    """
    with torch.enable_grad():
        mean, variance = (x.detach().requires_grad_() for x in modality.linear_decoder.moments(latents))
        expected = modality.likelihood.expected_log_prob(data.target, mean, variance)
        total = masked_sum(expected, data.observed).sum()
        by_mean, by_variance = torch.autograd.grad(total, (mean, variance))
    loading = modality.linear_decoder.readout.weight.detach()
    pairs = (loading[:, :, None] * loading[:, None, :]).flatten(start_dim=1)
    between = (-2 * by_variance).clamp_min(0.0) @ pairs
    n = loading.shape[1]
    return (by_mean @ loading).to(latents.mean), between.to(latents.mean).unflatten(-1, (n, n))
