"""The networks of one modality: encoder (observations -> sites), decoder (latents -> eta), likelihood."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from colatent.data.predictive import Predictive
from colatent.data.scaling import Array, Standardizer
from colatent.errors import InputError
from colatent.models.mmgpvae.decoders.base import make_decoder
from colatent.models.mmgpvae.encoders import Encoder
from colatent.models.mmgpvae.layers import DTYPE
from colatent.models.mmgpvae.likelihoods import ChannelLikelihood, masked_sum
from colatent.models.mmgpvae.options import ModalityOptions
from colatent.models.mmgpvae.posterior import Marginals

if TYPE_CHECKING:
    from colatent.models.mmgpvae.decoders.linear import LinearDecoder


class NetworkInput(NamedTuple):
    """Data of one modality in the networks' units, each (trial, time, channel).

    Attributes:
        features: input of the encoder: square-rooted (counts) or standardised, centred, zero where
            not observed.
        target: observations for the likelihood: standardised (Gaussian) or raw.
        observed: boolean.
    """

    features: Tensor
    target: Tensor
    observed: Tensor

    def select(self, trial: Tensor) -> "NetworkInput":
        return NetworkInput(*(x[trial] for x in self))

    def hide(self, hidden: Tensor) -> "NetworkInput":
        """Return the encoder's input with channels hidden, boolean (trial, 1, channel)."""
        return self._replace(
            features=torch.where(hidden, 0.0, self.features), observed=self.observed & ~hidden
        )


