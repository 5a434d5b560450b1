"""Linear decoders at their optimum for the posterior that inference uses: near the end of training.

Trained by small steps together with the encoders, they end short of it. With the posterior of the training
trials held fixed, a modality's terms of the objective depend on its own linear decoder alone and are
concave in it: the M step of variational EM (Neal & Hinton 1998). The posterior is then inferred anew, and
so on. A standard normal prior on the loadings keeps those of silent units finite.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from colatent.decoders import LinearDecoder
from colatent.models.mmgpvae_network import Data, MultiModalNetwork
from colatent.networks import ModalityNetwork
from colatent.posterior import Marginals
from colatent.training import copy_weights

ROUNDS = 5
ITERATIONS = 20


class CrossTerm(NamedTuple):
    """A modality's cross-modal prediction.

    Attributes:
        weight: in the objective.
        mean: posterior mean of the modality's latents given the others, (trial, time, latent).
    """

    weight: float
    mean: Tensor


def improve(
    network: MultiModalNetwork,
    names: list[str],
    data: Data,
    weight: Mapping[str, float],
    cross: Mapping[str, CrossTerm],
    infer: Callable[[], Marginals],
    held_out_objective: Callable[[], float],
) -> int:
    """Fit linear decoders to the posterior and infer it anew, in turn, as long as trials held out gain.

    Args:
        names: modalities whose decoders are fitted, in place.
        data: of the trials that they are fitted to.
        weight: modality -> factor of its expected log-density in the objective, 1 where not named.
        cross: of the modalities that are predicted from the others as well.
        infer: returns the posterior of these trials with the decoders as they are.
        held_out_objective: returns the objective of the other trials, likewise.

    Returns:
        How many rounds were kept.
    """
    best = held_out_objective()
    for n_done in range(ROUNDS):
        before = {name: copy_weights(network.modality(name).decoder.state_dict()) for name in names}
        try:
            latents = infer()
            for name in names:
                own = latents.select(network.modality(name).latents)
                maximise(network.modality(name), _objective(network, name, data, own, weight, cross))
            new = held_out_objective()
        except torch.linalg.LinAlgError:  # decoders gone astray leave no posterior
            new = math.nan
        if not best < new < math.inf:
            for name, state in before.items():
                network.modality(name).decoder.load_state_dict(state)
            return n_done
        best = new
    return ROUNDS


def _objective(
    network: MultiModalNetwork,
    name: str,
    data: Data,
    latents: Marginals,
    weight: Mapping[str, float],
    cross: Mapping[str, CrossTerm],
) -> Callable[[], Tensor]:
    """Return what the objective is per observation (nats), as far as it depends on one decoder."""
    modality, generator, n_observed = network.modality(name), torch.Generator(), data[name].observed.sum()

    def objective() -> Tensor:
        value = weight.get(name, 1.0) * modality.expected_log_prob(data[name], latents, generator).sum()
        if name in cross:
            value = value + cross[name].weight * modality.cross_log_prob(data[name], cross[name].mean).sum()
        return (value - 0.5 * modality.decoder.readout.weight.square().sum()) / n_observed

    return objective


def maximise(modality: ModalityNetwork, objective: Callable[[], Tensor]) -> None:
    """Bring a linear decoder, in place, to the maximum of an objective."""
    assert isinstance(modality.decoder, LinearDecoder)
    readout = modality.decoder.readout
    optimizer = torch.optim.LBFGS(
        readout.parameters(), max_iter=ITERATIONS, history_size=ITERATIONS, line_search_fn="strong_wolfe"
    )

    def cost() -> Tensor:
        readout.zero_grad(set_to_none=True)
        loss = -objective()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(cost)
    modality.zero_grad(set_to_none=True)
