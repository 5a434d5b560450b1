"""Groups of latents, found: how many latents there are, and which modalities each of them drives.

1. Some latents are offered to all modalities. A relevance penalty on each block of loadings (of one latent
   in one modality) shrinks the blocks that a modality does not need to zero.
2. Blocks must raise the likelihood by more than their number of parameters is worth (Schwarz 1978,
   doi 10.1214/aos/1176344136).
3. A model of linear read-outs describes curved ones, such as square roots of counts, by further latents:
   products of the others. A latent that the others and their products predict in left-out trials is no
   latent of its own. Such latents go one at a time, because the others change when one has gone.
4. A shared latent becomes private, or is split in two, if a modality does not need its block, or if what
   one modality says of it is unrelated, as in permuted trials, to what the others say.

If all but one of the offered latents are needed, twice as many are offered.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from colatent.models.gpfa.evidence import Block, evaluate, make_blocks, posterior_means
from colatent.models.gpfa.fit import FitProblem, maximize, standardize
from colatent.models.gpfa.padded_trials import PaddedTrials
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.prior import Prior
from colatent.models.gpfa.shared_start import shared_start
from colatent.models.gpfa.structure import Structure

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

_OFFERED = 8
_STRENGTH = 0.5  # of the relevance penalty
_NOTHING = 0.03  # squared norm of a block, in noise units, that counts as zero
_PREDICTED = 0.25  # R² from other latents from which on a latent is no latent of its own
_TOLERANCE = 1e-3  # of the prior: the search compares large differences
_CONTINUE = 20  # iterations after a change
_CLOSE = 6.0  # loss, relative to what parameters are worth, beyond which to continue would not help
_PERMUTED = 19  # ways in which trials are permuted as a control
_MOST_BINS = 20_000  # of the trials that are searched
_CLIP = 2.0  # s.d. at which latents are cut before they are multiplied: products have heavy tails
_RIDGE = 100.0  # of the regression on products, in bins
_FOLDS = 5


class _Candidate(NamedTuple):
    """Parameters, and which latents drive which modalities (modality, latent)."""

    parameters: Parameters
    drives: Mask

    def only(self, drives: Mask) -> "_Candidate":
        """Return the candidate with only these of its blocks; latents without any are gone."""
        kept = drives.any(axis=0)
        p, at = self.parameters, torch.as_tensor(np.flatnonzero(kept))
        return _Candidate(
            p._replace(loading=p.loading[:, at], log_time_scale=p.log_time_scale[at], delay=p.delay[:, at]),
            drives[:, kept],
        )


@dataclass(frozen=True)
class _GroupSearch:
    """The data that are searched and the problem of a fit to them, without its structure."""

    data: PaddedTrials
    modality: NDArray[np.intp]
    n_modalities: int
    prior: Prior
    problem: FitProblem
    longest_delay: float

    def find(self, n_offered: int) -> Mask:
        """Return which latents drive which modalities (modality, latent), of the latents offered."""
        everything = np.ones((self.n_modalities, n_offered), dtype=bool)
        problem = self._with(everything)
        start = shared_start(self.data, self._structure(everything), self.prior.kernel, problem)
        found = self._climb(_Candidate(start, everything), problem.limits.max_iterations)
        while True:
            found = self._without_weak(found)
            predicted = self._predicted(found)
            if predicted.max() > _PREDICTED:
                without = found.drives & (np.arange(len(predicted)) != predicted.argmax())
                if without.any(axis=1).all():
                    found = self._climb(found.only(without), _CONTINUE)
                    continue
            if (less_shared := self._less_shared(found)) is None:
                return found.drives
            found = less_shared

    def _structure(self, drives: Mask) -> Structure:
        return Structure(self.modality, drives, self.longest_delay)

    def _with(self, drives: Mask) -> FitProblem:
        return replace(self.problem, structure=self._structure(drives), automatic_relevance=_STRENGTH)

    def _climb(self, candidate: _Candidate, most: int) -> _Candidate:
        """Return the candidate after some iterations of the penalised fit."""
        problem = self._with(candidate.drives)
        problem = replace(problem, limits=replace(problem.limits, max_iterations=most))
        start = _within(candidate, problem)
        return candidate._replace(
            parameters=maximize(self.data, start, self.prior, problem, lambda *_: None)[0]
        )

    def _size(self, candidate: _Candidate) -> Array:
        """Return the squared norm of each block (modality, latent)."""
        square = candidate.parameters.loading.square().numpy()
        return np.array([square[self.modality == m].sum(axis=0) for m in range(self.n_modalities)])

    def _evidence(self, candidate: _Candidate) -> float:
        """Return the log marginal likelihood."""
        return -evaluate(*self._blocks(candidate))[0]

    def _mean(self, candidate: _Candidate) -> Array:
        """Return the posterior means of the latents (trial, time, latent)."""
        return posterior_means(*self._blocks(candidate), self.data.observed.shape[:2])

    def _blocks(self, candidate: _Candidate) -> tuple[list[Block], Parameters]:
        scale = candidate.parameters.log_time_scale.exp().numpy()
        problem = self._with(candidate.drives)
        blocks = make_blocks(self.data, self.prior, scale, float(scale.max()), delays=problem.delays)
        return blocks, _within(candidate, problem)

    def _worth(self, m: int) -> float:
        """Return what the number of a block's parameters is worth (nats), of a block in modality m."""
        return 0.5 * float((self.modality == m).sum()) * math.log(len(self.data.value))

    def _without_weak(self, candidate: _Candidate) -> _Candidate:
        """Return the candidate without blocks that the data do not need, one left for each modality."""
        size = self._size(candidate)
        largest = np.arange(size.shape[1]) == size.argmax(axis=1)[:, None]
        found = candidate.only((candidate.drives & (size > _NOTHING)) | largest)
        while True:
            size = np.where(found.drives, self._size(found), math.inf)
            evidence = self._evidence(found)
            for m, k in enumerate(size.argmin(axis=1)):
                without = found.drives.copy()
                without[m, k] = False
                if not without[m].any():
                    continue
                smaller = found.only(without)
                if evidence - self._evidence(smaller) < self._worth(m):
                    found = smaller
                    break
            else:
                return found

    def _predicted(self, candidate: _Candidate) -> Array:
        """Return the R² of each latent from the others and their products, in left-out trials."""
        seen = self.data.observed.any(axis=2)
        z = self._mean(candidate)[seen]
        z /= np.maximum(np.sqrt((z**2).mean(axis=0)), 1e-12)
        fold = np.nonzero(seen)[0] % _FOLDS
        return np.array([_r2_from_products(z, k, fold) for k in range(z.shape[1])])

    def _less_shared(self, candidate: _Candidate) -> _Candidate | None:
        """Return the candidate without the block of a shared latent, or with such a latent split in two."""
        evidence = self._evidence(candidate)
        for k in map(int, np.flatnonzero(candidate.drives.sum(axis=0) > 1)):
            for m in map(int, np.flatnonzero(candidate.drives[:, k])):
                worth = self._worth(m)
                without = candidate.drives.copy()
                without[m, k] = False
                if without[m].any() and evidence - self._evidence(candidate.only(without)) < _CLOSE * worth:
                    smaller = self._climb(candidate.only(without), _CONTINUE)
                    if evidence - self._evidence(smaller) < worth:
                        return smaller
                split = _with_part_of(candidate, m, k)
                if not self.longest_delay and evidence - self._evidence(split) < _CLOSE * worth:
                    split = self._climb(split, _CONTINUE)
                    mean = self._mean(split)
                    if not _related(mean[..., k], mean[..., -1]):
                        return split
        return None


