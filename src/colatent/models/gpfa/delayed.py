"""Exact log marginal likelihood and posterior of GPFA in which modalities follow latents with delays.

    y_m(t) = C_m z(t - D_m) + d_m + e_m(t)

(Gokcen et al. 2022, doi 10.1038/s43588-022-00282-5, delays between areas). On the circle a delay shifts the
Fourier basis: modality m sees latent k through b(t - D_mk), exactly and for any real D. The coefficients x
have the posterior precision

    S^-1 + sum_m sum_t b(t - D_m) b(t - D_m)' o M_mt,   M_mt = C_m' diag(observed_mt / R_m) C_m,

where ``o`` multiplies each entry by the entry of M_mt for the latents of its row and column. It is factorised
once per observation pattern. The gradient is Fisher's identity, as in `evidence`.

Shapes: K kept coefficients of all latents, N trials of a pattern, T bins, q latents, p channels of one
modality.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from colatent.models.gpfa.padded_trials import PaddedTrials, Pattern
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.prior import Prior
from colatent.models.gpfa.solvers import Kept, kept_coefficients


@dataclass(frozen=True)
class Delays:
    """Where delays can occur.

    Attributes:
        modality: index of each channel's modality (channel,).
        longest: largest absolute delay that the circles must represent, bins.
    """

    modality: np.ndarray
    longest: float


class _View(NamedTuple):
    """One modality in the trials of one pattern.

    Attributes:
        modality: its index.
        channels: its channels.
        value: (T, N, p), zero where not observed.
        observed: (T, p).
        masks: pairs of a mask of observed channels (p,) and the bins that have it.
    """

    modality: int
    channels: Tensor
    value: Tensor
    observed: Tensor
    masks: list[tuple[Tensor, Tensor]]


class _Seen(NamedTuple):
    """What a modality's observations say of the coefficients at given parameters.

    Attributes:
        basis, slope: b(t - D) and its derivative with respect to D (K, T).
        weighted: C' R^-1 (y - d) of the observed channels (T, N, q).
        precision: M for each mask (q, q).
    """

    basis: Tensor
    slope: Tensor
    weighted: Tensor
    precision: list[Tensor]


class DelayedBlock:
    """Trials that differ in length only; the counterpart of `evidence.TrialBlock` for delayed modalities."""

    def __init__(
        self,
        data: PaddedTrials,
        patterns: Sequence[Pattern],
        prior: Prior,
        longest: float,
        n_wanted: int,
        delays: Delays,
    ):
        self.prior = prior
        self.trial = np.concatenate([p.trial for p in patterns])
        n_observed = max(p.n_bins for p in patterns)
        self.n_bins = max(1, n_observed, min(n_wanted, n_observed + prior.extension(longest)))
        # one modality may be late and another early
        self.n_circle = prior.n_circle(self.n_bins + 2 * math.ceil(delays.longest), longest)
        self.modality = torch.as_tensor(delays.modality, device=prior.device)
        self.patterns = [self._views(data, p) for p in patterns]
        self.sizes = [len(p.trial) for p in patterns]

    def _views(self, data: PaddedTrials, pattern: Pattern) -> list[_View]:
        device, n_bins = self.prior.device, pattern.n_bins
        value = torch.as_tensor(data.value[pattern.trial, :n_bins].transpose(1, 0, 2).copy(), device=device)
        observed = torch.as_tensor(data.observed[pattern.trial[0], :n_bins], device=device)
        views = []
        for m in range(int(self.modality.max()) + 1):
            channels = (self.modality == m).nonzero().ravel()
            own = observed[:, channels]
            distinct, row = torch.unique(own, dim=0, return_inverse=True)
            masks = [
                (mask.to(value.dtype), (row == j).nonzero().ravel())
                for j, mask in enumerate(distinct)
                if mask.any()
            ]
            if masks:
                views.append(_View(m, channels, value[:, :, channels], own.to(value.dtype), masks))
        return views

    def posterior_mean(self, parameters: Parameters) -> Tensor:
        """Return the posterior mean of the coefficients (F, q, N)."""
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        return self._mean(parameters, variances, None)

    def bin_covariance(self, parameters: Parameters, n_bins: int, modality: int = 0) -> Tensor:
        """Return the latents' posterior covariance within each of the first bins (N, n_bins, q, q).

        At the times at which ``modality`` sees the latents.
        """
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        kept = kept_coefficients(variances)
        latent, _, root = kept
        wanted = root[:, None] * self._basis(parameters, modality, kept[:2], n_bins)[0]
        per_latent = [wanted * (latent == k)[:, None] for k in range(len(variances))]
        right = torch.stack(per_latent, dim=-1).flatten(1)
        out = []
        for views, size in zip(self.patterns, self.sizes, strict=True):
            factor, _, _ = self._factor(views, parameters, kept)
            half = torch.linalg.solve_triangular(factor, right, upper=False)
            half = half.view(len(root), n_bins, -1)
            out.append(torch.einsum("itk,itl->tkl", half, half).expand(size, -1, -1, -1))
        return torch.cat(out)

    def at_bins(self, coefficients: Tensor, parameters: Parameters, n_bins: int, modality: int = 0) -> Tensor:
        """Return the latents (n_bins, q, N) as ``modality`` sees them, from coefficients (F, q, N)."""
        n_coef, q, _ = coefficients.shape
        coef, latent = (
            i.ravel() for i in torch.meshgrid(torch.arange(n_coef), torch.arange(q), indexing="ij")
        )
        basis = self._basis(parameters, modality, (latent, coef), n_bins)[0].view(n_coef, q, -1)
        return torch.einsum("fqt,fqn->tqn", basis, coefficients)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Tensor:
        """Return one posterior sample of the coefficients (F, q, N), by Matheron's rule."""
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        shape = (variances.shape[1], len(variances), len(self.trial))
        prior = torch.randn(shape, generator=generator, dtype=torch.float64) * variances.T.sqrt()[:, :, None]
        return prior + self._mean(parameters, variances, (prior, generator))

    def evaluate(self, parameters: Parameters) -> tuple[Tensor, Parameters]:
        """Return the negative log marginal likelihood (nats) and its gradient."""
        s, s_slope = self.prior.variances_and_slope(parameters.log_time_scale, self.n_circle)
        kept = kept_coefficients(s)
        latent, coef, root = kept
        gradient = Parameters(*(torch.zeros_like(p) for p in parameters))
        value = s.new_zeros(())
        relevance = torch.zeros_like(root)
        member = torch.nn.functional.one_hot(latent, len(s)).to(s.dtype)
        for views, size in zip(self.patterns, self.sizes, strict=True):
            factor, seen, grams = self._factor(views, parameters, kept)
            natural = self._natural(seen, kept)
            inverse = torch.cholesky_inverse(factor)
            u = inverse @ natural
            value += size * factor.diagonal().log().sum() - 0.5 * (natural * u).sum()
            second = inverse.mul_(size).addmm_(u, u.T)
            relevance += second.diagonal()
            second *= root[:, None] * root
            x = root[:, None] * u
            for view, of_view, gram in zip(views, seen, grams, strict=True):
                value += _add_to(gradient, view, of_view, gram, parameters, member, x, second)
        full = s.new_full(s.shape, float(len(self.trial)))
        full[latent, coef] = relevance
        shrink = torch.where(s > 0, 0.5 * (len(self.trial) - full) / s.clamp_min(1e-300), 0.0)
        return value, gradient._replace(log_time_scale=(shrink * s_slope).sum(1))

    def _mean(
        self, parameters: Parameters, variances: Tensor, drawn: tuple[Tensor, torch.Generator] | None
    ) -> Tensor:
        """Posterior mean of the coefficients, given the data or the data less those simulated from a draw."""
        kept = kept_coefficients(variances)
        latent, coef, root = kept
        mean = variances.new_zeros(variances.shape[1], len(variances), len(self.trial))
        start = 0
        for views, size in zip(self.patterns, self.sizes, strict=True):
            factor, seen, _ = self._factor(views, parameters, kept)
            column = slice(start, start + size)
            if drawn is not None:
                prior, generator = drawn
                x = prior[coef, latent, column]
                seen = [
                    s._replace(weighted=s.weighted - _simulated(v, s, parameters, latent, x, generator))
                    for v, s in zip(views, seen, strict=True)
                ]
            solved = torch.cholesky_solve(self._natural(seen, kept), factor)
            mean[coef, latent, column] = root[:, None] * solved
            start += size
        return mean

    def _factor(
        self, views: list[_View], parameters: Parameters, kept: Kept
    ) -> tuple[Tensor, list[_Seen], list[list[Tensor]]]:
        """Return the Cholesky factor of A (see `solvers`), what is seen, and b b' summed over each mask."""
        latent, _, root = kept
        a = root.new_zeros(len(root), len(root))
        seen, grams = [], []
        for view in views:
            of_view = self._seen(view, parameters, kept)
            own = []
            for (_, bins), precision in zip(view.masks, of_view.precision, strict=True):
                at = of_view.basis[:, bins]
                own.append(at @ at.T)
                a += own[-1] * precision[latent[:, None], latent]
            seen.append(of_view)
            grams.append(own)
        a *= root[:, None] * root
        a.diagonal().add_(1.0)
        return torch.linalg.cholesky(a), seen, grams

    def _seen(self, view: _View, parameters: Parameters, kept: Kept) -> _Seen:
        loading = parameters.loading[view.channels]
        sigma = (0.5 * parameters.log_noise[view.channels]).exp()
        weight = loading / sigma[:, None]
        weighted = view.value @ weight
        weighted -= (view.observed @ (weight * parameters.offset[view.channels][:, None]))[:, None]
        precision = [(loading * mask[:, None]).T @ loading for mask, _ in view.masks]
        basis, slope = self._basis(parameters, view.modality, kept[:2], len(view.value))
        return _Seen(basis, slope, weighted, precision)

    def _basis(
        self, parameters: Parameters, modality: int, index: tuple[Tensor, Tensor], n_bins: int
    ) -> tuple[Tensor, Tensor]:
        """Return b(t - D) at the first bins and its derivative by D (K, T), for (latent, coefficient)."""
        latent, coef = index
        frequency = (2 * math.pi / self.n_circle) * torch.div(coef + 1, 2, rounding_mode="floor")
        time = torch.arange(n_bins, dtype=torch.float64, device=self.prior.device)
        delay = parameters.delay[modality]
        phase = frequency[:, None] * (time - delay[latent][:, None])
        cosine, sine = torch.cos(phase), torch.sin(phase)
        is_cosine = (coef % 2 == 1)[:, None]
        scale = math.sqrt(2 / self.n_circle)
        basis = torch.where(is_cosine, cosine, sine) * scale
        basis[coef == 0] = math.sqrt(1 / self.n_circle)
        slope = torch.where(is_cosine, sine, -cosine) * frequency[:, None] * scale
        slope[coef == 0] = 0.0
        return basis, slope

    @staticmethod
    def _natural(seen: list[_Seen], kept: Kept) -> Tensor:
        """D h of the kept coefficients (K, N)."""
        latent, _, root = kept
        rows = []
        for k in range(int(latent.max()) + 1):
            own = latent == k
            rows.append(sum(s.basis[own] @ s.weighted[:, :, k] for s in seen))
        return root[:, None] * torch.cat([row for row in rows if isinstance(row, Tensor)])


