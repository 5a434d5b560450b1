"""What one modality has: encoder (observations -> sites), decoder (latents -> eta) and likelihood."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import jvp

from colatent.data.predictive import Predictive
from colatent.data.scaling import Array, Standardizer
from colatent.errors import InputError
from colatent.models.mmgpvae.decoders import Decoder, make_decoder
from colatent.models.mmgpvae.encoders import Encoder, ImageProjection
from colatent.models.mmgpvae.layers import DTYPE, dense
from colatent.models.mmgpvae.likelihoods import ChannelLikelihood, masked_sum
from colatent.models.mmgpvae.posterior import Marginals


class Observations(NamedTuple):
    """One modality as its networks see it, each (trial, time, channel).

    Attributes:
        features: the encoder's input: square roots (counts) or standardised, centred, zero where
            not observed.
        target: what the likelihood scores: standardised (Gaussian) or the values themselves.
        observed: boolean.
    """

    features: Tensor
    target: Tensor
    observed: Tensor

    def select(self, trial: Tensor) -> "Observations":
        return Observations(*(x[trial] for x in self))

    def hide(self, hidden: Tensor) -> "Observations":
        """Return what the encoder gets when the channels ``hidden`` (trial, 1, channel) are."""
        return self._replace(
            features=torch.where(hidden, 0.0, self.features), observed=self.observed & ~hidden
        )


class ModalityNetwork(nn.Module):
    """Encoder, decoder and likelihood of one modality.

    Args:
        n_channels: of the modality.
        latents: indices of the latents of every group that contains it.
        likelihood, decoder: their names.
        context: bins that the encoder's convolution sees (odd).
        hidden: units of each hidden layer.
        dropout: see `Encoder`.
        image_shape: rows and columns, of a modality whose decoder is convolutional; its encoder
            is then as well.
    """

    latents: Tensor
    feature_mean: Tensor
    offset: Tensor
    scale: Tensor
    site_factor: Tensor

    def __init__(
        self,
        n_channels: int,
        latents: list[int],
        likelihood: str,
        decoder: str,
        context: int,
        hidden: int,
        dropout: float,
        image_shape: tuple[int, int] | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.image_shape = image_shape if decoder == "convolutional" else None
        projection: nn.Module = (
            dense(n_channels, hidden, generator)
            if self.image_shape is None
            else ImageProjection(self.image_shape, hidden, generator)
        )
        self.encoder = Encoder(projection, len(latents), context, hidden, dropout, generator)
        self.decoder: Decoder = make_decoder(
            decoder, len(latents), n_channels, self.image_shape, hidden, generator
        )
        self.likelihood = ChannelLikelihood(likelihood, n_channels)
        # Predictions from other modalities err more than reconstructions: they have a noise of their own.
        self.cross_likelihood = ChannelLikelihood(likelihood, n_channels)
        self.register_buffer("latents", torch.tensor(latents), persistent=False)
        self.register_buffer("feature_mean", torch.zeros(n_channels, dtype=torch.float64))
        self.register_buffer("offset", torch.zeros(n_channels, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_channels, dtype=torch.float64))
        # of the precision of the encoder's sites, see `site_calibration`
        self.register_buffer("site_factor", torch.ones(len(latents), dtype=torch.float64))

    def calibrate(self, values: Array, observed: NDArray[np.bool_]) -> None:
        """Set the units and the decoder's bias from the training trials, (trial, time, channel)."""
        likelihood = self.likelihood.record
        if likelihood.describes == "binary" and not np.isin(values[observed], (0.0, 1.0)).all():
            raise InputError(f"likelihood {likelihood.name}: the values must be 0 or 1; use gaussian")
        raw = Standardizer.fit(values, observed)
        if likelihood.describes == "values":
            self.offset.copy_(torch.from_numpy(raw.mean))
            deviation = torch.from_numpy(raw.deviation)
            # One scale for all pixels: neighbours must stay comparable, and rarely lit ones small.
            rms = deviation.square().mean().sqrt().expand_as(deviation)
            self.scale.copy_(deviation if self.image_shape is None else rms)
        else:
            features = self._transform(torch.from_numpy(values)).numpy()
            self.feature_mean.copy_(torch.from_numpy(Standardizer.fit(features, observed).mean))
        mean = (torch.from_numpy(raw.mean) - self.offset) / self.scale
        with torch.no_grad():
            self.decoder.bias.copy_(likelihood.initial_eta(mean))

    def observations(self, values: Tensor, observed: Tensor) -> Observations:
        """Bring values (trial, time, channel), in their original units, into the networks' units."""
        target = torch.where(observed, (values - self.offset) / self.scale, 0.0)
        features = torch.where(observed, self._transform(target) - self.feature_mean, 0.0)
        return Observations(features.to(DTYPE), target.to(DTYPE), observed)

    def _transform(self, target: Tensor) -> Tensor:
        counts = self.likelihood.record.describes == "counts"
        return target.clamp_min(0.0).sqrt() if counts else target

    def expected_log_prob(self, data: Observations, latents: Marginals, generator: torch.Generator) -> Tensor:
        """E[log p(data | z)] in nats, shape (trial,), latents those of this modality."""
        log_prob = self.decoder.expected_log_prob(self.likelihood, data.target, latents, generator)
        return masked_sum(log_prob, data.observed)

    def cross_log_prob(self, data: Observations, latent_mean: Tensor) -> Tensor:
        """log p(data | z = latent_mean) with the noise of cross-modal predictions, shape (trial,)."""
        log_prob = self.cross_likelihood.log_prob(data.target, self.decoder(latent_mean))
        return masked_sum(log_prob, data.observed)

    def decoder_slopes(self, latents: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield the number of each latent of this modality, and the decoder's derivative by it.

        Args:
            latents: all latents (trial, time, latent), where the derivative (trial, time, channel) is taken.
        """
        own = latents[..., self.latents]
        for i, k in enumerate(self.latents.tolist()):
            direction = torch.zeros_like(own)
            direction[..., i] = 1.0
            yield k, jvp(self.decoder, (own,), (direction,))[1]

    def predictive(self, latents: Tensor, cross: bool = False) -> Predictive:
        """Return the observations' distribution, in their original units, given latent samples.

        Args:
            latents: those of this modality, (sample, trial, time, latent).
            cross: with the noise of cross-modal predictions, which `cross_log_prob` has learned.
        """
        likelihood = self.cross_likelihood if cross else self.likelihood
        given = likelihood.distribution(self.decoder(latents).double())
        scale = likelihood.scale()
        return Predictive(
            likelihood.record.name,
            (given.mean * self.scale + self.offset).cpu().numpy(),
            None if scale is None else (scale * self.scale).cpu().numpy(),
        )
