"""Remove from private latents what they hold of shared ones, near the end of training.

The sites posterior knows no correlation between latents. Where the loadings of two latents resemble each
other there is one, and the bound is then tightest for other latents, with orthogonal loadings (the bias of
variational EM towards parameters for which its posterior is exact, Turner & Sahani 2011): a private latent
has taken in some of a shared one, though the prior has them independent. Nothing that is observed tells
such latents apart: with z_j = z'_j + sum_k a_k z_k, a linear decoder that adds a_k times the loading of
latent j to that of each k expects the same of every bin. The coefficients are those of the least-squares
regression on the posterior of the training trials, after which z'_j and the z_k are uncorrelated. A cross
weight tells them apart in training, because it predicts a modality without its private latents.
"""

from collections.abc import Mapping

import torch

from colatent.models.mmgpvae.modality import ModalityNetwork
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.posterior import Marginals


def separable(network: MultiModalNetwork) -> dict[int, list[int]]:
    """Return each latent that can be freed of others, and those others: they drive its modalities and more.

    All modalities that it drives must have linear decoders, which sites follow in inference, and no cross
    weight.
    """
    settings = network.options.settings
    free = {n for n in network.names if network.has_linear_decoder(n) and not settings.cross_weight.get(n)}
    driven = [group.modalities for group in settings.latent_groups]
    wider = {j: [k for k, other in enumerate(driven) if other > own] for j, own in enumerate(driven)}
    return {j: others for j, others in wider.items() if others and driven[j] <= free}


@torch.no_grad()
def separate(network: MultiModalNetwork, latents: Marginals, wider: Mapping[int, list[int]]) -> None:
    """Make latents uncorrelated with the wider ones that they can be told from, in place.

    Args:
        latents: the posterior's marginals in the training trials.
        wider: each latent and those that it is freed of, as `separable` finds them.
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
    """Add to the others' loadings what latent j had of them, and subtract it from j's encoded location."""
    loading, location = modality.linear_decoder.readout.weight, modality.encoder.location
    slopes = slopes.to(loading)
    loading[:, others] += loading[:, [j]] * slopes
    location.weight[j] -= slopes @ location.weight[others]
    location.bias[j] -= slopes @ location.bias[others]
