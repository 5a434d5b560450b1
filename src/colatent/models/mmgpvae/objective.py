"""The training objective of the MM-GPVAE, and its optimiser."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from colatent.models.adam import AdamW, Rated
from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.posterior import LatentPosterior, Sites
from colatent.models.mmgpvae.training import Loss

# Learning rate of the noise parameters relative to the weights': the noise, on a log scale, must fall as
# fast as the fit improves, or predictive intervals stay too wide.
NOISE_RATE = 5.0


@dataclass(frozen=True)
class Objective:
    """The ELBO of a network plus weighted cross-modal predictions.

    Attributes:
        cross_weight: modality -> weight of its prediction from the others.
    """

    network: MultiModalNetwork
    cross_weight: Mapping[str, float]

    def loss_on(self, data: Data) -> Loss:
        """Return the loss as a function of trial indices."""
        return lambda trial, rng: self.loss({m: x.select(trial) for m, x in data.items()}, rng)

    def loss(self, data: Data, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the negative objective per bin (nats), and its terms."""
        network = self.network
        visible = self._drop_channels(data, generator) if network.training else data
        n_trials, n_bins, _ = next(iter(data.values())).target.shape
        bases = network.bases(n_bins)
        sites = network.sites(visible)
        q = network.inference.posterior(bases, network.inference.combine(list(sites.values())))
        terms = self._terms(data, q, sites, bases, generator)
        n = n_trials * n_bins
        return -_total(terms).sum() / n, {name: term.detach().sum() / n for name, term in terms.items()}

    def _terms(
        self,
        data: Data,
        q: LatentPosterior,
        sites: Mapping[str, Sites],
        bases: Tensor,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Return the terms of the objective, each (trial,)."""
        expected, kl = self.network.elbo_terms(data, q, generator, self.network.options.settings.weight)
        terms = {"elbo": expected - kl, "expected_log_likelihood": expected, "kl": kl}
        if self.cross_weight:
            given = {name: self._others(name, data, generator) for name in self.cross_weight}
            found = self.network.cross_log_prob(data, sites, bases, given)
            weighted = [self.cross_weight[name] * log_prob for name, log_prob in found.items()]
            terms["cross_log_prob"] = torch.stack(weighted).sum(dim=0)
        return terms

    def _others(self, name: str, data: Data, generator: torch.Generator) -> list[str]:
        """Return from which other modalities one is predicted: all, in half of the training steps only some.

        Trained on all others alone, predictions from fewer of them would be worse than those of GPFA.
        """
        others = [other for other in data if other != name]
        if not self.network.training or len(others) < 2 or torch.rand((), generator=generator) < 0.5:
            return others
        drawn = torch.rand(len(others), generator=generator).tolist()
        return [o for o, x in zip(others, drawn, strict=True) if x < 0.5] or [others[int(np.argmax(drawn))]]

    def _drop_channels(self, data: Data, generator: torch.Generator) -> Data:
        """In half of the calls, hide random channels of one random modality from its encoder."""
        chance, choice = torch.rand(2, generator=generator).tolist()
        share = self.network.options.settings.channel_dropout
        if share == 0 or chance < 0.5:
            return data
        name = list(data)[int(choice * len(data))]
        n_trials, _, n_channels = data[name].target.shape
        hidden = torch.rand((n_trials, 1, n_channels), generator=generator) < share
        return {**data, name: data[name].hide(hidden.to(data[name].target.device))}


def _total(terms: Mapping[str, Tensor]) -> Tensor:
    """Return the objective of each trial, (trial,)."""
    return terms["elbo"] + terms["cross_log_prob"] if "cross_log_prob" in terms else terms["elbo"]


def make_optimizer(network: MultiModalNetwork) -> AdamW:
    """Return the optimiser of a network, with learning rate and weight decay by kind of parameter."""
    options, rate = network.options, network.options.settings.learning_rate
    noise = [p for name in network.names for p in network.modality(name).likelihood.parameters()]
    apart = {id(p) for p in (network.log_time_scale, network.log_prior_sd, *noise)}
    others = [p for p in network.parameters() if id(p) not in apart]
    # biases carry the data's units and are not decayed, nor is the linear model, only what is added to it
    encoders = {id(p) for name in network.names for p in network.modality(name).encoder.parameters()}
    linear = [network.modality(name).decoder for name in network.names]
    fixed = {id(decoder.linear_weight) for decoder in linear} if options.from_linear else set()
    weights = [p for p in others if p.ndim > 1 and id(p) not in fixed]
    groups = (
        Rated([p for p in weights if id(p) in encoders], rate, options.weight_decay),
        Rated([p for p in weights if id(p) not in encoders], rate, options.settings.decoder_decay),
        Rated([p for p in others if p.ndim == 1 or id(p) in fixed], rate),
        Rated(noise, NOISE_RATE * rate),
        Rated([network.log_time_scale, network.log_prior_sd], options.time_scale_rate),
    )
    return AdamW(groups)
