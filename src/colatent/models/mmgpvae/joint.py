"""The joint posterior of all latents of a trial, whatever the decoders.

Around the posterior mean a decoder is linear: eta(t) changes by J(t) dz. With L the expected log density of a
bin as a function of the mean and variance of eta, the best Gaussian then has sites with the gradient
J' dL/dm and the precision J' W J between latents, W = -2 dL/dv (conjugate-computation variational inference,
Khan & Lin 2017, eq. 12). They are iterated together with J. For linear decoders this is the posterior of
`colatent.models.gpfa.counts`, for Gaussian noise the exact one; for other decoders it is a Laplace
approximation with the Gauss-Newton matrix (Rasmussen & Williams 2006, section 3.4), whose log densities are
expectations.

Shapes: N trials, T bins, p channels and k latents of one modality, q latents, n coordinates of all latents
together (`colatent.models.gpfa.coordinates`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from colatent.data.trials import Trials
from colatent.models.gpfa.coordinates import Basis, Spread
from colatent.models.gpfa.prior import Prior
from colatent.models.mmgpvae.likelihoods import masked_sum
from colatent.models.mmgpvae.modality import ModalityNetwork, NetworkInput
from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.posterior import LatentPosterior, Marginals, Sites

MOST_STEPS = 30
MIN_GAIN = 0.01  # nats per trial
SMALLEST_STEP = 1e-3
DROPPED = 1e-5  # share of the largest variance of a coefficient
MOST_VALUES = 3_000_000  # of the largest array: trials are inferred in blocks


@dataclass(frozen=True)
class JointPosterior:
    """Gaussian posterior of all latents, independent over trials.

    Attributes:
        basis: latents from their coordinates.
        u: mean of the coordinates (N, n).
        spread: covariance of the coordinates of each trial, and of the latents within bins.
    """

    basis: Basis
    u: Tensor
    spread: Spread

    @cached_property
    def marginals(self) -> Marginals:
        """Mean and variance of each latent in each bin."""
        (mean,) = self.basis.to_bins(self.u)
        return Marginals(mean, self.spread.covariance[0].diagonal(dim1=-2, dim2=-1))

    def kl(self) -> Tensor:
        """KL divergence (nats) from the prior (N,)."""
        return self.spread.kl + 0.5 * self.u.square().sum(dim=1)

    def sample(self, n_samples: int, generator: torch.Generator) -> Tensor:
        """Return joint samples, see `LatentPosterior`."""
        half = torch.randn(n_samples // 2, self.u.shape[1], generator=generator, dtype=self.u.dtype)
        half = half.to(self.u.device)
        factor = torch.linalg.cholesky(self.spread.inverse)
        deviation = torch.einsum("nij,sj->sni", factor, half)
        coordinates = torch.cat([self.u + deviation, self.u - deviation])
        (found,) = self.basis.to_bins(coordinates.flatten(0, 1))
        return found.unflatten(0, coordinates.shape[:2])


class Linearised(NamedTuple):
    """One modality around the posterior mean, after `weight`.

    Attributes:
        log_density: expected, nats (N,).
        gradient: of it by the latents (N, T, k).
        precision: between latents (N, T, k, k).
    """

    log_density: Tensor
    gradient: Tensor
    precision: Tensor


class At(NamedTuple):
    """A posterior of some trials: its sites' precision, the modalities around its mean, its bound (N,)."""

    u: Tensor
    spread: Spread
    precision: Tensor
    around: dict[str, Linearised]
    bound: Tensor


