"""The networks of all modalities, with their common prior, and the terms of the objective."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from colatent.data.trials import Trials
from colatent.models.mmgpvae.inference import INFERENCES
from colatent.models.mmgpvae.modality import ModalityNetwork, NetworkInput
from colatent.models.mmgpvae.options import Options
from colatent.models.mmgpvae.posterior import LatentPosterior, Posterior, Sites, posterior_mean

Array = NDArray[np.float64]
Data = Mapping[str, NetworkInput]

SHORTEST_TIME_SCALE = 0.5  # bins: shorter latents are white noise on the bins
LONGEST_TIME_SCALE = 2.0  # trial lengths: longer latents are constant within a trial


class MultiModalNetwork(nn.Module):
    """Prior, encoders and decoders of all modalities.

    Attributes:
        options: options of the model.
        names: modalities in alphabetical order.
        log_prior_sd: log prior s.d. of the latents. It is redundant with the decoders' scale, but learned
            much faster. Latents are reported in units of it.
        bounds: bounds of the log time scales (bins).
        jointly: whether a modality is predicted from the joint posterior given a subset of them, else as in
            the cross-modal objective, boolean (modality, subset); see `prediction`.
    """

    bounds: Tensor
    jointly: Tensor

    def __init__(self, options: Options, generator: torch.Generator) -> None:
        super().__init__()
        self.options = options
        self.names = tuple(options.modalities)
        self.inference = INFERENCES[options.settings.posterior]
        self.n_latents = len(options.settings.latent_groups)
        time_scale = np.full(self.n_latents, options.time_scale)
        self.log_time_scale = nn.Parameter(torch.from_numpy(np.log(time_scale)))
        self.log_prior_sd = nn.Parameter(torch.zeros(self.n_latents, dtype=torch.float64))
        bounds = np.log([SHORTEST_TIME_SCALE, LONGEST_TIME_SCALE * options.layout.n_bins])
        self.register_buffer("bounds", torch.from_numpy(bounds))
        jointly = torch.ones(len(self.names), 2 ** len(self.names), dtype=torch.bool)
        jointly[[self.names.index(name) for name in self.crossed]] = False
        self.register_buffer("jointly", jointly)
        # a list, because ModuleDict rejects names such as "type"
        self.modalities = nn.ModuleList(
            ModalityNetwork(modality, generator) for modality in options.modalities.values()
        )

    def modality(self, name: str) -> ModalityNetwork:
        network = self.modalities[self.names.index(name)]
        assert isinstance(network, ModalityNetwork)
        return network

    @property
    def crossed(self) -> list[str]:
        """The modalities that training predicts from the others."""
        return [name for name in self.names if self.options.cross_weights.final.get(name)]

    def set_predictor(self, predicted: str, given: Collection[str], jointly: bool) -> None:
        """Choose how a modality is predicted from a subset of the others."""
        self.jointly[self.names.index(predicted), self._subset(given)] = jointly

    def predicts_jointly(self, predicted: str, given: Collection[str]) -> bool:
        """Whether a modality is predicted from the joint posterior given others; with itself, always."""
        return predicted in given or bool(self.jointly[self.names.index(predicted), self._subset(given)])

    def _subset(self, given: Collection[str]) -> int:
        return sum(1 << number for number, name in enumerate(self.names) if name in given)

    def has_linear_decoder(self, name: str) -> bool:
        return self.options.modalities[name].decoder.is_linear

    def calibrate(self, trials: Trials) -> None:
        """Set the units of all modalities, and the decoders' bias, from the training trials."""
        for name in self.names:
            self.modality(name).calibrate(trials.values[name], trials.observed[name])

    def inputs(self, trials: Trials, given: Iterable[str]) -> Data:
        """Return the observations of the given modalities that were recorded, in the networks' units.

        Raises:
            ValueError: the bin width differs from the training trials'.
        """
        if trials.bin_width != (own := self.options.layout.bin_width):
            raise ValueError(f"bins of {trials.bin_width} s, but the model has bins of {own} s")
        device = self.log_time_scale.device
        return {
            name: self.modality(name).inputs(
                torch.from_numpy(trials.values[name]).to(device),
                torch.from_numpy(trials.observed[name]).to(device),
            )
            for name in sorted(trials.values.keys() & set(given))
        }

    def time_scale(self) -> Tensor:
        """Time scale of each latent, bins."""
        return self.log_time_scale.clamp(*self.bounds).exp()

    def prior_sd(self) -> Tensor:
        """Standard deviation of each latent's prior in the decoders' units."""
        return self.log_prior_sd.exp()

    def bases(self, n_bins: int) -> Tensor:
        """Return the scaled basis of each latent's prior, (latent, coefficient, time)."""
        basis = self.inference.basis(self.options.settings.kernel, self.time_scale(), n_bins)
        return self.prior_sd()[:, None, None] * basis

    def sites(self, data: Data) -> dict[str, Sites]:
        """Return each modality's sites on all latents, zero on latents that do not drive it."""
        return {name: self._sites(name, data[name]) for name in data}

    def _sites(self, name: str, data: NetworkInput) -> Sites:
        network = self.modality(name)
        own = network.encoder(data.features, data.observed)
        shape = (*own.precision.shape[:2], self.n_latents)
        return Sites(*(x.new_zeros(shape).index_copy(2, network.latents, x) for x in own))

    @torch.no_grad()
    def encoded_posterior(self, trials: Trials, given: Iterable[str]) -> Posterior:
        """Return the posterior defined by the encoders' sites, as used in training."""
        bases = self.bases(trials.n_bins)
        zero = bases.new_zeros((trials.n_trials, trials.n_bins, self.n_latents))
        sites = self.sites(self.inputs(trials, given))
        return self.inference.posterior(bases, self.inference.combine([Sites(zero, zero), *sites.values()]))

    def elbo(
        self,
        data: Data,
        q: LatentPosterior,
        generator: torch.Generator,
        weight: Mapping[str, float] | None = None,
    ) -> Tensor:
        """Return E_q[log p(data | z)] - KL(q || prior) in nats, shape (trial,); see `elbo_terms`."""
        expected, kl = self.elbo_terms(data, q, generator, weight)
        return expected - kl

    def elbo_terms(
        self,
        data: Data,
        q: LatentPosterior,
        generator: torch.Generator,
        weight: Mapping[str, float] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return E_q[log p(data | z)] and KL(q || prior) in nats, each (trial,).

        Args:
            data: observations.
            q: posterior.
            generator: random generator for samples through non-linear decoders.
            weight: modality -> factor of its expected log density, 1 by default.
        """
        latents, weight = q.marginals, weight or {}
        expected = [
            weight.get(name, 1.0)
            * self.modality(name).expected_log_prob(
                data[name], latents.select(self.modality(name).latents), generator
            )
            for name in data
        ]
        return torch.stack(expected).sum(dim=0), q.kl()

    def effects(self, latents: Tensor) -> tuple[Array, Array]:
        """Return the effects of each latent, in units of its prior s.d., on the decoders' outputs.

        These are the mean squared and the mean derivative at ``latents`` (trial, time, latent), summed
        over the channels of all modalities, each (latent,).
        """
        power, slope = np.zeros(self.n_latents), np.zeros(self.n_latents)
        for network in (self.modality(name) for name in self.names):
            for k, derivative in network.decoder_slopes(latents):
                power[k] += float(derivative.square().mean(dim=(0, 1)).sum())
                slope[k] += float(derivative.mean(dim=(0, 1)).sum())
        sd = self.prior_sd().detach().cpu().numpy()
        return sd**2 * power, sd * slope

    def cross_log_prob(
        self, data: Data, sites: Mapping[str, Sites], bases: Tensor, given: Mapping[str, Sequence[str]]
    ) -> dict[str, Tensor]:
        """Return the log density of modalities given some of the others, nats, each (trial,).

        Each modality is decoded from the posterior mean given the other modalities' sites; latents
        that none of them informs are integrated out, see `unseen`.

        Args:
            given: modality -> those that it is predicted from.
        """
        terms = {}
        for name, others in given.items():
            mean = self.cross_mean(name, {other: sites[other] for other in others}, bases)
            unseen = self.unseen(name, others)
            terms[name] = self.modality(name).cross_log_prob(data[name], mean, unseen)
        return terms

    def unseen(self, name: str, given: Iterable[str]) -> Tensor:
        """Return the variance of a modality's latents that none of those given informs, else 0 (latent,)."""
        informed = torch.zeros(self.n_latents, dtype=torch.bool, device=self.log_prior_sd.device)
        for other in given:
            informed[self.modality(other).latents] = True
        variance = torch.where(informed, 0.0, self.prior_sd().square())
        return variance[self.modality(name).latents]

    def cross_mean(self, name: str, sites: Mapping[str, Sites], bases: Tensor) -> Tensor:
        """Return the posterior mean of a modality's latents given the others, (trial, time, latent)."""
        latents = self.modality(name).latents
        others = [one.select(latents) for other, one in sites.items() if other != name]
        return posterior_mean(bases[latents], self.inference.combine(others))
