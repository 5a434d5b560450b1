"""Sites at their optimum for the trials at hand, instead of an encoder's guess at it.

An encoder has learned to emit good sites on average over the training trials; given part of the
channels or another recording day it is further off (the amortisation gap, Cremer, Li & Duvenaud
2018). At the optimum of the evidence lower bound a site follows from the decoder alone
(conjugate-computation variational inference, Khan & Lin 2017, eq. 12): with L the expected
log-likelihood of a bin as a function of the mean m and variance v of a latent there,

    precision = -2 dL/dv,   linear = dL/dm + precision m.

A few such steps from the encoder's sites reach it. They are taken for the modalities whose decoder
is linear, where L needs no samples; the others keep their encoders' sites (`site_calibration`).
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from colatent.inference import product
from colatent.models.mmgpvae_network import Data, MultiModalNetwork
from colatent.networks import ModalityNetwork, Observations
from colatent.posterior import Marginals, Posterior, Sites, expected_log, posterior

MOST_STEPS = 20
ENOUGH = 0.02  # nats a trial


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
        observations: of the modalities whose sites are refined: those with a linear decoder.
        fixed: the other modalities' sites, together.
        moving: the sites that are refined, together.
    """

    observations: Data
    fixed: Sites
    moving: Sites


def refine(
    network: MultiModalNetwork, data: Data, bases: Tensor, empty: Sites, weight: Mapping[str, float]
) -> Refined:
    """Refine the sites of the modalities whose decoder is linear.

    Args:
        data: of the modalities that are given; what must not be seen is not observed.
        bases: see `prior_basis`.
        empty: sites that say nothing, (trial, time, latent).
        weight: modality -> factor of its expected log-density, as in the training's objective.
    """
    start = encoded(network, data, empty)
    if not start.observations:
        return Refined(posterior(bases, start.fixed), empty)
    return climb(network, start, bases, weight, ENOUGH)


def encoded(network: MultiModalNetwork, data: Data, empty: Sites) -> Start:
    """Return the start that the encoders give."""
    emitted = network.calibrated_sites(data)
    linear = [name for name in data if network.has_linear_decoder(name)]
    fixed = [emitted[name] for name in data if name not in linear]
    moving = [emitted[name] for name in linear]
    observations = {name: data[name] for name in linear}
    return Start(observations, product([empty, *fixed]), product([empty, *moving]))


def climb(
    network: MultiModalNetwork, start: Start, bases: Tensor, weight: Mapping[str, float], enough: float
) -> Refined:
    """Bring the moving sites to the optimum of `bound`.

    Every trial takes the full step, or half of it if its bound would fall, until it has converged;
    no trial depends on the others.

    Args:
        enough: nats a trial; a step that changes the bound by less is the last.
    """
    observations, fixed, moving = start
    q = posterior(bases, product([fixed, moving]))
    best = bound(network, start, q, weight)
    step = torch.ones_like(best)
    active = torch.ones_like(best, dtype=torch.bool)
    for _ in range(MOST_STEPS):
        optimum = _optimum(network, observations, q.marginals, weight)
        share = (step * active)[:, None, None]
        proposed = Sites(*(old + share * (new - old) for old, new in zip(moving, optimum, strict=True)))
        candidate = posterior(bases, product([fixed, proposed]))
        gain = bound(network, start, candidate, weight) - best
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


def bound(network: MultiModalNetwork, start: Start, q: Posterior, weight: Mapping[str, float]) -> Tensor:
    """Return the evidence lower bound, the fixed sites being observations of their own, (trial,)."""
    expected = network.elbo(start.observations, q, torch.Generator(), weight)
    return expected + expected_log(start.fixed, q.marginals)


def _optimum(
    network: MultiModalNetwork, data: Data, marginals: Marginals, weight: Mapping[str, float]
) -> Sites:
    """Return the product of the modalities' sites that the marginals ask for."""
    total = Sites(*(torch.zeros_like(x) for x in marginals))
    for name, observations in data.items():
        modality = network.modality(name)
        own = _optimal_sites(modality, observations, marginals.select(modality.latents))
        factor = weight.get(name, 1.0)
        total = Sites(
            *(t.index_add(2, modality.latents, x, alpha=factor) for t, x in zip(total, own, strict=True))
        )
    return total


def _optimal_sites(modality: ModalityNetwork, data: Observations, marginals: Marginals) -> Sites:
    with torch.enable_grad():
        mean, variance = (x.detach().requires_grad_() for x in marginals)
        expected = modality.expected_log_prob(data, Marginals(mean, variance), torch.Generator())
        by_mean, by_variance = torch.autograd.grad(expected.sum(), (mean, variance))
    precision = (-2 * by_variance).clamp_min(0.0)
    return Sites(precision, by_mean + precision * marginals.mean)
