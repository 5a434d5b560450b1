"""Initial parameters for several modalities, from canonical correlations between factor scores.

Factor analysis of each modality gives scores with unit prior variance. Noise is independent between
modalities, so that the cross-covariance of their scores contains only what they share. One shared latent
after the other is the direction with the largest cross-covariance, at its best lag if delays are learned
(canonical correlations, Hotelling 1936; of more than two modalities all against the first). The rest of a
modality's scores are its private latents.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from colatent.models.gpfa.fit import START_LAGS, FitProblem, factor_analysis, lagged_rotation, time_scales
from colatent.models.gpfa.padded_trials import PaddedTrials
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.structure import Structure

Array = NDArray[np.float64]
Directions = dict[tuple[int, int], Array]  # (modality, latent) -> direction among the modality's factors

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
    n_modalities = len(structure.drives)
    factors = [_factors(data, structure, m, problem) for m in range(n_modalities)]
    direction, delay = _directions(factors, structure)
    loading, noise = np.zeros((n_channels, q)), np.ones(n_channels)
    for m, f in enumerate(factors):
        noise[f.channels] = f.noise
        for k in map(int, np.flatnonzero(structure.drives[m])):
            faint = _FAINT * np.cos(np.arange(len(f.channels)) * (k + 1))
            found = direction.get((m, k))
            loading[f.channels, k] = faint if found is None else f.loading @ found / np.sqrt(f.noise)
    correlation = np.array([_autocorrelation(factors, direction, k) for k in range(q)])
    n_lags = min(START_LAGS, data.value.shape[1] - 1)
    scale = time_scales(correlation, n_lags, kernel, problem.time_scale_bounds)
    arrays = loading, np.log(noise), np.zeros(n_channels), np.log(scale), delay
    return Parameters(*(torch.from_numpy(a) for a in arrays))


def _directions(factors: list[_Factors], structure: Structure) -> tuple[Directions, Array]:
    """Return the direction of each latent in each modality, and the delays (modality, latent)."""
    direction: Directions = {}
    delay = np.zeros(structure.drives.shape)
    left = [np.eye(f.loading.shape[1]) for f in factors]  # bases of what is not yet used
    groups = [[int(k) for k in group] for group in structure.groups]
    members = {group[0]: [int(m) for m in np.flatnonzero(structure.drives[:, group[0]])] for group in groups}
    for group in sorted(groups, key=lambda group: -len(members[group[0]])):
        own = members[group[0]]
        if len(own) == 1:
            (m,) = own
            scores = factors[m].score @ left[m]
            rotation = lagged_rotation(scores, factors[m].seen, START_LAGS)[1][:, ::-1]
            direction |= {(m, k): vector for k, vector in zip(group, (left[m] @ rotation).T, strict=False)}
            continue
        for k in group:
            found, lags = _most_shared(factors, left, own, round(structure.longest_delay))
            for m, vector in found.items():
                direction[m, k], left[m] = vector, _without(left[m], vector)
            for m, lag in lags.items():
                delay[m, k] = lag
        if not structure.longest_delay:
            _separate_time_scales(factors, direction, own, group)
    return direction, delay


def _factors(data: PaddedTrials, structure: Structure, m: int, problem: FitProblem) -> _Factors:
    channels = np.flatnonzero(structure.modality == m)
    own = PaddedTrials(data.value[..., channels], data.observed[..., channels], data.length)
    n = min(int(structure.drives[m].sum()), len(channels))
    loading, noise = factor_analysis(own, n, problem.limits.noise_floor)
    weight = loading / noise[:, None]
    # posterior means: noisy directions shrink, so that chance correlations do not win
    score = own.value @ (weight @ np.linalg.inv(np.eye(n) + loading.T @ weight))
    return _Factors(channels, loading, noise, score, np.asarray(own.observed.any(axis=2)))


def _most_shared(
    factors: list[_Factors], left: list[Array], members: list[int], longest: int
) -> tuple[dict[int, Array], dict[int, int]]:
    """Return the next shared direction in each modality of a group, and lags relative to the first.

    Modalities that have no direction left, because they have fewer channels than latents, are absent.
    """
    with_room = [m for m in members if left[m].shape[1]]
    if len(with_room) < 2:
        return {m: left[m][:, 0] for m in with_room}, {}
    first, *others = with_room
    lags, best = {}, {}
    for m in others:
        by_lag = {
            lag: left[first].T @ _cross_covariance(factors[first], factors[m], lag) @ left[m]
            for lag in sorted(range(-longest, longest + 1), key=abs)  # of equals the shortest
        }
        lags[m] = max(by_lag, key=lambda lag: float(np.linalg.norm(by_lag[lag], 2)))
        best[m] = by_lag[lags[m]]
    u = np.linalg.svd(np.hstack(list(best.values())))[0][:, 0]
    found = {first: left[first] @ u}
    for m, covariance in best.items():
        v = covariance.T @ u
        found[m] = left[m] @ (v / max(float(np.linalg.norm(v)), 1e-12))
    # lags are relative to the first modality with room; delays are relative to the first of the group
    return found, lags if first == members[0] else {}


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
    direction: Directions,
    members: list[int],
    group: list[int],
) -> None:
    """Rotate a group's latents, in all its modalities alike, so that they differ in time scale."""
    whole = [m for m in members if all((m, k) in direction for k in group)]
    if not whole:
        return
    score = np.sum(
        [factors[m].score @ np.stack([direction[m, k] for k in group], axis=1) for m in whole], axis=0
    )
    seen = np.any([factors[m].seen for m in whole], axis=0)
    rotation = lagged_rotation(score, np.asarray(seen), START_LAGS)[1][:, ::-1]
    for m in whole:
        rotated = np.stack([direction[m, k] for k in group], axis=1) @ rotation
        for k, vector in zip(group, rotated.T, strict=True):
            direction[m, k] = vector


def _autocorrelation(factors: list[_Factors], direction: Directions, k: int) -> float:
    """Return the mean autocorrelation of a latent over the first lags, averaged over its modalities."""
    found = []
    for (m, other), vector in direction.items():
        if other == k:
            score = (factors[m].score @ vector)[..., None]
            at_zero = (score**2).sum() / max(1, factors[m].seen.sum())
            found.append(lagged_rotation(score, factors[m].seen, START_LAGS)[0][0] / max(at_zero, 1e-12))
    return float(np.mean(found)) if found else 0.5