def found_groups(
    data: PaddedTrials,
    n_channels: dict[str, int],
    prior: Prior,
    problem: FitProblem,
    longest_delay: float,
    progress: Callable[[str], None] | None = None,
) -> dict[str, int]:
    """Return the groups of modalities that share latents, and their numbers of latents.

    Every modality is in a group, largest groups first.

    Args:
        data: training trials of all modalities joined.
        n_channels: modality -> number of its channels, in the order of the joined channels.
        prior: kernel and accuracy.
        problem: limits of the fit.
        longest_delay: bound of the delays' absolute value, bins; 0 for none.
        progress: called with lines of text.
    """
    data = _some_trials(data)
    modality = np.repeat(np.arange(len(n_channels)), list(n_channels.values()))
    prior = replace(prior, tolerance=max(prior.tolerance, _TOLERANCE))
    search = _GroupSearch(standardize(data)[0], modality, len(n_channels), prior, problem, longest_delay)
    most = len(modality)
    n_offered = min(_OFFERED, most)
    while True:
        with torch.inference_mode():  # gradients are analytic
            drives = search.find(n_offered)
        if drives.shape[1] < n_offered - 1 or n_offered == most:
            break
        n_offered = min(2 * n_offered, most)
    groups = _names(drives, list(n_channels))
    if progress is not None:
        found = ", ".join(f"{n} of {group}" for group, n in groups.items())
        progress(f"latents found among {n_offered} offered: {found}")
    return groups


