"""Initial parameters for several modalities, from canonical correlations between factor scores.

Factor analysis of each modality gives scores with unit prior variance. Their cross-covariance between
modalities contains what is shared: noise is independent between modalities. One shared latent after the other is the
direction with the largest cross-covariance, at its best lag if delays are to be found (canonical correlations,
Hotelling 1936; for more than two modalities all against the first). What remains of a modality's scores are
its private latents.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from colatent.models.gpfa.fit import FitProblem, factor_analysis, lagged_rotation, time_scales
from colatent.models.gpfa.padded_trials import PaddedTrials
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.structure import Structure

Array = NDArray[np.float64]

_LAGS = 10  # for time scales, as in the start of a single modality
# Loadings (in noise units) of a latent in a modality that has fewer channels than latents.
_FAINT = 0.1


class _Factors(NamedTuple):
    """Factor analysis of one modality.

    Attributes:
        channels: its channels.
        loading, noise: of the standardised channels (p, factor), (p,).
        score: (trial, time, factor), zero where nothing was observed.
        seen: bins with observations (trial, time).
    """

    channels: NDArray[np.intp]
    loading: Array
    noise: Array
    score: Array
    seen: NDArray[np.bool_]


def shared_start(data: PaddedTrials, structure: Structure, kernel: str, problem: FitProblem) -> Parameters:
    """Return initial parameters for standardised trials of several modalities."""
    n_channels, q = structure.support.shape
    factors = [_factors(data, structure, m, problem) for m in range(len(structure.drives))]
    loading, noise = np.zeros((n_channels, q)), np.ones(n_channels)
    delay = np.zeros(structure.drives.shape)
    left = [np.eye(f.loading.shape[1]) for f in factors]  # directions of scores not yet used
    direction: dict[tuple[int, int], Array] = {}
    groups = sorted(structure.groups, key=lambda g: -structure.drives[:, g[0]].sum())
    for group in groups:
        members = np.flatnonzero(structure.drives[:, group[0]])
        if len(members) == 1:
            continue
        for k in group:
            found, lags = _most_shared(factors, left, members, round(structure.longest_delay))
            for m, vector, lag in zip(members, found, lags, strict=True):
                delay[m, k] = lag
                if vector is not None:
                    direction[m, k] = vector
                    left[m] = _without(left[m], vector)
        if not structure.longest_delay:
            _separate_time_scales(factors, direction, members, group)
    for group in groups:
        (first, *others) = np.flatnonzero(structure.drives[:, group[0]])
        if others:
            continue
        basis = left[first]
        scores = factors[first].score @ basis
        _, rotation = lagged_rotation(scores, factors[first].seen, _LAGS)
        for k, vector in zip(group, (basis @ rotation[:, ::-1]).T, strict=False):
            direction[first, k] = vector
    for m, f in enumerate(factors):
        noise[f.channels] = f.noise
        for k in np.flatnonzero(structure.drives[m]):
            if (m, k) in direction:
                column = f.loading @ direction[m, k] / np.sqrt(f.noise)
            else:
                column = _FAINT * np.cos(np.arange(len(f.channels)) * (k + 1))
            loading[f.channels, k] = column
    correlation = np.array([_autocorrelation(factors, direction, k) for k in range(q)])
    scale = time_scales(correlation, _LAGS, kernel, problem.time_scale_bounds)
    arrays = loading, np.log(noise), np.zeros(n_channels), np.log(scale), delay
    return Parameters(*(torch.from_numpy(a) for a in arrays))


def _factors(data: PaddedTrials, structure: Structure, m: int, problem: FitProblem) -> _Factors:
    channels = np.flatnonzero(structure.modality == m)
    own = PaddedTrials(data.value[..., channels], data.observed[..., channels], data.length)
    n = min(int(structure.drives[m].sum()), len(channels))
    loading, noise = factor_analysis(own, n, problem.limits.noise_floor)
    weight = loading / noise[:, None]
    # posterior means: noisy directions shrink, so that chance correlations do not win
    score = own.value @ (weight @ np.linalg.inv(np.eye(n) + loading.T @ weight))
    return _Factors(channels, loading, noise, score, own.observed.any(axis=2))


def _most_shared(
    factors: list[_Factors], left: list[Array], members: NDArray[np.intp], longest: int
) -> tuple[list[Array | None], list[int]]:
    """Return the next shared direction in each modality of a group, None if it has none left, and its lags."""
    with_room = [m for m in members if left[m].shape[1]]
    if len(with_room) < 2:
        alone = [left[m][:, 0] if m in with_room else None for m in members]
        return alone, [0] * len(members)
    first, *others = with_room
    a = factors[first]
    covariances = {
        m: {
            lag: left[first].T @ _cross_covariance(a, factors[m], lag) @ left[m]
            for lag in range(-longest, longest + 1)
        }
        for m in others
    }
    lags = {
        m: max(by_lag, key=lambda lag: np.linalg.norm(by_lag[lag], 2)) for m, by_lag in covariances.items()
    }
    u = np.linalg.svd(np.hstack([covariances[m][lags[m]] for m in others]))[0][:, 0]
    found = {first: left[first] @ u}
    for m in others:
        v = covariances[m][lags[m]].T @ u
        found[m] = left[m] @ (v / max(np.linalg.norm(v), 1e-12))
    return [found.get(m) for m in members], [lags.get(m, 0) for m in members]


def _cross_covariance(a: _Factors, b: _Factors, lag: int) -> Array:
    """Return the mean of a(t) b(t + lag)'."""
    n = a.score.shape[1] - abs(lag)
    at, after = slice(max(0, -lag), max(0, -lag) + n), slice(max(0, lag), max(0, lag) + n)
    pairs = max(1, int((a.seen[:, at] & b.seen[:, after]).sum()))
    return np.tensordot(a.score[:, at], b.score[:, after], axes=([0, 1], [0, 1])) / pairs


def _without(basis: Array, vector: Array) -> Array:
    """Return an orthonormal basis of what is orthogonal to a vector within a basis."""
    inside = basis.T @ vector
    rest = np.linalg.svd(inside[None])[2][1:].T
    return basis @ rest


def _separate_time_scales(
    factors: list[_Factors],
    direction: dict[tuple[int, int], Array],
    members: NDArray[np.intp],
    group: NDArray[np.intp],
) -> None:
    """Rotate a group's latents, in all its modalities alike, so that they differ in time scale."""
    whole = [m for m in members if all((m, k) in direction for k in group)]
    if not whole:
        return
    score = sum(factors[m].score @ np.stack([direction[m, k] for k in group], axis=1) for m in whole)
    seen = np.any([factors[m].seen for m in whole], axis=0)
    rotation = lagged_rotation(np.asarray(score), seen, _LAGS)[1][:, ::-1]
    for m in whole:
        rotated = np.stack([direction[m, k] for k in group], axis=1) @ rotation
        for k, vector in zip(group, rotated.T, strict=True):
            direction[m, k] = vector


def _autocorrelation(factors: list[_Factors], direction: dict[tuple[int, int], Array], k: int) -> float:
    """Return the mean autocorrelation of a latent over lags 1 .. `_LAGS`, averaged over its modalities."""
    found = []
    for (m, other), vector in direction.items():
        if other == k:
            score = (factors[m].score @ vector)[..., None]
            at_zero = (score**2).sum() / max(1, factors[m].seen.sum())
            found.append(lagged_rotation(score, factors[m].seen, _LAGS)[0][0] / max(at_zero, 1e-12))
    return float(np.mean(found)) if found else 0.5
