"""Fit non-linear decoders to the posterior that inference uses, at the end of training.

While it is trained, a decoder sees latents as the encoders have them at the time, which inference then
refines (`sites`). With the posterior of the training trials held fixed, the objective depends on
the decoders alone: the M step of variational EM (Neal & Hinton 1998), whose steps need neither encoders
nor GP algebra. Linear decoders are at their optimum already. The noise is left alone: encoders know the
training trials better than others, so that noise fitted there would be too small. A modality with a cross
weight is left alone as well: its decoder serves two posteriors, and predictions from others would suffer.
"""

import torch
from torch import Tensor

from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.posterior import Marginals
from colatent.models.mmgpvae.training import Loss, Schedule

EPOCHS = 25
SHARE_OF_BATCH = 4  # its steps are cheap: more of them, with fewer trials each


def refinable(network: MultiModalNetwork) -> list[str]:
    """Return the modalities whose decoder is not linear and that have no cross weight."""
    crossed = network.options.settings.cross_weight
    return [name for name in network.names if not network.has_linear_decoder(name) and not crossed.get(name)]


def refinement_schedule(of_training: Schedule) -> Schedule:
    """Return how long the decoders are fitted on their own."""
    batch_size = max(of_training.batch_size // SHARE_OF_BATCH, 1)
    return Schedule(EPOCHS, batch_size, EPOCHS, of_training.validation_share)


def decoder_loss(network: MultiModalNetwork, names: list[str], data: Data, latents: Marginals) -> Loss:
    """Return the negative expected log-likelihood per bin (nats) as a function of some decoders alone.

    Args:
        names: modalities whose decoders are fitted.
        data: the training trials.
        latents: the posterior's marginals given all modalities, fixed.
    """
    weight = network.options.settings.weight

    def loss(trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        here = Marginals(*(x[trial] for x in latents))
        terms = []
        for name in names:
            modality = network.modality(name)
            own, observed = here.select(modality.latents), data[name].select(trial)
            terms.append(weight.get(name, 1.0) * modality.expected_log_prob(observed, own, generator))
        return -torch.stack(terms).sum() / (len(trial) * latents.mean.shape[1]), {}

    return loss
