"""Gaussian variational posterior of GPFA with one site per bin and channel.

Modality m is driven by C_m z(t - D_m) + d_m. On the circle a delay shifts the Fourier basis of its latents,
see `delayed`.

The posterior has one covariance for a set of trials, and a mean for each trial. Where each trial is a set of
its own, it is the best Gaussian posterior. A fit takes the trials with the same observed bins and channels
as a set: one covariance matrix is inverted for all, and the bound is lower by what the trials' covariances
differ.

Shapes: N trials, G sets, T bins, p channels of one modality, q latents, n coordinates of all latents
together, see `Basis`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from colatent.data.likelihoods import Expectation, SiteLikelihood
from colatent.models.gpfa.coordinates import Alike, Basis, Spread, sum_of
from colatent.models.gpfa.parameters import Parameters

_MAX_ITERATIONS = 50
_SMALLEST_STEP = 1e-6
# Newton steps are exact up to this share, by at most so many conjugate directions.
_INEXACT = 0.05
_MAX_CONJUGATE = 20


class Observations(NamedTuple):
    """What was observed of one modality.

    Attributes:
        channels: its channels among all.
        likelihood: of its observations given the predictor.
        value: (N, T, p), zero where not observed.
        observed: 1 or 0 (N, T, p).
        complete: whether all of it is 1.
    """

    channels: slice
    likelihood: SiteLikelihood
    value: Tensor
    observed: Tensor
    complete: bool


class SiteData(NamedTuple):
    """What a posterior is inferred from.

    Attributes:
        modalities: the observations of each.
        alike: sets of trials that share a covariance; their bins and channels are observed alike.
        log_base: the part of the log density that depends on the observations alone (N,).
    """

    modalities: list[Observations]
    alike: Alike
    log_base: Tensor

    @classmethod
    def of(cls, modalities: list[Observations], kind: Tensor) -> "SiteData":
        """Return observations of trials, those of equal ``kind`` with one covariance."""
        base = sum_of((one.observed * one.likelihood.log_base(one.value)).sum((1, 2)) for one in modalities)
        return cls(modalities, Alike.of(kind), base)


class CountSites(NamedTuple):
    """Factors exp(slope * eta - precision * eta^2 / 2), eta without its offset: (N, T, p) and (G, T, p)."""

    slope: Tensor
    precision: Tensor


class SitePosterior(NamedTuple):
    """The posterior at given coordinates and precisions, and the bound.

    Attributes:
        u: mean of the coordinates (N, n).
        precision: of the sites of each modality (G, T, p).
        mean: of the latents as each modality sees them (N, T, q).
        spread: their covariance.
        eta: mean of C z of each modality (N, T, p).
        expectation: of each modality's log density, where observed.
        elbo: evidence lower bound (N,), nats.
    """

    u: Tensor
    precision: list[Tensor]
    mean: list[Tensor]
    spread: Spread
    eta: list[Tensor]
    expectation: list[Expectation]
    elbo: Tensor


class SiteInference:
    """Inference of the latents of some trials at given parameters."""

    def __init__(self, data: SiteData, parameters: Parameters, basis: Basis):
        self.data, self.parameters, self.basis = data, parameters, basis
        self.loadings = [parameters.loading[one.channels] for one in data.modalities]
        self.outer = [(c[:, :, None] * c[:, None, :]).flatten(1) for c in self.loadings]

    def at(self, u: Tensor, precision: list[Tensor]) -> SitePosterior:
        """Return the posterior with a mean and site precisions; its bound holds whatever they are."""
        return self._at(u, precision, self.basis.spread(self._of_latents(precision)))

    def _at(self, u: Tensor, precision: list[Tensor], spread: Spread) -> SitePosterior:
        mean = self._by_modality(self.basis.to_bins(u))
        etas, expectations = [], []
        elbo = self.data.log_base - 0.5 * (u**2).sum(1) - spread.kl[self.data.alike.kind]
        for one, loading, z, variance in zip(
            self.data.modalities, self.loadings, mean, self.variance(spread), strict=True
        ):
            eta = z @ loading.T
            offset, log_scale = self.parameters.offset[one.channels], self.parameters.log_noise[one.channels]
            e = one.likelihood.expectation(one.value, eta + offset, variance, log_scale)
            expected = e if one.complete else Expectation(*(part * one.observed for part in e))
            elbo = elbo + expected.log_density.sum((1, 2))
            etas.append(eta)
            expectations.append(expected)
        return SitePosterior(u, precision, mean, spread, etas, expectations, elbo)

    def variance(self, spread: Spread) -> list[Tensor]:
        """Return the posterior variance of C z of each modality (N, T, p)."""
        covariance = self._by_modality(spread.covariance)
        kind = self.data.alike.kind
        return [(c.flatten(2) @ outer.T)[kind] for c, outer in zip(covariance, self.outer, strict=True)]

    def start(self, sites: Sequence[CountSites] | None) -> SitePosterior:
        """Return the posterior that sites define, by default those of a predictor equal to the offsets.

        The precision of the latter is raised so that no count implies a step larger than 1: from a low rate,
        a Newton step towards a high count would overshoot far.
        """
        if sites is not None:
            found = self._of_sites(sites)
            if found.elbo.isfinite().all():  # else the sites came from other parameters
                return found
        sites = []
        for one in self.data.modalities:
            zero = torch.zeros_like(one.value)
            offset, log_scale = self.parameters.offset[one.channels], self.parameters.log_noise[one.channels]
            e = one.likelihood.expectation(one.value, zero + offset, zero, log_scale)
            raised = e.curvature + e.slope.abs() if one.likelihood.discrete else e.curvature
            sites.append(CountSites(one.observed * e.slope, self.data.alike.average(one.observed * raised)))
        found = self._of_sites(sites)
        # the precision of a set is too low for its trials of the highest counts: they start from the offsets
        calm = self.at(torch.zeros_like(found.u), found.precision)
        better = found.elbo > calm.elbo  # False for NaN
        return found if bool(better.all()) else self.at(found.u * better[:, None], found.precision)

    def _of_sites(self, sites: Sequence[CountSites]) -> SitePosterior:
        precision = [site.precision for site in sites]
        spread = self.basis.spread(self._of_latents(precision))
        h = self.basis.from_bins([s.slope @ c for s, c in zip(sites, self.loadings, strict=True)])
        return self._at(self._solve(spread.inverse, h), precision, spread)

    def sites(self, at: SitePosterior) -> list[CountSites]:
        """Return the sites that the posterior implies; of the optimum, those that define it."""
        kind = self.data.alike.kind
        return [
            CountSites(e.slope + precision[kind] * eta, precision)
            for e, eta, precision in zip(at.expectation, at.eta, at.precision, strict=True)
        ]

    def optimum(self, at: SitePosterior, tolerance: float) -> SitePosterior:
        """Iterate to the best posterior, halving the step of trials whose bound would fall.

        Stops when no set of trials gains more than ``tolerance`` nats per observation.
        """
        alike = self.data.alike
        n_observed = sum_of(one.observed.sum((1, 2)) for one in self.data.modalities)
        min_gain = tolerance * n_observed.clamp_min(1.0)
        step = torch.ones_like(n_observed)
        for _ in range(_MAX_ITERATIONS):
            u = at.u + step[:, None] * self._newton_step(at)
            common = alike.average(step)[:, None, None]
            implied = [alike.average(e.curvature) for e in at.expectation]
            precision = [a + common * (b - a) for a, b in zip(at.precision, implied, strict=True)]
            candidate = self.at(u, precision)
            gain = candidate.elbo - at.elbo
            # a set gains as a whole: its covariance is a compromise between trials
            if bool((alike.total(gain) >= -alike.total(min_gain)).all()):  # False for NaN
                at = candidate
                if bool((alike.total(gain) <= alike.total(min_gain)).all()):
                    break
                step = torch.clamp(step * 2, max=1.0)
            else:
                step = torch.where(gain >= -min_gain, step, step / 2)
                if float(step.min()) < _SMALLEST_STEP:
                    break
        return at

    def _newton_step(self, at: SitePosterior) -> Tensor:
        """Return a Newton step of the means (N, n), by conjugate gradients.

        The preconditioner is the posterior's covariance, the inverse of the Hessian but for what the
        precisions of a set's trials differ.
        """
        curvature = self._of_latents([e.curvature for e in at.expectation])
        if len(self.basis.rows) == 1:
            curvature = [sum_of(curvature)]
        slope = [e.slope @ c for e, c in zip(at.expectation, self.loadings, strict=True)]
        residual = self.basis.from_bins(slope) - at.u
        solved = self._solve(at.spread.inverse, residual)
        direction, step = solved, torch.zeros_like(residual)
        size = first = (residual * solved).sum(1)
        for _ in range(_MAX_CONJUGATE):
            bins = self.basis.to_bins(direction)
            bent = [(c @ z[..., None])[..., 0] for c, z in zip(curvature, bins, strict=True)]
            product = direction + self.basis.from_bins(bent)
            length = size / (direction * product).sum(1).clamp_min(1e-300)
            step = step + length[:, None] * direction
            residual = residual - length[:, None] * product
            solved = self._solve(at.spread.inverse, residual)
            before, size = size, (residual * solved).sum(1)
            if bool((size <= _INEXACT**2 * first).all()):
                break
            direction = solved + (size / before.clamp_min(1e-300))[:, None] * direction
        return step

    def _solve(self, inverse: Tensor, h: Tensor) -> Tensor:
        if len(inverse) == 1:
            return h @ inverse[0]
        own = inverse if self.data.alike.apart else inverse[self.data.alike.kind]
        return torch.bmm(own, h[:, :, None])[:, :, 0]

    def _of_latents(self, precision: Sequence[Tensor]) -> list[Tensor]:
        """Return what sites say of the latents of a bin (…, T, q, q)."""
        q = self.parameters.loading.shape[1]
        return [(p @ outer).unflatten(2, (q, q)) for p, outer in zip(precision, self.outer, strict=True)]

    def _by_modality(self, views: list[Tensor]) -> list[Tensor]:
        return views if len(views) > 1 else views * len(self.data.modalities)

    def gradient(self, at: SitePosterior, prior: tuple[Tensor, Tensor]) -> Parameters:
        """Return the gradient of the bound, summed over trials, at the best posterior.

        Args:
            at: the best posterior.
            prior: variances S (q, F) and their derivatives with respect to the log time scales (q, F).
        """
        gradient = Parameters(*(torch.zeros_like(p) for p in self.parameters))
        q, delays = self.parameters.loading.shape[1], len(self.parameters.delay) > 1
        alike, covariances = self.data.alike, self._by_modality(at.spread.covariance)
        for m, (one, expected) in enumerate(zip(self.data.modalities, at.expectation, strict=True)):
            c, loading = one.channels, self.loadings[m]
            curvature = alike.total(expected.curvature)
            flat = curvature.flatten(0, 1).T @ covariances[m].reshape(-1, q * q)
            spread = (flat.unflatten(1, (q, q)) @ loading[:, :, None])[:, :, 0]
            gradient.loading[c] = expected.slope.flatten(0, 1).T @ at.mean[m].reshape(-1, q) - spread
            gradient.offset[c] = expected.slope.sum((0, 1))
            gradient.log_noise[c] = expected.scale_slope.sum((0, 1))
            if m and delays:
                mean, covariance = self.basis.moved(m, at.u, at.spread)
                by_mean = ((expected.slope @ loading) * mean).sum((0, 1))
                precision = (curvature @ self.outer[m]).unflatten(2, (q, q))
                gradient.delay[m] = by_mean - (precision * covariance).sum((0, 1, 3))
        variances, variance_slope = prior
        by_log_variance = torch.zeros_like(variances)
        relevances = self.basis.relevance(at.u, at.spread, alike)
        for row, relevance in zip(by_log_variance, relevances, strict=True):
            row[: len(relevance)] = 0.5 * (relevance - len(at.u))
        weight = torch.where(variances > 0, by_log_variance / variances.clamp_min(1e-300), 0.0)
        return gradient._replace(log_time_scale=(weight * variance_slope).sum(1))
