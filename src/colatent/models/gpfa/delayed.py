"""Exact log marginal likelihood and posterior of GPFA in which modalities follow latents with delays.

    y_m(t) = C_m z(t - D_m) + d_m + e_m(t)

(Gokcen et al. 2022, doi 10.1038/s43588-022-00282-5, delays between areas). On the circle a delay shifts the
Fourier basis: modality m sees latent k through b(t - D_mk), exactly and for any real D. The coefficients x
have the posterior precision

    S^-1 + sum_m sum_t b(t - D_m) b(t - D_m)' o M_mt,   M_mt = C_m' diag(observed_mt / R_m) C_m,

where ``o`` multiplies each entry by the entry of M_mt for the latents of its row and column. As in
`scattered`, it is factorised once per observation pattern. The gradient is Fisher's identity, as in
`evidence`.

Shapes: G patterns, K kept coefficients of all latents, N trials, T bins, q latents, p channels of one
modality, J masks of its channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from colatent.models.gp import shifted_basis
from colatent.models.gpfa.padded_trials import PaddedTrials, Pattern
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.prior import Prior
from colatent.models.gpfa.scattered import batches, blocks_at, trial_columns, weighted_gram
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
    """One modality of a block.

    Attributes:
        modality: its index.
        channels: its channels.
        value: (T, N, p), zero where not observed.
        masks: distinct masks of observed channels (J, p).
        mask_of_bin: mask of each bin (G, T).
    """

    modality: int
    channels: Tensor
    value: Tensor
    masks: Tensor
    mask_of_bin: Tensor


class _Seen(NamedTuple):
    """What a modality's observations say of the coefficients at given parameters.

    Attributes:
        x, slope: S^1/2 b(t - D) and its derivative by D (T, K).
        weighted: C' R^-1 (y - d) of the observed channels (T, N, q).
        precision: M for each mask (J, q, q).
    """

    x: Tensor
    slope: Tensor
    weighted: Tensor
    precision: Tensor


class DelayedBlock:
    """Trials whose modalities are delayed; the counterpart of `evidence.TrialBlock`."""

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
        apart = 2 * math.ceil(delays.longest)  # one modality may be late and another early
        n_reached = n_observed + prior.extension(longest) + apart
        self.n_bins = max(1, n_observed, min(n_wanted, n_reached))
        self.n_circle = prior.n_circle(self.n_bins + apart, longest)
        self.size = torch.tensor([len(p.trial) for p in patterns], device=prior.device)
        self.column = trial_columns(self.size)
        self.pattern = torch.arange(len(patterns), device=prior.device).repeat_interleave(self.size)
        value = data.value[self.trial, :n_observed].transpose(1, 0, 2)
        observed = data.observed[[p.trial[0] for p in patterns], :n_observed]
        self.views = [
            self._view(m, np.flatnonzero(delays.modality == m), value, observed)
            for m in range(int(delays.modality.max()) + 1)
        ]

    def _view(self, modality: int, channels: np.ndarray, value: np.ndarray, observed: np.ndarray) -> _View:
        device = self.prior.device
        own = torch.as_tensor(observed[..., channels], device=device)
        masks, row = torch.unique(own.flatten(0, 1), dim=0, return_inverse=True)
        return _View(
            modality,
            torch.as_tensor(channels, device=device),
            torch.as_tensor(np.ascontiguousarray(value[..., channels]), device=device),
            masks.to(torch.float64),
            row.view(own.shape[:2]),
        )

    def posterior_mean(self, parameters: Parameters) -> Tensor:
        """Return the posterior mean of the coefficients (F, q, N)."""
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        kept = kept_coefficients(variances)
        return self._mean(parameters, variances, [self._seen(v, parameters, kept) for v in self.views])

    def bin_covariance(self, parameters: Parameters, n_bins: int, modality: int = 0) -> Tensor:
        """Return the latents' posterior covariance within each of the first bins (N, n_bins, q, q).

        At the times at which ``modality`` sees the latents.
        """
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        kept = kept_coefficients(variances)
        latent, _, root = kept
        seen = [self._seen(v, parameters, kept) for v in self.views]
        wanted = self._basis(parameters, modality, kept[:2], n_bins)[0] * root
        out = []
        for group in batches(len(self.size), max(n_bins, len(seen[0].x)), len(root)):
            inverse = torch.cholesky_inverse(self._factor(group, seen, latent))
            out.append(blocks_at(inverse, wanted, wanted, latent, len(variances)))
        return torch.cat(out)[self.pattern]

    def at_bins(self, coefficients: Tensor, parameters: Parameters, n_bins: int, modality: int = 0) -> Tensor:
        """Return the latents (n_bins, q, N) as ``modality`` sees them, from coefficients (F, q, N)."""
        n_coef, q, _ = coefficients.shape
        coef, latent = (
            i.ravel() for i in torch.meshgrid(torch.arange(n_coef), torch.arange(q), indexing="ij")
        )
        basis = self._basis(parameters, modality, (latent, coef), n_bins)[0].view(n_bins, n_coef, q)
        return torch.einsum("tfq,fqn->tqn", basis, coefficients)

    def sample(self, parameters: Parameters, generator: torch.Generator) -> Tensor:
        """Return one posterior sample of the coefficients (F, q, N), by Matheron's rule."""
        variances = self.prior.variances(parameters.log_time_scale, self.n_circle)
        kept = kept_coefficients(variances)
        latent, coef, _ = kept
        shape = (variances.shape[1], len(variances), len(self.trial))
        white = torch.randn(shape, generator=generator, dtype=torch.float64)
        seen = []
        for view in self.views:
            own = self._seen(view, parameters, kept)
            loading = parameters.loading[view.channels]
            y = _by_latent(own.x, white[coef, latent], latent, len(variances)) @ loading.T
            y += torch.randn(y.shape, generator=generator, dtype=y.dtype)
            y *= view.masks[view.mask_of_bin][self.pattern].transpose(0, 1)
            seen.append(own._replace(weighted=own.weighted - y @ loading))
        return white * variances.T.sqrt()[:, :, None] + self._mean(parameters, variances, seen)

    def evaluate(self, parameters: Parameters) -> tuple[Tensor, Parameters]:
        """Return the negative log marginal likelihood (nats) and its gradient."""
        s, s_slope = self.prior.variances_and_slope(parameters.log_time_scale, self.n_circle)
        kept = kept_coefficients(s)
        latent, coef, root = kept
        n_trials, q = len(self.trial), len(s)
        seen = [self._seen(v, parameters, kept) for v in self.views]
        natural = torch.nn.functional.pad(_natural(seen, latent), (0, 1))
        whitened = torch.zeros_like(natural)
        relevance, log_det = torch.zeros_like(root), s.new_zeros(())
        scatter = [torch.zeros_like(one.precision) for one in seen]  # sum of E[z z'] by mask
        moved = [torch.zeros_like(one.precision) for one in seen]  # the same with dz/dD on the left
        for group in batches(len(self.size), *seen[0].x.shape):
            factor = self._factor(group, seen, latent)
            column, size = self.column[group], self.size[group]
            u = torch.cholesky_solve(natural[:, column].transpose(0, 1), factor)  # (G, K, N of each)
            whitened[:, column] = u.transpose(0, 1)
            log_det += 2 * (size * factor.diagonal(dim1=1, dim2=2).log().sum(1)).sum()
            second = torch.cholesky_inverse(factor).mul_(size[:, None, None]).baddbmm_(u, u.mT)
            relevance += second.diagonal(dim1=1, dim2=2).sum(0)
            for view, one, by_mask, slope_by_mask in zip(self.views, seen, scatter, moved, strict=True):
                mask = view.mask_of_bin[group].flatten()
                by_mask.index_add_(0, mask, blocks_at(second, one.x, one.x, latent, q).flatten(0, 1))
                if view.modality:  # the first is never delayed
                    left = blocks_at(second, one.slope, one.x, latent, q)
                    slope_by_mask.index_add_(0, mask, left.flatten(0, 1))
        x = whitened[:, :-1]
        value = 0.5 * (log_det - (natural[:, :-1] * x).sum())
        gradient = Parameters(*(torch.zeros_like(p) for p in parameters))
        for view, one, *sums in zip(self.views, seen, scatter, moved, strict=True):
            latents = _by_latent(one.x, x, latent, q)
            value += self._add_to(gradient, view, one, parameters, latents, sums[0])
            by_delay = (one.weighted * _by_latent(one.slope, x, latent, q)).sum((0, 1))
            gradient.delay[view.modality] -= by_delay - (one.precision * sums[1]).sum((0, 2))
        full = s.new_full(s.shape, float(n_trials))
        full[latent, coef] = relevance
        shrink = torch.where(s > 0, 0.5 * (n_trials - full) / s.clamp_min(1e-300), 0.0)
        return value, gradient._replace(log_time_scale=(shrink * s_slope).sum(1))

    def _add_to(
        self,
        gradient: Parameters,
        view: _View,
        seen: _Seen,
        parameters: Parameters,
        latents: Tensor,
        scatter: Tensor,
    ) -> Tensor:
        """Add a modality's part to all but the delay's gradient, in place; return its part of the value.

        Args:
            latents: posterior means of the latents (T, N, q).
            scatter: sum of E[z z'] over the bins of each mask (J, q, q).
        """
        c = view.channels
        loading, offset = parameters.loading[c], parameters.offset[c]
        sigma = (0.5 * parameters.log_noise[c]).exp()
        observed = view.masks[view.mask_of_bin]  # (G, T, p)
        count = self.size.to(observed.dtype) @ observed.sum(1)
        total, square = view.value.sum((0, 1)), torch.einsum("tnp,tnp->p", view.value, view.value)
        residual = (square - 2 * offset * total + offset**2 * count) / sigma**2
        by_pattern = torch.zeros(len(self.size), *latents[:, 0].shape, dtype=latents.dtype, device=c.device)
        by_pattern.index_add_(0, self.pattern, latents.transpose(0, 1))
        mask_mean = torch.einsum("gtp,gtq->pq", observed, by_pattern)
        cross = torch.einsum("tnp,tnq->pq", view.value, latents) - offset[:, None] * mask_mean
        cross /= sigma[:, None]
        by_channel = torch.einsum("jp,jkl->pkl", view.masks, scatter)
        gradient.loading[c] += (by_channel @ loading[:, :, None]).squeeze(2) - cross
        gradient.log_noise[c] += 0.5 * (count - residual + (loading * cross).sum(1))
        gradient.offset[c] += (loading * mask_mean).sum(1) / sigma - (total - offset * count) / sigma**2
        return 0.5 * (residual + count * (parameters.log_noise[c] + math.log(2 * math.pi))).sum()

    def _mean(self, parameters: Parameters, variances: Tensor, seen: list[_Seen]) -> Tensor:
        """Posterior mean of the coefficients (F, q, N)."""
        latent, coef, root = kept_coefficients(variances)
        natural = torch.nn.functional.pad(_natural(seen, latent), (0, 1))
        for group in batches(len(self.size), *seen[0].x.shape):
            column, factor = self.column[group], self._factor(group, seen, latent)
            solved = torch.cholesky_solve(natural[:, column].transpose(0, 1), factor)
            natural[:, column] = solved.transpose(0, 1)
        mean = variances.new_zeros(variances.shape[1], len(variances), len(self.trial))
        mean[coef, latent] = root[:, None] * natural[:, :-1]
        return mean

    def _factor(self, group: slice, seen: list[_Seen], latent: Tensor) -> Tensor:
        """Cholesky factors of A (G, K, K), see `solvers`."""
        parts = (
            weighted_gram(one.x, one.precision[view.mask_of_bin[group]], latent)
            for view, one in zip(self.views, seen, strict=True)
        )
        a = next(parts)
        for part in parts:
            a += part
        a.diagonal(dim1=1, dim2=2).add_(1.0)
        return torch.linalg.cholesky(a)

    def _seen(self, view: _View, parameters: Parameters, kept: Kept) -> _Seen:
        loading = parameters.loading[view.channels]
        weight = loading / (0.5 * parameters.log_noise[view.channels]).exp()[:, None]
        constant = view.masks @ (weight * parameters.offset[view.channels][:, None])  # (J, q)
        weighted = view.value @ weight
        weighted -= constant[view.mask_of_bin][self.pattern].transpose(0, 1)
        precision = torch.einsum("jp,pk,pl->jkl", view.masks, loading, loading)
        basis, slope = self._basis(parameters, view.modality, kept[:2], len(view.value))
        return _Seen(basis * kept[2], slope * kept[2], weighted, precision)

    def _basis(
        self, parameters: Parameters, modality: int, index: tuple[Tensor, Tensor], n_bins: int
    ) -> tuple[Tensor, Tensor]:
        """Return b(t - D) at the first bins and its derivative by D (T, K), for (latent, coefficient)."""
        latent, coef = index
        return shifted_basis(self.n_circle, n_bins, coef, parameters.delay[modality][latent])


def _natural(seen: list[_Seen], latent: Tensor) -> Tensor:
    """D h of the kept coefficients (K, N), which are ordered by latent."""
    rows = []
    for k in range(int(latent.max()) + 1):
        of_latent = [one.x[:, latent == k].T @ one.weighted[:, :, k] for one in seen]
        rows.append(torch.stack(of_latent).sum(0))
    return torch.cat(rows)


def _by_latent(x: Tensor, coefficients: Tensor, latent: Tensor, n_latents: int) -> Tensor:
    """Return the latents (T, N, q) of whitened coefficients (K, N)."""
    return torch.stack([x[:, latent == k] @ coefficients[latent == k] for k in range(n_latents)], dim=-1)
