"""Linear decoders at their optimum for the posterior that inference uses: near the end of training.

Trained by small steps together with the encoders, they end short of it. With the posterior of the training
trials held fixed, the expected log-density of a modality depends on its own linear decoder alone and is
concave in it: the M step of variational EM (Neal & Hinton 1998). The posterior is then inferred anew, and
so on. A standard normal prior on the loadings keeps those of silent units finite. A modality with a cross
weight is left as it is: its decoder serves two posteriors, and predictions from others would lose.
"""

from collections.abc import Callable, Mapping

import torch

from colatent.decoders import LinearDecoder
from colatent.models.mmgpvae_network import Data, MultiModalNetwork
from colatent.networks import ModalityNetwork, Observations
from colatent.posterior import Marginals

ROUNDS = 5
ITERATIONS = 20


def improvable(network: MultiModalNetwork, cross_weight: Mapping[str, float]) -> list[str]:
    """Return the modalities whose decoder is linear, and that have no cross weight."""
    return [name for name in network.names if network.has_linear_decoder(name) and not cross_weight.get(name)]


def improve(
    network: MultiModalNetwork,
    names: list[str],
    data: Data,
    infer: Callable[[], Marginals],
    held_out_bound: Callable[[], float],
) -> int:
    """Fit linear decoders to the posterior and infer it anew, in turn, as long as trials held out gain.

    Args:
        names: modalities whose decoders are fitted, in place.
        data: of the trials that they are fitted to.
        infer: returns the posterior of these trials with the decoders as they are.
        held_out_bound: returns the evidence lower bound of the other trials, likewise.

    Returns:
        How often it was done.
    """
    bound = held_out_bound()
    for n_done in range(ROUNDS):
        before = {name: _copy(network.modality(name)) for name in names}
        latents = infer()
        for name in names:
            modality = network.modality(name)
            maximise(modality, data[name], latents.select(modality.latents))
        if not (new := held_out_bound()) > bound:
            for name, state in before.items():
                network.modality(name).decoder.load_state_dict(state)
            return n_done
        bound = new
    return ROUNDS


def maximise(modality: ModalityNetwork, data: Observations, latents: Marginals) -> None:
    """Bring a linear decoder, in place, to the maximum of the expected log-density plus that of its prior.

    Args:
        latents: the posterior of this modality's own latents, fixed.
    """
    assert isinstance(modality.decoder, LinearDecoder)
    readout = modality.decoder.readout
    optimizer = torch.optim.LBFGS(
        readout.parameters(), max_iter=ITERATIONS, history_size=ITERATIONS, line_search_fn="strong_wolfe"
    )
    n_observed = data.observed.sum()

    def cost() -> torch.Tensor:
        readout.zero_grad(set_to_none=True)
        expected = modality.expected_log_prob(data, latents, torch.Generator()).sum()
        loss = (0.5 * readout.weight.square().sum() - expected) / n_observed
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(cost)
    modality.zero_grad(set_to_none=True)


def _copy(modality: ModalityNetwork) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in modality.decoder.state_dict().items()}
