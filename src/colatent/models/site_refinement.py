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
ENOUGH = 0.02  # nats a trial: a step that changes the bound by less is the last


class Refined(NamedTuple):
    """What refinement gives.

    Attributes:
        posterior: of the latents.
        moving: the sites that were refined, all modalities together.
    """

    posterior: Posterior
    moving: Sites


def refine(
    network: MultiModalNetwork, data: Data, bases: Tensor, empty: Sites, weight: Mapping[str, float]
) -> Refined:
    """Refine the sites of the modalities whose decoder is linear.

    Every trial takes the full step, or half of it if its bound would fall, until it has converged;
    no trial depends on the others.

    Args:
        data: of the modalities that are given; what must not be seen is not observed.
        bases: see `prior_basis`.
        empty: sites that say nothing, (trial, time, latent).
        weight: modality -> factor of its expected log-density, as in the training's objective.
    """
    linear = [n for n in data if network.has_linear_decoder(n)]
    emitted = network.calibrated_sites(data)
    fixed = product([empty, *(emitted[n] for n in data if n not in linear)])
    if not linear:
        return Refined(posterior(bases, fixed), empty)
    moving = product([emitted[n] for n in linear])
    observations = {n: data[n] for n in linear}

    q = posterior(bases, product([fixed, moving]))
    bound = _bound(network, observations, fixed, q, weight)
    step = torch.ones_like(bound)
    active = torch.ones_like(bound, dtype=torch.bool)
    for _ in range(MOST_STEPS):
        optimum = _optimum(network, observations, q.marginals, weight)
        share = (step * active)[:, None, None]
        proposed = Sites(*(old + share * (new - old) for old, new in zip(moving, optimum, strict=True)))
        candidate = posterior(bases, product([fixed, proposed]))
        gain = _bound(network, observations, fixed, candidate, weight) - bound
        better = gain > 0  # false for NaN as well
        moving = Sites(
            *(torch.where(better[:, None, None], n, o) for o, n in zip(moving, proposed, strict=True))
        )
        bound = torch.where(better, bound + gain, bound)
        step = torch.where(better, (2 * step).clamp(max=1.0), step / 2)
        active &= gain.abs().nan_to_num(nan=torch.inf) >= ENOUGH
        q = candidate if bool(better.all()) else posterior(bases, product([fixed, moving]))
        if not active.any():
            break
    return Refined(q, moving)


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


def _bound(
    network: MultiModalNetwork, data: Data, fixed: Sites, q: Posterior, weight: Mapping[str, float]
) -> Tensor:
    """Return the evidence lower bound, the fixed sites being observations of their own, (trial,)."""
    return network.elbo(data, q, torch.Generator(), weight) + expected_log(fixed, q.marginals)
