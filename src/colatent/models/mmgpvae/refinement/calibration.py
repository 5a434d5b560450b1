"""Calibrate the precision of the encoders' sites on held-out training trials, near the end of training.

The sites of modalities without a linear decoder are their encoders' (`sites`), and too precise: the
likelihood takes the noise of the channels to be independent, which that of neighbouring pixels is not, and an
encoder knows the training trials better than others. A site is a noisy observation of its latent, at
``linear / precision`` with a noise of variance ``1 / precision``. Such observations have a marginal
likelihood (Rasmussen & Williams 2006, eq. 2.30), which says how far they are from the smooth latents that the
prior and the other modalities expect. One factor of the precisions per modality and latent maximises it in
training trials that were held out of the updates. It is at most 1: encoders that see several bins at once
have errors that resemble each other from bin to bin, which look like signal.

For the same reason the evidence does not detect an encoder whose errors last. So each factor is then halved
for as long as this raises the objective of the held-out trials: where it describes other modalities better.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from colatent.models.mmgpvae.inference import product
from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.posterior import Sites, log_evidence
from colatent.models.mmgpvae.refinement.sites import or_nan, refine

SMALLEST_FACTOR = 0.01
ENOUGH = 0.05  # nats per held-out trial: halving a factor must gain more


def calibrate_sites(network: MultiModalNetwork, data: Data, bases: Tensor, empty: Sites) -> None:
    """Set the factors of the precisions of the encoders' sites, in place; 1 where ``data`` has no such sites.

    Args:
        data: of trials that were held out of the updates.
        bases, empty: see `refine`.
    """
    names = [name for name in data if not network.has_linear_decoder(name)]
    if not names:
        return
    with torch.no_grad():
        others = refine(network, data, bases, empty).moving
        emitted = network.sites(data)
    n_latents = [len(network.modality(name).latents) for name in names]

    def cost(log_factors: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.from_numpy(log_factors).to(others.precision.device).requires_grad_()
        scaled = [
            emitted[name].times(network.on_all_latents(name, part.exp()))
            for name, part in zip(names, free.split(n_latents), strict=True)
        ]
        evidence = log_evidence(bases, product([*scaled, others])).sum() + sum(map(log_normaliser, scaled))
        loss = -evidence / len(others.precision)
        loss.backward()
        assert free.grad is not None
        return float(loss.detach()), free.grad.cpu().numpy()

    start = np.zeros(sum(n_latents))
    bounds = [(np.log(SMALLEST_FACTOR), 0.0)] * len(start)
    best = minimize(cost, start, jac=True, method="L-BFGS-B", bounds=bounds).x
    for name, part in zip(names, np.split(best, np.cumsum(n_latents)[:-1]), strict=True):
        network.modality(name).site_factor.copy_(torch.from_numpy(np.exp(part)))


def make_less_sure(network: MultiModalNetwork, held_out_objective: Callable[[], float]) -> None:
    """Halve the factors of the encoders' sites, in place, for as long as held-out trials gain.

    Args:
        held_out_objective: returns the objective of these trials, nats per trial.
    """
    best = or_nan(held_out_objective)
    for name in network.names:
        factors = network.modality(name).site_factor
        if network.has_linear_decoder(name):
            continue
        for i in range(len(factors)):
            while factors[i] / 2 >= SMALLEST_FACTOR:
                factors[i] /= 2
                new = or_nan(held_out_objective)
                if not best + ENOUGH < new < math.inf:
                    factors[i] *= 2
                    break
                best = new


def log_normaliser(sites: Sites) -> Tensor:
    """Return what makes each site a density of its location, log N(location; 0, 1 / precision), summed.

    Where the precision is 0 nothing was observed.
    """
    there = sites.precision > 0
    precision = torch.where(there, sites.precision, 1.0)
    density = 0.5 * (precision.log() - sites.linear.square() / precision - np.log(2 * np.pi))
    return torch.where(there, density, 0.0).sum()
