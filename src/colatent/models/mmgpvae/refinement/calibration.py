"""How much each modality's channels say together, near the end of training.

The likelihood takes the noise of channels as independent given the latents. Where neighbouring pixels or
muscles share noise, so many channels say as much as fewer independent ones would; and a decoder fitted to
few trials says more of these than of others. Around the posterior mean (`joint`), the observations of a
modality in a bin are those of its latents, with the noise covariance (J' W J)^-1. The marginal likelihood of
such observations (Rasmussen & Williams 2006, eq. 2.30) measures how well they agree with latents as smooth
as the prior says and with the other modalities. One factor of J' W J for each modality, at most 1, maximises
it on training trials held out of the updates.
"""

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from colatent.data.trials import Trials
from colatent.models.mmgpvae.joint import JointInference, basis_of
from colatent.models.mmgpvae.network import MultiModalNetwork

SMALLEST = 1e-3
ROUNDS = 2  # the posterior mean, around which all is linear, depends on the factors a little
MIN_GAIN = 2.0  # nats, of all trials: a factor below 1 needs evidence
NEGLIGIBLE = 1e-6  # of the largest precision between a bin's latents: nothing is said in such directions


def calibrate(network: MultiModalNetwork, held_out: Trials) -> dict[str, float]:
    """Set the factor of each modality, in place, and return those below 1.

    Args:
        held_out: training trials held out of the updates.
    """
    names = [name for name in network.names if name in held_out.values]
    data = network.inputs(held_out, names)
    with torch.no_grad():
        sites = network.sites(data)
    shape, basis = (held_out.n_trials, held_out.n_bins), basis_of(network, held_out.n_bins)
    for _ in range(ROUNDS):
        evidence = Evidence(JointInference(network, data, shape, basis), sites)
        start = np.log([float(network.modality(name).effective_share) for name in names])
        bounds = [(np.log(SMALLEST), 0.0)] * len(names)
        best = minimize(evidence.cost, start, jac=True, method="L-BFGS-B", bounds=bounds).x
        for i, name in enumerate(names):
            without = np.where(np.arange(len(names)) == i, 0.0, best)
            if evidence.cost(without)[0] - evidence.cost(best)[0] < MIN_GAIN:
                best = without
            network.modality(name).effective_share.fill_(float(np.exp(best[i])))
    factors = {name: float(network.modality(name).effective_share) for name in names}
    return {name: factor for name, factor in factors.items() if factor < 1}


class Evidence:
    """The evidence of trials as a function of the log factors of the modalities."""

    def __init__(self, inference: JointInference, sites: dict) -> None:
        at = inference.optimum(sites)
        self.basis = inference.basis
        (mean,) = self.basis.to_bins(at.u)
        shape = at.precision.shape
        self.precision, self.pull = [], []
        self.n_seen, self.square = [], []
        for name, one in at.around.items():
            modality = inference.network.modality(name)
            own, before = modality.latents, float(modality.effective_share)
            between = one.precision / before
            pull = one.gradient / before + (between @ mean[..., own, None])[..., 0]
            value, direction = torch.linalg.eigh(between)
            seen = value > NEGLIGIBLE * value[..., -1:].clamp_min(NEGLIGIBLE)
            along = (direction.mT @ pull[..., None])[..., 0]
            self.n_seen.append(float(seen.sum()))
            self.square.append(float(torch.where(seen, along.square() / value.clamp_min(1e-300), 0.0).sum()))
            full = between.new_zeros(shape)
            full[..., own[:, None], own] = between
            self.precision.append(full)
            self.pull.append(between.new_zeros(shape[:-1]).index_copy(2, own, pull))

    def cost(self, log_factor: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the negative evidence (nats, but for a constant) and its gradient."""
        factor = np.exp(log_factor)
        spread = self.basis.spread([_mixed(factor, self.precision)])
        linear = self.basis.from_bins([_mixed(factor, self.pull)])
        u = (spread.inverse @ linear[..., None])[..., 0]
        (mean,) = self.basis.to_bins(u)
        # log |A| = 2 KL - tr A^-1 + n
        log_det = 2 * spread.kl - spread.inverse.diagonal(dim1=1, dim2=2).sum(1) + self.basis.n
        value = 0.5 * float((linear * u).sum() - log_det.sum())
        gradient = np.empty_like(factor)
        for i, (precision, pull) in enumerate(zip(self.precision, self.pull, strict=True)):
            value += 0.5 * (self.n_seen[i] * log_factor[i] - factor[i] * self.square[i])
            second = spread.covariance[0] + mean[..., :, None] * mean[..., None, :]
            by_factor = (pull * mean).sum() - 0.5 * (precision * second).sum()
            gradient[i] = 0.5 * self.n_seen[i] + factor[i] * (float(by_factor) - 0.5 * self.square[i])
        return -value, -gradient


def _mixed(factor: np.ndarray, parts: list[Tensor]) -> Tensor:
    return torch.stack([float(f) * part for f, part in zip(factor, parts, strict=True)]).sum(dim=0)
