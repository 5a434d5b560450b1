"""Optimise linear decoders and time scales for refined inference, near the end of training.

Stochastic gradient training with the encoders leaves them short of the optimum. In inference, the sites of
modalities with a linear decoder are refined to their optimum for that decoder (`sites`), so the objective is
a function of the decoders and time scales alone. Its gradient needs no derivative of the sites, because they
maximise the bound. The objective is maximised by L-BFGS; EM, which fits the decoders with the posterior held
fixed, stopped short of the optimum. The other modalities' sites stay fixed and count as observations of their
latents. A standard normal prior on the loadings keeps the loadings of silent units finite.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from colatent.models.mmgpvae.inference import product
from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.posterior import Sites, posterior
from colatent.models.mmgpvae.refinement.sites import bound, climb, encoded, nan_if_diverged
from colatent.models.mmgpvae.training import copy_weights

ROUNDS = 10
ITERATIONS = 10  # per round
PATIENCE = 3  # rounds without a gain: later rounds may recover what other decoders lose at first
MEMORY = 20  # steps in the L-BFGS history
MIN_GAIN = 0.05  # nats per held-out trial; rounds that gain less are undone
SITE_TOLERANCE = 0.01  # nats per trial; the gradient is correct only at the sites' optimum


class Profile:
    """The objective at the sites' optimum, as a function of the linear decoders and the time scales.

    Args:
        data: trials of the fit.
        empty: sites with zero precision, (trial, time, latent).
    """

    def __init__(self, network: MultiModalNetwork, data: Data, empty: Sites) -> None:
        self.network, self.data = network, data
        self.cross_weight = network.options.cross_weights.final
        with torch.no_grad():
            self.start = encoded(network, data, empty)
            self.encoded = network.sites(data)
        self.decoders = [network.modality(name).linear_decoder for name in self.start.data]

    def parameters(self) -> list[nn.Parameter]:
        """Return the parameters to optimise."""
        return [*(p for decoder in self.decoders for p in decoder.parameters()), self.network.log_time_scale]

    def __call__(self) -> Tensor:
        """Return the objective in nats per bin."""
        n_trials, n_bins = self.start.fixed.precision.shape[:2]
        bases = self.network.bases(n_bins)
        with torch.no_grad():
            free = climb(self.network, self.start, bases.detach(), SITE_TOLERANCE).free
        self.start = self.start._replace(free=free)  # close to the optimum of the next call
        q = posterior(bases, product([self.start.fixed, free]))
        value = bound(self.network, self.start, q)
        if self.cross_weight:
            value = value + self.network.cross_log_prob(self.data, self.encoded, bases, self.cross_weight)
        loadings = [decoder.readout.weight for decoder in self.decoders]
        prior = -0.5 * torch.stack([loading.square().sum() for loading in loadings]).sum()
        return (value.sum() + prior) / (n_trials * n_bins)


def improve(
    network: MultiModalNetwork,
    profile: Profile,
    held_out_objective: Callable[[], float],
    progress: Callable[[str], None],
) -> int:
    """Maximise the profile in rounds, in place, and keep the round that is best on held-out trials.

    Args:
        profile: objective to maximise.
        held_out_objective: returns the objective on held-out trials, nats per trial.
        progress: called with one line per round.

    Returns:
        The number of rounds up to the best.
    """
    optimizer = torch.optim.LBFGS(
        profile.parameters(), max_iter=ITERATIONS, history_size=MEMORY, line_search_fn="strong_wolfe"
    )

    def cost() -> Tensor:
        network.zero_grad(set_to_none=True)
        loss = -profile()
        if not loss.isfinite():
            raise FloatingPointError("the objective is not finite")
        loss.backward()
        return loss

    def one_round() -> float:
        with torch.enable_grad():
            optimizer.step(cost)
        return held_out_objective()

    best, n_kept, kept = nan_if_diverged(held_out_objective), 0, copy_weights(network.state_dict())
    best = -math.inf if math.isnan(best) else best
    for number in range(1, ROUNDS + 1):
        value = nan_if_diverged(one_round)
        if not math.isfinite(value):
            break
        progress(f"linear decoders: round {number}, held-out objective {value:.2f} nats per trial")
        if value > best + MIN_GAIN:
            best, n_kept, kept = value, number, copy_weights(network.state_dict())
        elif number >= n_kept + PATIENCE:
            break
    network.load_state_dict(kept)
    network.zero_grad(set_to_none=True)
    return n_kept
