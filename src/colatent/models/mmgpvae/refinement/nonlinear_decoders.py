"""Fit non-linear decoders to the posterior used in inference, at the end of training.

During training, a decoder sees the latents that the encoders tell, in inference those of the joint posterior
(`joint`). With the posterior of the training trials held fixed, the objective depends on the decoders alone:
this is the M step of variational EM (Neal & Hinton 1998), which needs neither encoders nor GP algebra. Linear
decoders are left as they are. Noise parameters stay fixed: encoders are overfitted to the training trials, so
noise fitted there would be too small. Modalities with a cross weight are excluded: their decoders serve two
posteriors, and predictions from other modalities would suffer.
"""

import torch
from torch import Tensor

from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.posterior import Marginals
from colatent.models.mmgpvae.training import Loss, Schedule

EPOCHS = 25
SHARE_OF_BATCH = 4  # batches are smaller by this factor: steps are cheap, so take more of them


def refinable(network: MultiModalNetwork) -> list[str]:
    """Return the modalities with a non-linear decoder and no cross weight."""
    crossed = network.options.settings.cross_weight
    return [name for name in network.names if not network.has_linear_decoder(name) and not crossed.get(name)]


def refinement_schedule(of_training: Schedule) -> Schedule:
    """Return the schedule of fitting the decoders alone."""
    batch_size = max(of_training.batch_size // SHARE_OF_BATCH, 1)
    return Schedule(EPOCHS, batch_size, EPOCHS, of_training.validation_share)


def decoder_loss(network: MultiModalNetwork, names: list[str], data: Data, latents: Marginals) -> Loss:
    """Return the negative expected log likelihood per bin (nats) as a function of some decoders alone.

    Args:
        names: modalities whose decoders are fitted.
        data: the training trials.
        latents: fixed posterior marginals given all modalities.
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