class JointInference:
    """Inference of the latents of some trials, all of the same number of bins.

    Args:
        network: the network.
        data: observations of the given modalities, with anything withheld unobserved.
        shape: numbers of trials and bins.
        basis: of the latents on these bins, if it has been made (`basis_of`).
    """

    def __init__(
        self, network: MultiModalNetwork, data: Data, shape: tuple[int, int], basis: Basis | None = None
    ) -> None:
        self.network, self.data, self.shape = network, data, shape
        self.basis = basis or basis_of(network, shape[1])
        weight = network.options.settings.weight
        self.weight = {
            name: weight.get(name, 1.0) * float(network.modality(name).effective_share) for name in data
        }

    def posterior(self, sites: Mapping[str, Sites]) -> JointPosterior:
        """Return the best posterior, see `optimum`."""
        at = self.optimum(sites)
        return JointPosterior(self.basis, at.u, at.spread)

    @torch.no_grad()
    def optimum(self, sites: Mapping[str, Sites]) -> At:
        """Return the best posterior, starting from the encoders' sites.

        Each trial takes full steps, halved when its bound would fall, until it gains no more; trials do not
        depend on each other, and what has converged is left out of further steps.
        """
        best = self._start(sites)
        step = torch.ones_like(best.bound)
        active = torch.arange(len(step), device=step.device)
        for _ in range(MOST_STEPS):
            at, share = _each(itemgetter(active), best), step[active]
            candidate = self._step(at, share, {name: data.select(active) for name, data in self.data.items()})
            gain = candidate.bound - at.bound
            better = gain >= -MIN_GAIN  # False for NaN
            _each(partial(_put, active[better], better), best, candidate)
            step[active] = torch.where(better, (2 * share).clamp(max=1.0), share / 2)
            active = active[~(better & (gain < MIN_GAIN) & (share == 1)) & (share > SMALLEST_STEP)]
            if not len(active):
                break
        return best

    def _step(self, at: At, share: Tensor, data: Data) -> At:
        """Go some share (N,) of the way to the posterior of the sites around ``at``."""
        precision, gradient = torch.zeros_like(at.precision), at.precision.new_zeros(at.precision.shape[:-1])
        for name, one in at.around.items():
            own = self.network.modality(name).latents
            precision[..., own[:, None], own] += one.precision
            gradient[..., own] += one.gradient
        mixed = at.precision + share[:, None, None, None] * (precision - at.precision)
        spread = self.basis.spread([mixed])
        (mean,) = self.basis.to_bins(at.u)
        target = self._solve(spread, gradient + _times(mixed, mean))
        return self._at(at.u + share[:, None] * (target - at.u), spread, mixed, data)

    def _start(self, sites: Mapping[str, Sites]) -> At:
        """Return the posterior of the encoders' sites; where it is not finite, the mean is the prior's."""
        q = len(self.basis.parts)
        pull = torch.zeros(*self.shape, q, dtype=torch.float64, device=self.network.bounds.device)
        precision = torch.zeros_like(pull)
        for one in sites.values():
            precision, pull = precision + one.precision, pull + one.linear
        between = torch.diag_embed(precision)
        spread = self.basis.spread([between])
        found = self._at(self._solve(spread, pull), spread, between, self.data)
        finite = found.bound.isfinite()
        if bool(finite.all()):
            return found
        zero = self._at(torch.zeros_like(found.u), spread, between, self.data)
        return _each(lambda x, y: torch.where(finite.view(-1, *[1] * (x.ndim - 1)), x, y), found, zero)

    def _at(self, u: Tensor, spread: Spread, precision: Tensor, data: Data) -> At:
        (mean,), covariance = self.basis.to_bins(u), spread.covariance[0]
        around, bound = {}, -JointPosterior(self.basis, u, spread).kl()
        for name, seen in data.items():
            modality = self.network.modality(name)
            own = modality.latents
            between = covariance[..., own[:, None], own]
            one = around[name] = linearise(modality, seen, mean[..., own], between, self.weight[name])
            bound = bound + one.log_density
        return At(u, spread, precision, around, bound)

    def _solve(self, spread: Spread, pull: Tensor) -> Tensor:
        return (spread.inverse @ self.basis.from_bins([pull])[..., None])[..., 0]


def basis_of(network: MultiModalNetwork, n_bins: int) -> Basis:
    """Return the latents on the bins of a trial as mixtures of independent standard normal coordinates."""
    prior = Prior(network.options.settings.kernel, DROPPED)
    time_scale = network.time_scale().detach()
    n_circle = prior.n_circle(n_bins, float(time_scale.max()))
    variances = prior.variances(time_scale.log(), n_circle) * network.prior_sd().detach().square()[:, None]
    return Basis(variances, n_circle, n_bins)


