"""The prior at its optimum for the sites: near the end of training.

Stochastic gradients and early stopping leave time scales and variances of the prior short of their optimum,
and the bound that they follow is biased in them (Turner & Sahani 2011). With the sites of the training
trials held fixed their evidence, which is exact, depends on nothing else.
"""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import minimize

from colatent.inference import product
from colatent.models.mmgpvae_network import Data, MultiModalNetwork
from colatent.models.site_refinement import refine
from colatent.posterior import Sites, log_evidence

LARGEST_CHANGE = np.log(10.0)  # of a standard deviation


def refit_prior(network: MultiModalNetwork, data: Data, empty: Sites, weight: Mapping[str, float]) -> None:
    """Set time scales and standard deviations of the prior, in place.

    Args:
        data: the training trials.
        empty, weight: see `refine`.
    """
    n_bins, n_latents = empty.precision.shape[1:]
    with torch.no_grad():
        refined = refine(network, data, network.bases(n_bins), empty, weight)
        sites = product([refined.fixed, refined.moving])

    def cost(logs: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.from_numpy(logs).to(empty.precision.device).requires_grad_()
        bases = network.inference.basis(network.kernel, free[:n_latents].exp(), n_bins)
        scaled = [sd * basis for sd, basis in zip(free[n_latents:].exp(), bases, strict=True)]
        loss = -log_evidence(scaled, sites).mean()
        loss.backward()
        assert free.grad is not None
        return float(loss.detach()), free.grad.cpu().numpy()

    time_scale, sd = (x.detach().cpu().numpy() for x in (network.time_scale().log(), network.log_prior_sd))
    bounds = [tuple(network.bounds.tolist())] * n_latents
    bounds += [(x - LARGEST_CHANGE, x + LARGEST_CHANGE) for x in sd]
    best = minimize(cost, np.concatenate([time_scale, sd]), jac=True, method="L-BFGS-B", bounds=bounds).x
    with torch.no_grad():
        network.log_time_scale.copy_(torch.from_numpy(best[:n_latents]))
        network.log_prior_sd.copy_(torch.from_numpy(best[n_latents:]))
