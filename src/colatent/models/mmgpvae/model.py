"""MM-GPVAE: the multi-modal Gaussian-process variational autoencoder, with a posterior from sites.

Gondur, Sikandar, Schaffer, Aoi & Keeley (ICLR 2024, arXiv 2310.03111): smooth latents shared by several
modalities or private to one, with one decoder per modality. Here training starts from the linear model, and
the posterior is joint over all latents (`colatent.models.mmgpvae.joint`): sites of every modality, channel
and bin that is observed multiply the prior, so that inference from any subset is the same computation.
"""

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colatent.config.models.mmgpvae import MMGPVAESettings
from colatent.data.predictive import Predictive
from colatent.data.tasks import Task, Withheld, tasks_of_latent_model
from colatent.data.trials import Layout, Trials
from colatent.models.base import Array, FitRun, LatentSummary, State, array_of, part_of
from colatent.models.mmgpvae.joint import bounds, marginals
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.options import Options
from colatent.models.mmgpvae.posterior import posterior_mean
from colatent.models.mmgpvae.prediction import predict_as_trained, predict_jointly
from colatent.models.mmgpvae.refinement.last_steps import take_last_steps
from colatent.models.mmgpvae.starts import train


class MMGPVAE:
    """Multi-modal GP-VAE (`colatent.models.base.LatentModel`).

    Attributes:
        options: replace before `fit` to change options that are not in the config.
        history: one row per epoch, see `Trainer`; losses are negative objectives, nats per bin.
        network: the networks, with latents in the order of `latent_groups`.
        order: index in the network of each reported latent, (latent,).
        sign: sign applied to the network's latents, in the reported order, (latent,).
    """

    network: MultiModalNetwork
    order: NDArray[np.intp]
    sign: Array

    def __init__(self, settings: MMGPVAESettings, layout: Layout, device: str = "cpu") -> None:
        self.options = Options(settings, layout)
        self.modalities = settings.modalities_among(layout.modalities)
        self.latent_groups = settings.latent_groups
        self.history: list[dict[str, float]] = []
        self.device = device
        self.seed = 0

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Fit to the training trials.

        Raises:
            FloatingPointError: the loss was never finite.
        """
        self.seed, self.device = run.seed, run.device
        trained = train(self.options, training, run)
        self.network, self.history = trained.network, trained.history
        take_last_steps(trained, training, run)
        self._set_order(training)
        return self

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return the tasks: each modality from each subset of modalities."""
        return tasks_of_latent_model(self.modalities, withheld)

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of ``predicted`` given the modalities ``given``.

        It is in the data's own units (counts per bin for spikes); see `colatent.models.mmgpvae.prediction`.
        """
        if self.network.predicts_jointly(predicted, given):
            return predict_jointly(self.network, trials, given, [predicted], self.seed)[predicted]
        return predict_as_trained(self.network, trials, given, predicted)

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return posterior mean and variance of the latents (trial, time, latent), with prior variance 1.

        Within a group, latents are in descending order of their effect on the decoders, signed so that
        they raise the channels on average.
        """
        q, sd = marginals(self.network, trials, given), self.network.prior_sd().detach()
        mean, variance = (x.cpu().numpy()[..., self.order] for x in (q.mean / sd, q.variance / sd**2))
        return mean * self.sign, variance

    def latents_seen_by(self, modality: str, trials: Trials, given: tuple[str, ...]) -> Array:
        """Return the posterior means, the same for all modalities."""
        return self.latents(trials, given)[0]

    @torch.no_grad()
    def decode(self, latents: Array, modality: str, condition: NDArray[np.str_] | None = None) -> Array:
        """Return the expected observations (trial, time, channel) at latents in the form of `latents`."""
        network = self.network.modality(modality)
        return network.predictive(self._raw(latents)[None][..., network.latents]).mean

    def summary(self, latents: Array) -> LatentSummary:
        """Return the decoders' mean derivatives at the latents, and the learned time scales."""
        units = {m: self.network.modality(m).likelihood.record.unit for m in self.modalities}
        return LatentSummary({m: self._loading(latents, m) for m in units}, units, self.time_scales())

    def time_scales(self) -> Array:
        """Return the learned time scale of each latent, seconds, in the order of `latents`."""
        bins = self.network.time_scale().detach().cpu().numpy()
        return bins[self.order] * self.options.layout.bin_width

    @torch.no_grad()
    def _loading(self, latents: Array, modality: str) -> Array:
        """Return a decoder's mean derivative at the latents, (channel, latent), per prior s.d.

        In units of the likelihood's eta; zero for latents that do not drive the modality.
        """
        network, sd = self.network.modality(modality), self.network.prior_sd()
        slope = np.zeros((len(network.scale), latents.shape[-1]))
        for k, derivative in network.decoder_slopes(self._raw(latents)):
            slope[:, k] = (sd[k] * derivative.mean(dim=(0, 1))).cpu().numpy()
        return slope[:, self.order] * self.sign

    def _raw(self, latents: Array) -> Tensor:
        """Convert latents from the order, signs and units of `latents` to the network's."""
        raw = np.empty_like(latents)
        raw[..., self.order] = latents * self.sign
        raw *= self.network.prior_sd().detach().cpu().numpy()
        return torch.from_numpy(raw).to(self.device, next(self.network.parameters()).dtype)

    @torch.no_grad()
    def elbo(self, trials: Trials) -> Array:
        """Return the evidence lower bound of each trial in nats, shape (trial,), in the data's units."""
        generator = torch.Generator().manual_seed(self.seed)
        return bounds(self.network, trials, self.options.settings.samples, generator).cpu().numpy()

    @torch.no_grad()
    def _set_order(self, trials: Trials) -> None:
        """Set the order (within groups) and sign of the latents by their effect on the decoders."""
        network = self.network
        sites = network.sites(network.inputs(trials, self.modalities))
        mean = posterior_mean(network.bases(trials.n_bins), network.inference.combine(list(sites.values())))
        power, slope = network.effects(mean)
        first = np.array([self.latent_groups.index(group) for group in self.latent_groups])
        self.order = np.lexsort((-power, first))
        self.sign = np.where(slope < 0, -1.0, 1.0)[self.order]

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that the fit has learned, as arrays."""
        weights = {f"network.{k}": v.cpu().numpy() for k, v in self.network.state_dict().items()}
        bin_width = np.array(self.options.layout.bin_width)
        own = {"order": self.order, "sign": self.sign, "bin_width": bin_width, "seed": np.array(self.seed)}
        return weights | own

    @classmethod
    def from_state(cls, settings: MMGPVAESettings, layout: Layout, state: State, device: str = "cpu") -> Self:
        """Rebuild a fitted model.

        Raises:
            ValueError: the arrays are not those of such a fit.
        """
        return cls(settings, layout, device).restore(state)

    def restore(self, state: State) -> Self:
        """Restore the fit from its state; see `from_state`."""
        generator = torch.Generator().manual_seed(0)  # the weights are overwritten
        self.network = MultiModalNetwork(self.options, generator)
        self.order, self.sign = np.arange(len(self.latent_groups)), np.ones(len(self.latent_groups))
        expected = self.state()
        if unknown := state.keys() - expected.keys():
            raise ValueError(f"{min(unknown)} is unknown")
        arrays = {name: array_of(state, name, *array.shape) for name, array in expected.items()}
        if float(arrays["bin_width"]) != self.options.layout.bin_width:
            raise ValueError(f"bin_width is {arrays['bin_width']} s, not {self.options.layout.bin_width} s")
        if sorted(arrays["order"].tolist()) != self.order.tolist():
            raise ValueError(f"order is {arrays['order'].tolist()}")
        weights = part_of(arrays, "network.")
        self.network.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
        self.network.to(self.device).eval()
        self.order, self.sign = arrays["order"].astype(np.intp), arrays["sign"]
        self.seed = int(arrays["seed"])
        return self