@torch.no_grad()
def posteriors(
    network: MultiModalNetwork, trials: Trials, given: Iterable[str]
) -> Iterator[tuple[Trials, LatentPosterior]]:
    """Yield blocks of trials, which bound the memory, with the posterior of their latents.

    Args:
        given: the modalities from which latents are inferred.
    """
    given = tuple(given)
    if not network.inference.joint:
        yield trials, network.encoded_posterior(trials, given)
        return
    slopes = max(
        x.shape[1] * x.shape[2] * len(network.modality(name).latents) ** 2
        for name, x in trials.values.items()
        if name in network.names
    )
    basis = basis_of(network, trials.n_bins)
    size = max(MOST_VALUES // max(basis.n**2, slopes), 1)
    for first in range(0, trials.n_trials, size):
        block = trials.select(np.arange(first, min(first + size, trials.n_trials)))
        data = network.inputs(block, given)
        inference = JointInference(network, data, (block.n_trials, block.n_bins), basis)
        yield block, inference.posterior(network.sites(data))


@torch.no_grad()
def bounds(network: MultiModalNetwork, trials: Trials, n_samples: int, generator: torch.Generator) -> Tensor:
    """Return the evidence lower bound of each trial at its posterior (trial,), nats, in the data's units.

    Args:
        n_samples: joint samples for the expectation through decoders that are not linear.
        generator: of their noise.
    """
    found = []
    for block, q in posteriors(network, trials, network.names):
        z, bound = q.sample(n_samples, generator), -q.kl()
        for name, data in network.inputs(block, network.names).items():
            modality = network.modality(name)
            own = modality.latents
            if isinstance(q, JointPosterior) and network.has_linear_decoder(name):
                between = q.spread.covariance[0][..., own[:, None], own]
                bound += linearise(modality, data, q.marginals.mean[..., own], between, 1.0).log_density
            else:
                log_prob = modality.likelihood.log_prob(data.target, modality.decoder(z[..., own]))
                bound += masked_sum(log_prob.mean(dim=0), data.observed)
            bound -= (data.observed * modality.scale.log()).sum(dim=(1, 2))
        found.append(bound)
    return torch.cat(found)


def marginals(network: MultiModalNetwork, trials: Trials, given: Iterable[str]) -> Marginals:
    """Return mean and variance of the network's latents in each bin."""
    parts = [q.marginals for _, q in posteriors(network, trials, given)]
    return Marginals(*(torch.cat(part) for part in zip(*parts, strict=True)))


def linearise(
    modality: ModalityNetwork, data: NetworkInput, mean: Tensor, covariance: Tensor, weight: float
) -> Linearised:
    """Return a modality around latents with a mean (N, T, k) and covariance (N, T, k, k)."""
    jacobian = modality.jacobian(mean)
    outer = (jacobian[..., :, None] * jacobian[..., None, :]).flatten(start_dim=-2)
    variance = (covariance.to(outer.dtype).flatten(start_dim=-2)[..., None, :] @ outer.mT)[..., 0, :]
    with torch.enable_grad():
        eta, variance = modality.decoder(mean).detach().requires_grad_(), variance.requires_grad_()
        expected = modality.likelihood.expected_log_prob(data.target, eta, variance)
        total = masked_sum(expected, data.observed)
        by_mean, by_variance = torch.autograd.grad(total.sum(), (eta, variance))
    gradient = (by_mean[..., None, :] @ jacobian)[..., 0, :]
    curvature = (-2 * by_variance).clamp_min(0.0)
    precision = (curvature[..., None, :] @ outer)[..., 0, :].unflatten(-1, covariance.shape[-2:])
    scaled = (weight * x.detach().to(mean.dtype) for x in (total, gradient, precision))
    return Linearised(*scaled)


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector[..., None])[..., 0]


def _put(rows: Tensor, chosen: Tensor, into: Tensor, new: Tensor) -> Tensor:
    return into.index_copy_(0, rows, new[chosen])


def _each(function: Callable[..., Tensor], first: Any, *others: Any) -> Any:
    """Apply a function to each tensor of states of one form."""
    if isinstance(first, Tensor):
        return function(first, *others)
    if isinstance(first, dict):
        return {key: _each(function, one, *(other[key] for other in others)) for key, one in first.items()}
    found = [_each(function, *parts) for parts in zip(first, *others, strict=True)]
    return found if isinstance(first, list) else type(first)(*found)
