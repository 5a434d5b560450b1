"""Calibrate the precision of the encoders' sites on held-out training trials, near the end of training.

Modalities without a linear decoder keep their encoders' sites in inference (`sites`). These are too precise:
the likelihood assumes independent noise across channels, which does not hold for neighbouring pixels, and the
encoder is overfitted to the training trials. A site is equivalent to a noisy observation of its latent, at
``linear / precision`` with noise variance ``1 / precision``. The marginal likelihood of these observations
(Rasmussen & Williams 2006, eq. 2.30) measures how well they agree with the smooth latents expected from the
prior and the other modalities. One factor of the precision per modality and latent is chosen to maximise it
on training trials held out of the updates. Factors are at most 1, because encoders that see several bins have
errors correlated between bins, which look like signal.

For the same reason, the evidence cannot detect an encoder with slowly varying errors. Each factor is
therefore halved for as long as this raises the objective on the held-out trials, by better describing other
modalities.
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
from colatent.models.mmgpvae.refinement.sites import nan_if_diverged, refine

SMALLEST_FACTOR = 0.01
MIN_GAIN = 0.05  # nats per held-out trial by which halving a factor must raise the objective


def calibrate_sites(network: MultiModalNetwork, data: Data, bases: Tensor, empty: Sites) -> None:
    """Set the precision factors of encoders' sites in place, for modalities without a linear decoder.

    Args:
        data: trials held out of the updates.
        bases, empty: see `refine`.
    """
    names = [name for name in data if not network.has_linear_decoder(name)]
    if not names:
        return
    with torch.no_grad():
        others = refine(network, data, bases, empty).free
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


def lower_precisions(network: MultiModalNetwork, held_out_objective: Callable[[], float]) -> None:
    """Halve the precision factors in place for as long as the held-out objective increases.

    Args:
        held_out_objective: returns the objective on held-out trials, nats per trial.
    """
    best = nan_if_diverged(held_out_objective)
    for name in network.names:
        factors = network.modality(name).site_factor
        if network.has_linear_decoder(name):
            continue
        for i in range(len(factors)):
            while factors[i] / 2 >= SMALLEST_FACTOR:
                factors[i] /= 2
                new = nan_if_diverged(held_out_objective)
                if not best + MIN_GAIN < new < math.inf:
                    factors[i] *= 2
                    break
                best = new


def log_normaliser(sites: Sites) -> Tensor:
    """Return the summed log normalisers log N(location; 0, 1 / precision) of the sites as observations.

    Sites with zero precision are not observations and are left out.
    """
    there = sites.precision > 0
    precision = torch.where(there, sites.precision, 1.0)
    density = 0.5 * (precision.log() - sites.linear.square() / precision - np.log(2 * np.pi))
    return torch.where(there, density, 0.0).sum()