class ModalityNetwork(nn.Module):
    """Encoder, decoder and likelihood of one modality.

    Attributes:
        latents: indices of the latents that drive the modality.
        feature_mean: mean subtracted from the encoder's input, (channel,).
        offset, scale: location and scale of the observations in their original units, (channel,).
        effective_share: as many channels of independent noise would say as much, as a share of the channels;
            see `refinement.calibration`.
        cross_likelihood: likelihood of predictions from other modalities, whose errors are larger than
            those of reconstructions and need separate noise.
    """

    latents: Tensor
    feature_mean: Tensor
    offset: Tensor
    scale: Tensor
    effective_share: Tensor

    def __init__(self, options: ModalityOptions, generator: torch.Generator) -> None:
        super().__init__()
        self.options = options
        self.encoder = Encoder(options, generator)
        self.decoder = make_decoder(options, generator)
        n_channels = options.n_channels
        self.likelihood = ChannelLikelihood(options.likelihood, n_channels)
        self.cross_likelihood = ChannelLikelihood(options.likelihood, n_channels)
        self.register_buffer("latents", torch.tensor(options.latents), persistent=False)
        self.register_buffer("feature_mean", torch.zeros(n_channels, dtype=torch.float64))
        self.register_buffer("offset", torch.zeros(n_channels, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_channels, dtype=torch.float64))
        self.register_buffer("effective_share", torch.ones((), dtype=torch.float64))

    @property
    def linear_decoder(self) -> "LinearDecoder":
        """The decoder, if it is linear."""
        return cast("LinearDecoder", self.decoder)

    def calibrate(self, values: Array, observed: NDArray[np.bool_]) -> None:
        """Set the units and the decoder's bias from the training trials (trial, time, channel)."""
        likelihood = self.likelihood.record
        if likelihood.describes == "binary" and not np.isin(values[observed], (0.0, 1.0)).all():
            raise InputError(f"likelihood {likelihood.name}: the values must be 0 or 1; use gaussian")
        raw = Standardizer.fit(values, observed)
        if likelihood.describes == "values":
            self.offset.copy_(torch.from_numpy(raw.mean))
            deviation = torch.from_numpy(raw.deviation)
            # one scale for all pixels, so that neighbours stay comparable and rarely active ones small
            rms = deviation.square().mean().sqrt().expand_as(deviation)
            self.scale.copy_(deviation if self.options.image_shape is None else rms)
        else:
            features = self._transform(torch.from_numpy(values)).numpy()
            self.feature_mean.copy_(torch.from_numpy(Standardizer.fit(features, observed).mean))
        mean = (torch.from_numpy(raw.mean) - self.offset) / self.scale
        with torch.no_grad():
            self.decoder.output_bias.copy_(likelihood.initial_eta(mean))

    def inputs(self, values: Tensor, observed: Tensor) -> NetworkInput:
        """Convert values (trial, time, channel) from their original into the networks' units."""
        target = torch.where(observed, (values - self.offset) / self.scale, 0.0)
        features = torch.where(observed, self._transform(target) - self.feature_mean, 0.0)
        return NetworkInput(features.to(DTYPE), target.to(DTYPE), observed)

    def _transform(self, target: Tensor) -> Tensor:
        counts = self.likelihood.record.describes == "counts"
        return target.clamp_min(0.0).sqrt() if counts else target

    def expected_log_prob(self, data: NetworkInput, latents: Marginals, generator: torch.Generator) -> Tensor:
        """Return E[log p(data | z)] in nats (trial,) over the marginals of this modality's latents."""
        log_prob = self.decoder.expected_log_prob(self.likelihood, data.target, latents, generator)
        return masked_sum(log_prob, data.observed)

    def cross_log_prob(self, data: NetworkInput, latent_mean: Tensor, unseen: Tensor) -> Tensor:
        """Return the log density of cross-modal predictions, with their own noise, nats (trial,).

        Args:
            data: observations.
            latent_mean: of this modality's latents (trial, time, latent).
            unseen: variance of the latents that no other modality informs, zero for the others (latent,).
        """
        log_prob = self.cross_likelihood.log_prob(data.target, self._cross_eta(latent_mean, unseen))
        return masked_sum(log_prob, data.observed)

    def _cross_eta(self, latents: Tensor, unseen: Tensor) -> Tensor:
        """Return the eta of the expected observation over unseen latents, which are not at their mean."""
        variance = self.decoder.variance_of_eta(unseen)
        return self.likelihood.record.eta_of_expectation(self.decoder(latents), variance)

    def decoder_slopes(self, latents: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield each latent of this modality and the decoder's derivative by it (trial, time, channel).

        Args:
            latents: all latents (trial, time, latent) at which to take the derivative.
        """
        own = latents[..., self.latents]
        yield from zip(self.latents.tolist(), derivatives(self.decoder, own), strict=True)

    def jacobian(self, latents: Tensor) -> Tensor:
        """Return the decoder's derivative by this modality's latents, at latents (trial, time, latent).

        Its shape is (trial, time, channel, latent), for linear decoders (channel, latent).
        """
        if self.options.decoder.is_linear:
            return self.linear_decoder.readout.weight.detach()
        return torch.stack(list(derivatives(self.decoder, latents)), dim=-1)

    def predictive(self, latents: Tensor, unseen: Tensor | None = None) -> Predictive:
        """Return the predictive distribution given latent samples, in the observations' original units.

        Args:
            latents: samples of this modality's latents (sample, trial, time, latent).
            unseen: for a cross-modal prediction with its own noise, see `cross_log_prob`.
        """
        likelihood = self.likelihood if unseen is None else self.cross_likelihood
        eta = self.decoder(latents) if unseen is None else self._cross_eta(latents, unseen)
        given = likelihood.distribution(eta.double())
        scale = likelihood.scale()
        return Predictive(
            likelihood.record.name,
            (given.mean * self.scale + self.offset).cpu().numpy(),
            None if scale is None else (scale * self.scale).cpu().numpy(),
        )


def derivatives(decoder: nn.Module, latents: Tensor) -> Iterator[Tensor]:
    """Yield a decoder's derivative by each latent, at latents (..., latent).

    The gradient of v' eta by a latent is linear in v, with this derivative as its own gradient by v.
    `torch.func.jvp` and `grad_outputs` would load a compiler: longer than all of a small model's analyses.
    """
    with torch.enable_grad():
        at = latents.detach().requires_grad_()
        eta = decoder(at)
        v = torch.zeros_like(eta, requires_grad=True)
        (pulled,) = torch.autograd.grad((eta * v).sum(), at, create_graph=True)
        sums = pulled.flatten(end_dim=-2).sum(dim=0).unbind()
    for one in sums:
        (found,) = torch.autograd.grad(one, v, retain_graph=True)
        yield found
