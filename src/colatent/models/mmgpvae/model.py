"""MM-GPVAE: the multi-modal Gaussian-process variational autoencoder, with a sites posterior.

Gondur, Sikandar, Schaffer, Aoi & Keeley (ICLR 2024, arXiv 2310.03111): smooth latents that are
shared by several modalities or private to one, each modality with its own decoder. Here every
modality's encoder emits Gaussian sites, which multiply with the prior (`colatent.models.mmgpvae.posterior`);
inference from any subset of modalities, channels and bins is the same computation.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from colatent.data.predictive import Predictive
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.jobs.checkpoint import Checkpoint
from colatent.models.mmgpvae.modality import Observations
from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.objective import Objective, make_optimizer
from colatent.models.mmgpvae.options import Options
from colatent.models.mmgpvae.posterior import (
    Posterior,
    Sites,
    posterior_mean,
)
from colatent.models.mmgpvae.refinement.calibration import calibrate_sites, make_less_sure
from colatent.models.mmgpvae.refinement.linear_decoders import Profile, improve
from colatent.models.mmgpvae.refinement.nonlinear_decoders import (
    decoder_loss,
    refinable,
    refinement_schedule,
)
from colatent.models.mmgpvae.refinement.separation import separable, separate
from colatent.models.mmgpvae.refinement.sites import refine
from colatent.models.mmgpvae.training import Trainer

Array = NDArray[np.float64]

# Of the epochs, the share that each of several starts is trained for, and that `first_cross_weight` is for.
# Which starts will end in a worse optimum shows by then: of 72 on six simulations of 40 trials one in seven
# did; the most promising of three was such a one in 1 of 25 draws after a fifth of the epochs, in 1 of 11
# after a tenth.
SHARE_OF_A_START = 0.2


class MMGPVAE:
    """Multi-modal GP-VAE (workflow model interface); see `Options` for its keyword options.

    Attributes:
        latent_groups: group of each latent, in the order of the ``latents`` option.
        history: one row an epoch, see `Trainer`; losses are negative objectives, nats per bin.
    """

    network: MultiModalNetwork

    def __init__(self, **options: Any) -> None:
        self.options = Options(**options)
        self.latent_groups = self.options.latent_groups
        self.history: list[dict[str, float]] = []
        cuda = self.options.device == "cuda" or (self.options.device == "auto" and torch.cuda.is_available())
        self.device = torch.device("cuda" if cuda else "cpu")

    def fit(
        self,
        trials: Trials,
        seed: int = 0,
        progress: Callable[[str], None] = print,
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """Fit to the training trials.

        Args:
            trials: must hold every modality of the options.
            seed: of weights, batches and samples.
            progress: gets plain lines.
            checkpoint: where an interrupted fit is kept and from where it goes on.

        Raises:
            FloatingPointError: the loss was never finite.
        """
        n_channels = self._channels(trials)
        data: Data = {}
        starts: list[Trainer] = []
        for number in range(self.options.restarts):
            generator = torch.Generator().manual_seed(_seed_of_start(seed, number))
            self._build(n_channels, trials.bin_width, trials.n_bins, seed, generator)
            for name in n_channels:
                self.network.modality(name).calibrate(trials.values[name], trials.observed[name])
            self.network.to(self.device)
            data = data or self._observations(trials, self.options.modalities)  # in units that all share
            objective = Objective(self.network, self.options, self.options.cross_weights.first)
            optimizer = make_optimizer(self.network, self.options)
            schedule = self.options.schedule
            starts.append(Trainer(self.network, objective.loss_on(data), optimizer, schedule, generator))
        # starts are compared on the same held-out trials
        order = torch.randperm(trials.n_trials, generator=starts[0].generator)
        trainer = self._train(starts, data, order, progress, checkpoint)
        self.history = trainer.history
        if self.options.posterior == "sites":
            held_out = trainer.held_out(order).numpy()
            self._calibrate_sites(trials, held_out)
            self._improve_linear_decoders(trials, held_out, progress)
            self._separate_latents(trials)
        self._refine_decoders(trials, data, order, progress, checkpoint)
        self._set_order(data)
        return self

    def _train(
        self,
        starts: list[Trainer],
        data: Data,
        order: Tensor,
        progress: Callable[[str], None],
        checkpoint: Checkpoint | None,
    ) -> Trainer:
        """Train one start to the end, of several the one that promises most early on; the network is its."""

        def own(number: int) -> tuple[Tensor, Callable[[str], None], Checkpoint | None]:
            if len(starts) == 1:
                return order, progress, checkpoint
            part = checkpoint.part(f"start-{number}") if checkpoint else None
            return order, lambda line: progress(f"start {number + 1}/{len(starts)}: {line}"), part

        epochs = math.ceil(SHARE_OF_A_START * self.options.epochs)
        for number, trainer in enumerate(starts):
            trainer.train(epochs, *own(number))
        promises = [trainer.promise(epochs) for trainer in starts]
        best = int(np.argmin(promises))
        if len(starts) > 1:
            progress(f"start {best + 1} goes on: held-out loss {promises[best]:.4f} in {epochs} epochs")
        trainer = starts[best]
        assert isinstance(trainer.module, MultiModalNetwork)
        self.network = trainer.module
        first, final = self.options.cross_weights
        if final != first:
            objective = Objective(self.network, self.options, final)
            trainer.go_on_with(objective.loss_on(data))
        trainer.run(*own(best))
        return trainer

    def _calibrate_sites(self, trials: Trials, held_out: NDArray[np.intp]) -> None:
        """Find how sure the encoders' sites may be (`site_calibration`), if trials were held out."""
        if len(held_out):
            part = trials.select(held_out)
            data = self._observations(part, self.options.modalities)
            calibrate_sites(self.network, data, *self._inference(part), self.options.weight)
            make_less_sure(self.network, lambda: self._objective(part))

    def _separate_latents(self, trials: Trials) -> None:
        """Free private latents of what they hold of shared ones (`latent_separation`)."""
        network, options = self.network, self.options
        if wider := separable(network, options.cross_weight):
            separate(network, self._posterior(trials, options.modalities).marginals, wider)

    def _improve_linear_decoders(
        self, trials: Trials, held_out: NDArray[np.intp], progress: Callable[[str], None]
    ) -> None:
        """Bring the linear decoders to their optimum (`linear_refinement`), if trials were held out."""
        network, options = self.network, self.options
        names = [name for name in network.names if network.has_linear_decoder(name)]
        if not names or not len(held_out):
            return
        others = trials.select(np.delete(np.arange(trials.n_trials), held_out))
        judges = trials.select(held_out)
        data, empty = self._observations(others, options.modalities), self._inference(others)[1]
        profile = Profile(network, data, empty, options.weight, options.cross_weights.final)
        n_rounds = improve(network, profile, lambda: self._objective(judges), progress)
        progress(f"linear decoders of {' and '.join(names)}: rounds of improvement kept: {n_rounds}")

    def _objective(self, trials: Trials) -> float:
        """Return the objective with the posterior that inference uses, nats a trial."""
        data = self._observations(trials, self.options.modalities)
        q = self._posterior(trials, self.options.modalities)
        generator = torch.Generator().manual_seed(self.seed)
        objective = Objective(self.network, self.options, self.options.cross_weights.final)
        return objective.value(data, q, generator)

    def _refine_decoders(
        self,
        trials: Trials,
        data: Data,
        order: Tensor,
        progress: Callable[[str], None],
        checkpoint: Checkpoint | None,
    ) -> None:
        """Fit the non-linear decoders to the posterior of the training trials (`decoder_refinement`)."""
        network, options = self.network, self.options
        if not (names := refinable(network, options.cross_weight)):
            return
        latents = self._posterior(trials, options.modalities).marginals
        loss = decoder_loss(network, names, data, latents, options.weight)
        for name in names:
            network.modality(name).likelihood.requires_grad_(False)
        # of all parameters only those of these decoders get a gradient
        trainer = Trainer(
            network,
            loss,
            make_optimizer(network, options),
            refinement_schedule(options.schedule),
            torch.Generator().manual_seed(self.seed),
        )
        trainer.count_present_weights(order)
        part = checkpoint.part("decoders") if checkpoint else None
        trainer.run(order, lambda line: progress(f"decoders: {line}"), part)

    def _channels(self, trials: Trials) -> dict[str, int]:
        """Return the number of channels of each modality of the options.

        Raises:
            InputError: images of another size. ValueError: a modality is missing.
        """
        n_channels = {
            name: trials.values[name].shape[2] for name in self._present(trials, self.options.modalities)
        }
        for name, shape in self.options.image_shape.items():
            if np.prod(shape) != n_channels.get(name, np.prod(shape)):
                raise InputError(
                    f"image_shape of {name}: {shape[0]} x {shape[1]} pixels, but it has {n_channels[name]} "
                    "channels; correct it"
                )
        if missing := set(self.options.modalities) - set(n_channels):
            raise ValueError(f"the training trials lack the modality {sorted(missing)[0]!r}")
        return n_channels

    def _build(
        self,
        n_channels: Mapping[str, int],
        bin_width: float,
        n_bins: int,
        seed: int,
        generator: torch.Generator,
    ) -> None:
        o = self.options
        self.bin_width, self.seed = bin_width, seed
        self.network = MultiModalNetwork(
            n_channels,
            [frozenset(group.split("+")) for group in self.latent_groups],
            o.likelihood,
            o.decoder,
            o.kernel,
            np.full(len(self.latent_groups), o.time_scale / bin_width),
            o.posterior,
            n_bins,
            o.context,
            o.hidden,
            o.dropout,
            o.image_shape,
            generator,
        )
        self.order = np.arange(len(self.latent_groups))
        self.sign = np.ones(len(self.latent_groups))

    def _observations(self, trials: Trials, names: tuple[str, ...]) -> dict[str, Observations]:
        if self.options.bin_width not in (None, trials.bin_width) or self.bin_width != trials.bin_width:
            raise ValueError(f"bins of {trials.bin_width} s, but the model has bins of {self.bin_width} s")
        return {
            name: self.network.modality(name).observations(
                torch.from_numpy(trials.values[name]).to(self.device),
                torch.from_numpy(trials.observed[name]).to(self.device),
            )
            for name in self._present(trials, names)
        }

    @staticmethod
    def _present(trials: Trials, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(name for name in names if name in trials.values))

    @torch.no_grad()
    def _posterior(self, trials: Trials, given: tuple[str, ...]) -> Posterior:
        """Return the posterior for these very trials; `site_refinement` is for exact posteriors only."""
        if self.options.posterior != "sites":
            return self._encoded_posterior(trials, given)
        data = self._observations(trials, given)
        return refine(self.network, data, *self._inference(trials), self.options.weight).posterior

    @torch.no_grad()
    def _encoded_posterior(self, trials: Trials, given: tuple[str, ...]) -> Posterior:
        """Return the posterior that the encoders' sites define, the one that was trained."""
        bases, empty = self._inference(trials)
        inference, sites = self.network.inference, self.network.sites(self._observations(trials, given))
        return inference.posterior(bases, inference.combine([empty, *sites.values()]))

    @torch.no_grad()
    def _inference(self, trials: Trials) -> tuple[Tensor, Sites]:
        """Return the bases of the prior, and sites that say nothing."""
        self.network.eval()
        bases = self.network.bases(trials.n_bins)
        zero = bases.new_zeros((trials.n_trials, trials.n_bins, len(self.latent_groups)))
        return bases, Sites(zero, zero)

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return posterior mean and variance of the latents, each (trial, time, latent), prior variance 1.

        Within a group, latents are in descending order of what they move in the decoders; the sign
        is that in which they raise the channels on average.
        """
        q, sd = self._posterior(trials, given).marginals, self.network.prior_sd().detach()
        mean, variance = (x.cpu().numpy()[..., self.order] for x in (q.mean / sd, q.variance / sd**2))
        return mean * self.sign, variance

    def time_scales(self) -> Array:
        """Return the learned time scale of each latent, seconds, in the order of `latents`."""
        return self.network.time_scale().detach().cpu().numpy()[self.order] * self.bin_width

    @torch.no_grad()
    def decode(self, latents: Array, modality: str) -> Array:
        """Return the expected observations (trial, time, channel) at latents as `latents` gives them."""
        network = self.network.modality(modality)
        return network.predictive(self._raw(latents)[None][..., network.latents]).mean

    @torch.no_grad()
    def loading(self, latents: Array, modality: str) -> Array:
        """Return the decoder's mean derivative at latents, (channel, latent), per s.d. of their prior.

        In units of `decoded_unit`; zero for the latents of other groups.
        """
        network, sd = self.network.modality(modality), self.network.prior_sd()
        slope = np.zeros((len(network.scale), latents.shape[-1]))
        for k, derivative in network.decoder_slopes(self._raw(latents)):
            slope[:, k] = (sd[k] * derivative.mean(dim=(0, 1))).cpu().numpy()
        return slope[:, self.order] * self.sign

    def decoded_unit(self, modality: str) -> str:
        """Return the unit of what the decoder puts out."""
        return self.network.modality(modality).likelihood.record.unit

    def _raw(self, latents: Array) -> Tensor:
        """Bring latents from the order, signs and units of `latents` into those of the network."""
        raw = np.empty_like(latents)
        raw[..., self.order] = latents * self.sign
        raw *= self.network.prior_sd().detach().cpu().numpy()
        return torch.from_numpy(raw).to(self.device, next(self.network.parameters()).dtype)

    @torch.no_grad()
    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of ``predicted`` given the modalities ``given``.

        In the data's own units (counts per bin for spikes). A modality with a cross weight that is not
        given is predicted as the cross-modal objective has it. All trials share the samples' noise,
        so that no trial's prediction depends on which others are predicted with it.
        """
        network = self.network.modality(predicted)
        if predicted not in given and self.options.cross_weight.get(predicted):
            # as the objective has it: the encoders were trained to predict it from their mean, better
            # than the likeliest latents do, and with a noise of its own
            mean = self._encoded_posterior(trials, given).marginals.mean
            return network.predictive(mean[None][..., network.latents], cross=True)
        generator = torch.Generator().manual_seed(self.seed)
        samples = self._posterior(trials, given).sample(self.options.samples, generator)
        return network.predictive(samples[..., network.latents])

    @torch.no_grad()
    def elbo(self, trials: Trials) -> Array:
        """Return the evidence lower bound of each trial in nats, shape (trial,), in the data's units."""
        self.network.eval()
        data = self._observations(trials, self.options.modalities)
        q = self._posterior(trials, self.options.modalities)
        bound = self.network.elbo(data, q, torch.Generator().manual_seed(self.seed))
        for name, x in data.items():
            bound = bound - (x.observed * self.network.modality(name).scale.log()).sum(dim=(1, 2))
        return bound.cpu().numpy()

    @torch.no_grad()
    def _set_order(self, data: Data) -> None:
        """Fix order (within groups) and sign of the latents by their effect on the decoders."""
        self.network.eval()
        n_bins = next(iter(data.values())).target.shape[1]
        sites = self.network.sites(data)
        combined = self.network.inference.combine(list(sites.values()))
        mean = posterior_mean(self.network.bases(n_bins), combined)
        power, slope = self.network.effects(mean)
        groups = np.unique(self.latent_groups, return_inverse=True)[1]
        first = np.array([np.flatnonzero(groups == g)[0] for g in groups])
        self.order = np.lexsort((-power, first))
        self.sign = np.where(slope < 0, -1.0, 1.0)[self.order]

    def state(self) -> dict[str, Array]:
        """Return all that the fit has learned, as arrays."""
        state = {f"network.{k}": v.cpu().numpy() for k, v in self.network.state_dict().items()}
        columns = self.history[0] if self.history else {}
        state |= {f"history.{k}": np.array([row[k] for row in self.history]) for k in columns}
        return state | {
            "order": self.order,
            "sign": self.sign,
            "bin_width": np.array(self.bin_width),
            "seed": np.array(self.seed),
        }

    @classmethod
    def state_shapes(cls, options: Mapping[str, Any], training: Trials) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array of a fit to these training trials, but for its history."""
        model = cls(**options)
        n_channels = {name: training.values[name].shape[2] for name in model.options.modalities}
        model._build(n_channels, training.bin_width, training.n_bins, 0, torch.Generator())
        return {name: array.shape for name, array in model.state().items()}

    @classmethod
    def from_state(cls, options: Mapping[str, Any], state: Mapping[str, Array]) -> Self:
        """Rebuild a fitted model from its options and `state`."""
        model = cls(**options)
        n_channels = {
            name: len(state[f"network.modalities.{i}.offset"])
            for i, name in enumerate(model.options.modalities)
        }
        generator = torch.Generator().manual_seed(0)  # of weights that are overwritten
        model._build(n_channels, float(state["bin_width"]), 1, int(state["seed"]), generator)
        weights = {k.removeprefix("network."): v for k, v in state.items() if k.startswith("network.")}
        model.network.load_state_dict({k: torch.from_numpy(np.asarray(v)) for k, v in weights.items()})
        model.network.to(model.device)
        model.order, model.sign = state["order"].astype(np.intp), state["sign"]
        history = {k.removeprefix("history."): v for k, v in state.items() if k.startswith("history.")}
        model.history = [
            dict(zip(history, map(float, row), strict=True)) for row in zip(*history.values(), strict=True)
        ]
        return model


def _seed_of_start(seed: int, number: int) -> int:
    """Return the seed of a start's weights and batches; that of the first is the fit's own."""
    return seed if number == 0 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
