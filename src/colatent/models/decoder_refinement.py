"""Non-linear decoders at their optimum for the posterior that inference uses: the end of training.

While it is trained, a decoder sees latents as the encoders have them at the time, which inference then
refines (`site_refinement`). With the posterior of the training trials held fixed, the objective depends on
the decoders alone: the M step of variational EM (Neal & Hinton 1998), whose steps need neither encoders
nor GP algebra. A linear decoder is at its optimum before.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from colatent.decoders import NonlinearDecoder
from colatent.models.mmgpvae_network import Data, MultiModalNetwork
from colatent.posterior import Marginals
from colatent.training import Loss, Schedule

EPOCHS = 25
SHARE_OF_BATCH = 4  # its steps are cheap: more of them, with fewer trials each


def nonlinear(network: MultiModalNetwork) -> list[str]:
    """Return the modalities whose decoder is not linear."""
    return [n for n in network.names if isinstance(network.modality(n).decoder, NonlinearDecoder)]


def refinement_schedule(of_training: Schedule) -> Schedule:
    """Return how long the decoders are fitted by themselves."""
    batch_size = max(of_training.batch_size // SHARE_OF_BATCH, 1)
    return Schedule(EPOCHS, batch_size, EPOCHS, of_training.validation_share)


def decoder_loss(
    network: MultiModalNetwork,
    data: Data,
    latents: Marginals,
    cross_latents: Mapping[str, Tensor],
    weight: Mapping[str, float],
    cross_weight: Mapping[str, float],
) -> Loss:
    """Return the negative objective per bin (nats) as a function of the non-linear decoders alone.

    Args:
        data: the training trials.
        latents: the posterior's marginals given all modalities, fixed.
        cross_latents: modality -> posterior mean of its latents given the others, fixed.
        weight, cross_weight: as in the training's objective.
    """
    names = nonlinear(network)

    def loss(trial: Tensor, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        here = Marginals(*(x[trial] for x in latents))
        terms = []
        for name in names:
            modality, observed = network.modality(name), data[name].select(trial)
            own = here.select(modality.latents)
            expected = modality.expected_log_prob(observed, own, generator)
            terms.append(weight.get(name, 1.0) * expected)
            if factor := cross_weight.get(name):
                terms.append(factor * modality.cross_log_prob(observed, cross_latents[name][trial]))
        return -torch.stack(terms).sum() / (len(trial) * latents.mean.shape[1]), {}

    return loss