def _by_latent(basis: Tensor, x: Tensor, latent_of: Tensor) -> Tensor:
    """Return b' x summed over the coefficients of each latent, (T, N, q)."""
    return torch.stack([basis[own].T @ x[own] for own in latent_of.T.bool()], dim=-1)


def _add_to(
    gradient: Parameters,
    view: _View,
    seen: _Seen,
    grams: list[Tensor],
    parameters: Parameters,
    member: Tensor,
    x: Tensor,
    second: Tensor,
) -> Tensor:
    """Add a modality's part of the gradient in place, and return its part of the value.

    Args:
        member: whether a coefficient belongs to a latent (K, q).
        x: posterior means of the coefficients (K, N).
        second: sum over trials of E[x x'] (K, K).
    """
    c = view.channels
    loading, offset = parameters.loading[c], parameters.offset[c]
    sigma = (0.5 * parameters.log_noise[c]).exp()
    n_trials = x.shape[1]
    latents = _by_latent(seen.basis, x, member)  # (T, N, q)
    count = n_trials * view.observed.sum(0)
    total, square = view.value.sum((0, 1)), torch.einsum("tnp,tnp->p", view.value, view.value)
    residual = (square - 2 * offset * total + offset**2 * count) / sigma**2
    mask_mean = view.observed.T @ latents.sum(1)
    y_mean = torch.einsum("tnp,tnq->pq", view.value, latents)
    cross = (y_mean - offset[:, None] * mask_mean) / sigma[:, None]
    by_loading = -cross
    by_delay = -(seen.weighted * _by_latent(seen.slope, x, member)).sum((0, 1))
    for (mask, bins), gram, precision in zip(view.masks, grams, seen.precision, strict=True):
        scatter = member.T @ (gram * second) @ member
        by_loading += mask[:, None] * (loading @ scatter)
        moved = member.T @ (seen.slope[:, bins] @ seen.basis[:, bins].T * second) @ member
        by_delay += (precision * moved).sum(1)
    gradient.loading[c] += by_loading
    gradient.log_noise[c] += 0.5 * (count - residual + (loading * cross).sum(1))
    gradient.offset[c] += (loading * mask_mean).sum(1) / sigma - (total - offset * count) / sigma**2
    gradient.delay[view.modality] += by_delay
    return 0.5 * (residual + count * (parameters.log_noise[c] + math.log(2 * math.pi))).sum()


def _simulated(
    view: _View, seen: _Seen, parameters: Parameters, latent: Tensor, x: Tensor, generator: torch.Generator
) -> Tensor:
    """Return C' R^-1 (y - d) of data simulated from coefficients x (K, N), (T, N, q)."""
    loading = parameters.loading[view.channels]
    member = torch.nn.functional.one_hot(latent, loading.shape[1])
    y = _by_latent(seen.basis, x, member) @ loading.T
    y += torch.randn(y.shape, generator=generator, dtype=y.dtype)
    return (y * view.observed[:, None]) @ loading