def _some_trials(data: PaddedTrials) -> PaddedTrials:
    """Return trials, evenly spaced, that hold about the most bins that are searched."""
    step = math.ceil(data.length.sum() / _MOST_BINS)
    return PaddedTrials(data.value[::step], data.observed[::step], data.length[::step])


def _names(drives: Mask, names: Sequence[str]) -> dict[str, int]:
    columns = [tuple(np.flatnonzero(column).tolist()) for column in drives.T]
    count = Counter(sorted(columns, key=lambda members: (-len(members), members)))
    return {"+".join(names[m] for m in members): n for members, n in count.items()}


def _within(candidate: _Candidate, problem: FitProblem) -> Parameters:
    """Return parameters that a problem's structure allows, delays relative to a latent's first modality."""
    structure, p = problem.structure, candidate.parameters
    assert structure is not None
    support = torch.as_tensor(structure.support, dtype=p.loading.dtype)
    first = candidate.drives.argmax(axis=0)
    delay = p.delay - p.delay[first, np.arange(len(first))]
    late = torch.as_tensor(structure.delayed * structure.longest_delay)
    return p._replace(loading=p.loading * support, delay=delay.clamp(-late, late))


def _with_part_of(candidate: _Candidate, m: int, k: int) -> _Candidate:
    """Return the candidate with a further latent that drives modality m in place of latent k."""
    p, drives = candidate
    both = np.column_stack([drives, np.arange(len(drives)) == m])
    both[m, k] = False
    return _Candidate(
        p._replace(
            loading=torch.cat([p.loading, p.loading[:, k : k + 1]], dim=1),
            log_time_scale=torch.cat([p.log_time_scale, p.log_time_scale[k : k + 1]]),
            delay=torch.cat([p.delay, p.delay[:, k : k + 1]], dim=1),
        ),
        both,
    )


def _related(a: Array, b: Array) -> bool:
    """Return whether two latents (trial, time) correlate more than with their trials permuted."""
    a, b = a - a.mean(), b - b.mean()
    shifts = range(1, min(_PERMUTED, len(a) - 1) + 1)
    return bool(abs((a * b).sum()) > max(abs((a * np.roll(b, n, axis=0)).sum()) for n in shifts))


def _r2_from_products(z: Array, k: int, fold: NDArray[np.intp]) -> float:
    """Return the R² of latent k from the other latents and their products, in left-out folds.

    Args:
        z: latents in units of their r.m.s. (bin, latent).
        fold: of each bin (bin,).
    """
    other = np.clip(np.delete(z, k, axis=1), -_CLIP, _CLIP)
    if not other.shape[1]:
        return 0.0
    y = np.clip(z[:, k] - z[:, k].mean(), -2 * _CLIP, 2 * _CLIP)
    i, j = np.triu_indices(other.shape[1])
    x = np.column_stack([other, other[:, i] * other[:, j]])
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-12)
    error = y.copy()
    for left_out in (fold == f for f in np.unique(fold)):
        gram = x[~left_out].T @ x[~left_out] + _RIDGE * np.eye(x.shape[1])
        weight = np.linalg.solve(gram, x[~left_out].T @ (y[~left_out] - y[~left_out].mean()))
        error[left_out] -= y[~left_out].mean() + x[left_out] @ weight
    return float(1 - (error**2).sum() / max((y**2).sum(), 1e-12))
