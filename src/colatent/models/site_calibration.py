"""How sure the encoders' sites may be: near the end of training.

The sites of modalities without a linear decoder are their encoders' (`site_refinement`), and too sure
of themselves: the likelihood takes the noise of the channels to be independent, as that of neighbouring
pixels is not, and an encoder knows the training trials better than others. A site is a noisy observation of
its latent, at ``linear / precision`` with a noise of variance ``1 / precision``. Such observations have
a marginal likelihood (Rasmussen & Williams 2006, eq. 2.30), which says how far they are from the smooth
latents that the prior and the other modalities expect. One factor of the precisions per modality and latent
maximises it in training trials that were held out of the updates.

An encoder that sees several bins at once errs alike in bins whose windows overlap, which looks like signal.
So of the bins of one window's width only one site counts, for all of them: as precise as they are together.
"""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from colatent.inference import product
from colatent.models.mmgpvae_network import Data, MultiModalNetwork
from colatent.models.site_refinement import refine
from colatent.posterior import Sites, log_evidence

SMALLEST_FACTOR = 1e-3


def calibrate_sites(
    network: MultiModalNetwork,
    data: Data,
    bases: Tensor,
    empty: Sites,
    weight: Mapping[str, float],
    context: int,
) -> None:
    """Set the factors of the precisions of the encoders' sites, in place; 1 where ``data`` has no such sites.

    Args:
        data: of trials that were held out of the updates.
        bases, empty, weight: see `refine`.
        context: the bins that the encoders see at once.
    """
    names = [name for name in data if not network.has_linear_decoder(name)]
    if not names:
        return
    linear = {name: data[name] for name in data if name not in names}
    with torch.no_grad():
        others = repeated(refine(network, linear, bases, empty, weight).moving, context)
        emitted = network.sites(data)
    thinned = {name: one_of_each_window(emitted[name], context) for name in names}
    n_latents = [len(network.modality(name).latents) for name in names]

    def cost(log_factors: np.ndarray) -> tuple[float, np.ndarray]:
        free = torch.from_numpy(log_factors).to(others.precision.device).requires_grad_()
        scaled = [
            thinned[name].times(network.on_all_latents(name, part.exp()))
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


def one_of_each_window(sites: Sites, width: int) -> Sites:
    """Return the sites of every ``width``-th bin, ``width`` times as precise, and nothing in the others.

    The trials come ``width`` times, (width x trial, time, latent), once with each bin that can be the first.
    """
    bin_in_window = torch.arange(sites.precision.shape[1], device=sites.precision.device) % width
    first = torch.arange(width, device=bin_in_window.device)[:, None, None, None]
    chosen = width * (bin_in_window[:, None] == first).to(sites.precision)
    return Sites(*((chosen * part).flatten(end_dim=1) for part in sites))


def repeated(sites: Sites, n_times: int) -> Sites:
    return Sites(*(part.repeat(n_times, 1, 1) for part in sites))


def log_normaliser(sites: Sites) -> Tensor:
    """Return what makes each site a density of its location, log N(location; 0, 1 / precision), summed.

    Where the precision is 0 nothing was observed.
    """
    there = sites.precision > 0
    precision = torch.where(there, sites.precision, 1.0)
    density = 0.5 * (precision.log() - sites.linear.square() / precision - np.log(2 * np.pi))
    return torch.where(there, density, 0.0).sum()
