"""Remove components of shared latents from private latents, near the end of training.

The posterior from sites has no correlations between latents. If two latents have similar loadings, their true
posterior is correlated, and the bound favours other latents with orthogonal loadings (the bias of variational
EM towards parameters for which its posterior is exact, Turner & Sahani 2011): a private latent then absorbs
part of a shared one, although they are independent under the prior. Expected observations cannot distinguish
such solutions: with z_j = z'_j + sum_k a_k z_k, adding a_k times the loading of latent j to the loading of
each k leaves the output of a linear decoder unchanged. The a_k are from the least-squares regression on the
posterior of the training trials, after which z'_j and the z_k are uncorrelated. With a cross weight, training
itself distinguishes them, because cross-modal prediction does not use private latents.
"""

from collections.abc import Mapping

import torch

from colatent.models.mmgpvae.modality import ModalityNetwork
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.posterior import Marginals


def separable(network: MultiModalNetwork) -> dict[int, list[int]]:
    """Return each separable latent with the wider latents, which drive its modalities and others.

    All modalities of a separable latent must have no cross weight and a linear decoder, to which sites adapt
    in inference.
    """
    settings = network.options.settings
    free = {n for n in network.names if network.has_linear_decoder(n) and not settings.cross_weight.get(n)}
    driven = [group.modalities for group in settings.latent_groups]
    wider = {j: [k for k, other in enumerate(driven) if other > own] for j, own in enumerate(driven)}
    return {j: others for j, others in wider.items() if others and driven[j] <= free}


@torch.no_grad()
def separate(network: MultiModalNetwork, latents: Marginals, wider: Mapping[int, list[int]]) -> None:
    """Make latents uncorrelated with wider latents, in place.

    Args:
        latents: posterior marginals in the training trials.
        wider: latent -> wider latents, from `separable`.
    """
    mean = latents.mean.flatten(end_dim=-2)
    variance = latents.variance.flatten(end_dim=-2).sum(dim=0)
    covariance = (mean.T @ mean + torch.diag(variance)) / len(mean)
    for j, others in wider.items():
        slopes = torch.linalg.solve(covariance[others][:, others], covariance[others, j])
        share = float(slopes @ covariance[others, j] / covariance[j, j])
        network.log_prior_sd[j] += 0.5 * torch.log1p(torch.tensor(-share))
        for modality in (network.modality(n) for n in network.names):
            own = modality.latents.tolist()
            if j in own:
                at = [own.index(k) for k in others]
                _move(modality, own.index(j), at, slopes)


def _move(modality: ModalityNetwork, j: int, others: list[int], slopes: torch.Tensor) -> None:
    """Move latent j's components of the others to their loadings, and out of j's encoded location."""
    loading, location = modality.linear_decoder.readout.weight, modality.encoder.location
    slopes = slopes.to(loading)
    loading[:, others] += loading[:, [j]] * slopes
    location.weight[j] -= slopes @ location.weight[others]
    location.bias[j] -= slopes @ location.bias[others]
