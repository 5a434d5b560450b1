"""Sites at their optimum for the trials at hand, instead of an encoder's guess at it.

An encoder has learned to emit good sites on average over the training trials; given part of the
channels or another recording day it is further off (the amortisation gap, Cremer, Li & Duvenaud
2018). At the optimum of the evidence lower bound a site follows from the decoder alone
(conjugate-computation variational inference, Khan & Lin 2017, eq. 12): with L the expected
log-likelihood of a bin as a function of the mean m and variance v of a latent there,

    precision = -2 dL/dv,   linear = dL/dm + precision m.

A few such steps from the encoder's sites reach it, for the means of all latents together
(`coupled_mean`). They are taken for the modalities whose decoder is linear, where L needs no samples;
the others keep their encoders' sites (`calibration`).
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
ENOUGH = 0.02  # nats per trial


class Refined(NamedTuple):
    """What refinement gives.

    Attributes:
        posterior: of the latents.
        moving: the sites that were refined, all modalities together.
    """

    posterior: Posterior
    moving: Sites


class Start(NamedTuple):
    """What refinement starts from.

    Attributes:
        data: of the modalities whose sites are refined: those with a linear decoder.
        fixed: the other modalities' sites, together.
        moving: the sites that are refined, together.
    """

    data: Data
    fixed: Sites
    moving: Sites


@torch.no_grad()
def infer(network: MultiModalNetwork, trials: Trials, given: Iterable[str]) -> Posterior:
    """Return the posterior for these very trials; sites are refined where the inference has it so."""
    if not network.inference.refined:
        return network.encoded_posterior(trials, given)
    return refine(network, network.inputs(trials, given), *network.prior(trials)).posterior


def refine(network: MultiModalNetwork, data: Data, bases: Tensor, empty: Sites) -> Refined:
    """Refine the sites of the modalities whose decoder is linear.

    Args:
        data: of the modalities that are given; what must not be seen is not observed.
        bases: see `prior_basis`.
        empty: sites that say nothing, (trial, time, latent).
    """
    start = encoded(network, data, empty)
    if not start.data:
        return Refined(posterior(bases, start.fixed), empty)
    return climb(network, start, bases, ENOUGH)


def encoded(network: MultiModalNetwork, data: Data, empty: Sites) -> Start:
    """Return the start that the encoders give."""
    emitted = network.calibrated_sites(data)
    linear = [name for name in data if network.has_linear_decoder(name)]
    fixed = [emitted[name] for name in data if name not in linear]
    moving = [emitted[name] for name in linear]
    return Start({name: data[name] for name in linear}, product([empty, *fixed]), product([empty, *moving]))


def climb(network: MultiModalNetwork, start: Start, bases: Tensor, enough: float) -> Refined:
    """Bring the moving sites to the optimum of `bound`.

    Every trial takes the full step, or half of it if its bound would fall, until it has converged;
    no trial depends on the others.

    Args:
        enough: nats per trial; a step that changes the bound by less is the last.
    """
    _, fixed, moving = start
    q = posterior(bases, product([fixed, moving]))
    best = bound(network, start, q)
    step = torch.ones_like(best)
    active = torch.ones_like(best, dtype=torch.bool)
    for _ in range(MOST_STEPS):
        optimum = _optimum(network, start, q)
        share = (step * active)[:, None, None]
        proposed = Sites(*(old + share * (new - old) for old, new in zip(moving, optimum, strict=True)))
        try:
            candidate = posterior(bases, product([fixed, proposed]))
        except torch.linalg.LinAlgError:  # some trial went astray: smaller steps for all
            step = step / 2
            continue
        gain = bound(network, start, candidate) - best
        better = (gain > 0) | ~active  # false for NaN; what is not active has stayed as it was
        moving = Sites(
            *(torch.where(better[:, None, None], n, o) for o, n in zip(moving, proposed, strict=True))
        )
        best = torch.where(better, best + gain, best)
        step = torch.where(better, (2 * step).clamp(max=1.0), step / 2)
        active &= gain.abs().nan_to_num(nan=torch.inf) >= enough
        q = candidate if bool(better.all()) else posterior(bases, product([fixed, moving]))
        if not active.any():
            break
    return Refined(q, moving)


def bound(network: MultiModalNetwork, start: Start, q: Posterior) -> Tensor:
    """Return the evidence lower bound, the fixed sites being observations of their own, (trial,)."""
    expected = network.elbo(start.data, q, torch.Generator(), network.options.settings.weight)
    return expected + expected_log(start.fixed, q.marginals)


def or_nan(objective: Callable[[], float]) -> float:
    """Return NaN where decoders gone astray leave no posterior."""
    try:
        return objective()
    except (torch.linalg.LinAlgError, FloatingPointError):
        return math.nan


def _optimum(network: MultiModalNetwork, start: Start, q: Posterior) -> Sites:
    """Return the product of the modalities' sites that the posterior asks for.

    Their precision is the diagonal of that between latents; the linear part is such that the posterior's mean
    is the one that all latents have together (`coupled_mean`).
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
    """Return the slope of the expected log density in the latents' means, and the precision between them.

    (trial, time, latent) and (trial, time, latent, latent), of the modality's latents.
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
