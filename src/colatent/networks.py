"""Encoders (observations -> sites) and decoders (latents -> observation parameters).

Weights are drawn from a `torch.Generator` of the caller's, never from torch's global one.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import conv1d, silu, softplus
from torch.nn.utils import skip_init

from colatent.errors import InputError
from colatent.likelihoods import LIKELIHOODS, Likelihood, masked_sum
from colatent.posterior import Marginals, Sites
from colatent.predictive import Predictive
from colatent.standardize import Array, Standardizer

# Sites start weak: an encoder that is sure of itself before it has learned anything drags along
# the latents that it shares with others.
INITIAL_LOG_PRECISION = -3.0
# Networks run in single precision, which halves their cost; sites and posteriors are float64.
DTYPE = torch.float32


def dense(n_in: int, n_out: int, generator: torch.Generator, gain: float = 1.0) -> nn.Linear:
    """Return a linear layer with N(0, gain^2 / n_in) weights and zero bias."""
    layer: nn.Linear = skip_init(nn.Linear, n_in, n_out, dtype=DTYPE)
    with torch.no_grad():
        layer.weight.normal_(0.0, gain / math.sqrt(n_in), generator=generator)
        layer.bias.zero_()
    return layer


class Dropout(nn.Module):
    """Set a random ``share`` of the units to zero in training; torch's own draws from global state."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        super().__init__()
        self.share, self.generator = share, generator

    def forward(self, units: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return units
        kept = torch.rand(units.shape, generator=self.generator) >= self.share
        return units * kept.to(units) / (1 - self.share)


class Encoder(nn.Module):
    """A projection of the channels, filters over a few bins, and a per-bin network to the sites.

    The filters act on each projection by itself: a full convolution over channels and bins has
    many times the weights, costs as much more and over-fits sooner.

    Args:
        n_channels: of the modality.
        n_latents: of all groups that contain it.
        context: bins that the filters see (odd).
        hidden: number of projections, and units of the hidden layer.
        dropout: share of both that is dropped in training.
        generator: on the CPU; of the weights, and later of the dropout.
    """

    def __init__(
        self,
        n_channels: int,
        n_latents: int,
        context: int,
        hidden: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.projection = dense(n_channels, hidden, generator)
        self.filters = nn.Parameter(
            torch.empty(hidden, 1, context, dtype=DTYPE).normal_(0.0, context**-0.5, generator=generator)
        )
        self.hidden = dense(hidden, hidden, generator)
        self.location = dense(hidden, n_latents, generator)
        self.log_precision = dense(hidden, n_latents, generator, gain=0.1)
        self.dropout = Dropout(dropout, generator)

    def forward(self, features: Tensor, observed: Tensor) -> Sites:
        """Return one site per bin and latent.

        Args:
            features: centred observations, zero where not observed, (trial, time, channel).
            observed: boolean, same shape.
        """
        projected = self.projection(features).transpose(1, 2)
        n_projections, _, context = self.filters.shape
        filtered = conv1d(projected, self.filters, padding=context // 2, groups=n_projections)
        hidden = self.dropout(silu(filtered.transpose(1, 2)))
        hidden = self.dropout(silu(self.hidden(hidden)))
        # Information adds over channels, so the precision shrinks with the share of them that was
        # observed, down to exactly zero where nothing was.
        share = observed.to(features.dtype).mean(dim=-1, keepdim=True)
        precision = softplus(self.log_precision(hidden) + INITIAL_LOG_PRECISION) * share
        return Sites(precision.double(), (precision * self.location(hidden)).double())


class LinearDecoder(nn.Module):
    """eta = C z + d."""

    def __init__(self, n_latents: int, n_channels: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.readout = dense(n_latents, n_channels, generator, gain=0.5)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (..., latent) to eta (..., channel)."""
        return self.readout(latents.to(DTYPE))

    def expected_log_prob(
        self, likelihood: Likelihood, target: Tensor, latents: Marginals, generator: torch.Generator
    ) -> Tensor:
        """Return E[log p(target | z)] per bin and channel, without samples: eta is Gaussian."""
        variance = latents.variance.to(DTYPE) @ self.readout.weight.square().T
        return likelihood.expected_log_prob(target, self(latents.mean), variance)


class MLPDecoder(nn.Module):
    """eta = a network of two hidden layers, bin by bin."""

    def __init__(self, n_latents: int, n_channels: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        self.inner = dense(n_latents, hidden, generator)
        self.middle = dense(hidden, hidden, generator)
        self.readout = dense(hidden, n_channels, generator, gain=0.5)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (..., latent) to eta (..., channel)."""
        return self.readout(silu(self.middle(silu(self.inner(latents.to(DTYPE))))))

    def expected_log_prob(
        self, likelihood: Likelihood, target: Tensor, latents: Marginals, generator: torch.Generator
    ) -> Tensor:
        """Estimate E[log p(target | z)] per bin and channel from one antithetic pair of samples.

        Bins add up, so each needs samples of its own marginal only, which have less noise in their
        gradients than joint samples.
        """
        noise = torch.randn(latents.mean.shape, generator=generator, dtype=torch.float64).to(latents.mean)
        deviation = latents.variance.sqrt() * noise
        pair = self(torch.stack([latents.mean + deviation, latents.mean - deviation]))
        return likelihood.log_prob(target, pair).mean(dim=0)


DECODERS: dict[str, type[LinearDecoder] | type[MLPDecoder]] = {"linear": LinearDecoder, "mlp": MLPDecoder}


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
        likelihood, decoder: names, keys of `LIKELIHOODS` and `DECODERS`.
        context: bins that the encoder's convolution sees (odd).
        hidden: units of each hidden layer.
        dropout: see `Encoder`.
    """

    latents: Tensor
    feature_mean: Tensor
    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        n_channels: int,
        latents: list[int],
        likelihood: str,
        decoder: str,
        context: int,
        hidden: int,
        dropout: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder = Encoder(n_channels, len(latents), context, hidden, dropout, generator)
        self.decoder = DECODERS[decoder](len(latents), n_channels, hidden, generator)
        self.likelihood = LIKELIHOODS[likelihood](n_channels)
        # Predictions from other modalities err more than reconstructions: they have a noise of their own.
        self.cross_likelihood = LIKELIHOODS[likelihood](n_channels)
        self.register_buffer("latents", torch.tensor(latents), persistent=False)
        self.register_buffer("feature_mean", torch.zeros(n_channels, dtype=torch.float64))
        self.register_buffer("offset", torch.zeros(n_channels, dtype=torch.float64))
        self.register_buffer("scale", torch.ones(n_channels, dtype=torch.float64))

    def calibrate(self, values: Array, observed: NDArray[np.bool_]) -> None:
        """Set the units and the decoder's bias from the training trials, (trial, time, channel)."""
        if self.likelihood.family == "bernoulli" and not np.isin(values[observed], (0.0, 1.0)).all():
            raise InputError("likelihood bernoulli: the values must be 0 or 1; use gaussian")
        raw = Standardizer.fit(values, observed)
        if self.likelihood.family == "gaussian":
            self.offset.copy_(torch.from_numpy(raw.mean))
            self.scale.copy_(torch.from_numpy(raw.deviation))
        else:
            features = self._transform(torch.from_numpy(values)).numpy()
            self.feature_mean.copy_(torch.from_numpy(Standardizer.fit(features, observed).mean))
        mean = (torch.from_numpy(raw.mean) - self.offset) / self.scale
        with torch.no_grad():
            self.decoder.readout.bias.copy_(self.likelihood.initial_eta(mean))

    def observations(self, values: Tensor, observed: Tensor) -> Observations:
        """Bring values (trial, time, channel), in their original units, into the networks' units."""
        target = torch.where(observed, (values - self.offset) / self.scale, 0.0)
        features = torch.where(observed, self._transform(target) - self.feature_mean, 0.0)
        return Observations(features.to(DTYPE), target.to(DTYPE), observed)

    def _transform(self, target: Tensor) -> Tensor:
        return target.clamp_min(0.0).sqrt() if self.likelihood.is_count else target

    def expected_log_prob(self, data: Observations, latents: Marginals, generator: torch.Generator) -> Tensor:
        """E[log p(data | z)] in nats, shape (trial,), latents those of this modality."""
        log_prob = self.decoder.expected_log_prob(self.likelihood, data.target, latents, generator)
        return masked_sum(log_prob, data.observed)

    def cross_log_prob(self, data: Observations, latent_mean: Tensor) -> Tensor:
        """log p(data | z = latent_mean) with the noise of cross-modal predictions, shape (trial,)."""
        log_prob = self.cross_likelihood.log_prob(data.target, self.decoder(latent_mean))
        return masked_sum(log_prob, data.observed)

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
            likelihood.family,
            (given.mean * self.scale + self.offset).cpu().numpy(),
            None if scale is None else (scale * self.scale).cpu().numpy(),
        )
