"""Profile-likelihood intervals of the time scales of Gaussian GPFA.

The interval of tau_k holds the values at which the log likelihood, maximised over all other
parameters, is at most chi2(1, level) / 2 nats below its maximum (Venzon & Moolgavkar 1988, Applied
Statistics 37:87-94, doi 10.2307/2347496). If the fit is penalised, so is the likelihood here.

A fit stops where an iteration gains little; along the directions in which the data say little it is
then some nats short of the maximum, more than an interval is about. The climb to the maximum and the
profiles therefore share one quasi-Newton estimate of the inverse Hessian, which starts from the
curvature of those few directions and learns from each evaluation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import LbfgsInvHessProduct
from scipy.special import chdtri  # that of scipy.stats takes a second to import

from colatent.models.gpfa.evidence import Parameters, Prior, evaluate, make_blocks
from colatent.models.gpfa.fit import NEGLIGIBLE_COLUMN, FitProblem, relevance_penalty
from colatent.models.gpfa.padded_trials import PaddedTrials

Array = NDArray[np.float64]

# of the prior: with the fit's, a coefficient less would be a step in a profile
PROFILE_TOLERANCE = 1e-6

_GAIN = 5e-3  # nats that a climb may leave: the ends move by a thousandth of the interval
_CLOSE = 0.02  # accuracy of the signed root of the deviance at an end, in standard errors
_STEPS = 60  # of a climb
_HISTORY = 100  # differences of gradients that are kept besides those of the first directions
_ROUNDS = 2  # over all latents, if a profile leads to a higher maximum
# Evaluations after which an end is given up: NaN. Most take three to ten; many more only if latents
# with like time scales can change places.
_EVALUATIONS = 40
_AT_BOUND = 1e-3  # in log tau
_ROOM = 1.5  # factor by which the circle's longest time scale grows
_NUDGE = 1e-4  # of a finite difference of gradients, in units of what is nudged


class TimeScaleInterval(NamedTuple):
    """Intervals of the time scales.

    Attributes:
        low: seconds (latent,); 0 if there is no end down to the shortest time scale of the fit, NaN if the
            search for it failed.
        high: seconds (latent,); infinite if there is no end up to the longest, NaN likewise.
        maximum: seconds (latent,), where the likelihood is largest: the fit's, but for where it stopped.
    """

    low: Array
    high: Array
    maximum: Array


def interval_drop(level: float) -> float:
    """Return how far the log likelihood falls to the ends of an interval (nats)."""
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must lie between 0 and 1, not {level!r}")
    return float(chdtri(1, 1 - level)) / 2


def profile_intervals(
    data: PaddedTrials, fitted: Parameters, prior: Prior, problem: FitProblem, drop: float
) -> TimeScaleInterval:
    """Return the intervals of all time scales, in bins.

    Latents with negligible loadings have a flat profile, and the interval (0, infinity).

    Args:
        data: standardised training trials.
        fitted: parameters of the fit to them.
        drop: of the log likelihood at the ends (nats).
    """
    relevant = np.flatnonzero((fitted.loading**2).sum(0).numpy() > 10 * NEGLIGIBLE_COLUMN)
    log_low, log_high = np.full((2, fitted.loading.shape[1]), np.inf) * [[-1], [1]]
    search = _Search(_ScaledNegativeEvidence(data, fitted, prior, problem), relevant)
    for _ in range(_ROUNDS):
        n_maxima = search.n_maxima
        for k in relevant:
            for side, end in ((-1, log_low), (1, log_high)):
                if not math.isnan(end[k]):  # given up in the round before
                    limit = search.objective.n_evaluations + _EVALUATIONS
                    end[k] = _end(search, int(k), side, drop, limit)
        if search.n_maxima == n_maxima:  # else some ends were measured from a lower maximum
            break
    return TimeScaleInterval(*np.exp([log_low, log_high, search.objective.log_time_scales(search.best)]))


def _end(search: "_Search", k: int, side: int, drop: float, limit: int) -> float:
    """Return log tau_k (bins) at one end of its interval, infinite if it has none.

    NaN if it is not found before the objective has been evaluated ``limit`` times, or is nearer than
    rounding tells apart.

    The root of the deviance, r = sqrt(2 (maximum - profile)), is nearly linear in log tau_k: the secant
    of the last two points finds the end in two or three of them.
    """
    objective, goal = search.objective, math.sqrt(2 * drop)
    at, bound = objective.place(k), objective.bound(side)
    known, root, x = search.best[at], 0.0, search.best
    log_tau = known + side * goal * search.standard_error(at)
    while objective.n_evaluations < limit:
        log_tau = side * min(side * log_tau, side * bound)
        if side * (bound - search.best[at]) < _AT_BOUND:
            return side * math.inf
        if log_tau == known:
            return math.nan
        if objective.make_room(log_tau):
            search.climb_to_maximum()
            return _end(search, k, side, drop, limit)
        value, there = search.profile(at, log_tau, x)
        if not math.isfinite(value):  # too far: `_ScaledNegativeEvidence`
            log_tau = (known + log_tau) / 2
            continue
        x = there
        if objective.make_room(objective.longest(x)) or value < search.lowest - 2 * _GAIN:
            search.climb_to_maximum(x if value < search.lowest - 2 * _GAIN else None)
            return _end(search, k, side, drop, limit)
        before, root = root, math.sqrt(2 * max(value - search.lowest, 0.0))
        if log_tau == bound and root < goal:
            return side * math.inf
        far = abs(log_tau - search.best[at])
        slope = side * (root - before) / (log_tau - known)
        step = (goal - root) / slope if slope > 0 else far
        if abs(root - goal) < _CLOSE:
            return log_tau + side * step
        known, log_tau = log_tau, log_tau + side * float(np.clip(step, -far / 2, far))
    return math.nan


class _Search:
    """Quasi-Newton climbs to the maximum and along the profiles, all of which share one curvature.

    Attributes:
        objective: what is minimised; it counts its evaluations.
        best, lowest: its minimum, place and value.
        n_maxima: how often a higher maximum of the likelihood was found on a profile.
    """

    def __init__(self, objective: "_ScaledNegativeEvidence", relevant: NDArray[np.intp]):
        self.objective = objective
        self.best, self.n_maxima = objective.start, 0
        self._first = objective.first_differences(relevant)
        self._later: list[tuple[Array, Array]] = []
        self.climb_to_maximum()

    def climb_to_maximum(self, higher: Array | None = None) -> None:
        """Climb from the best point, or from a higher one, with room for the time scales there."""
        if higher is not None:
            self.best, self.n_maxima = higher, self.n_maxima + 1
        while True:
            self.lowest, self.best = self._climb(self.best, None)
            if not self.objective.make_room(self.objective.longest(self.best)):
                return

    def standard_error(self, at: int) -> float:
        """Return the standard error of variable ``at`` that the curvature implies."""
        return math.sqrt(self._inverse()(_unit(at, len(self.best)))[at])

    def profile(self, at: int, value: float, nearby: Array) -> tuple[float, Array]:
        """Return the minimum with variable ``at`` held at a value, and its place.

        It starts on the line along which the minimum moves if the curvature is constant.
        """
        direction = self._inverse()(_unit(at, len(nearby)))
        x = self.objective.clip(nearby + direction * (value - nearby[at]) / direction[at])
        x[at] = value
        return self._climb(x, at)

    def _inverse(self) -> Callable[[Array], Array]:
        pairs = [*self._first, *self._later[-_HISTORY:]]
        steps, changes = (np.array(part) for part in zip(*pairs, strict=True))
        return LbfgsInvHessProduct(steps, changes).matvec

    def _climb(self, x: Array, held: int | None) -> tuple[float, Array]:
        value, gradient = self.objective(x)
        for _ in range(_STEPS if math.isfinite(value) else 0):
            step = self._step(x, gradient, held)
            slope = float(gradient @ step)
            if -slope / 2 < _GAIN:
                break
            share, new = 1.0, None
            while share > 1e-3:  # nearly always the whole step
                candidate = self.objective.clip(x + share * step)
                found, slope_there = self.objective(candidate)
                self._learn(candidate - x, slope_there - gradient)
                if found < value + 1e-4 * share * slope:
                    new = candidate, found, slope_there
                    break
                share /= 4
            if new is None:
                break
            x, value, gradient = new
        return value, x

    def _step(self, x: Array, gradient: Array, held: int | None) -> Array:
        """Newton step with one variable held, and those at their bounds that would leave them."""
        inverse = self._inverse()
        free = self.objective.may_move(x, gradient)
        step = -inverse(gradient * free)
        if held is not None:
            column = inverse(_unit(held, len(x)))
            step -= column * step[held] / column[held]
            step[held] = 0.0
        return step * free

    def _learn(self, step: Array, change: Array) -> None:
        if step @ change > 1e-8 * (step @ step):  # else the curvature would not stay positive
            self._later.append((step, change))


class _ScaledNegativeEvidence:
    """Negative log likelihood (nats), with the penalty if any, of one vector of scaled variables.

    They are C, log R, d and log tau. Unlike the fit's C / sqrt(R), C is all but independent of R. The
    first three are scaled so that their second derivatives are about 1, were the latents known.
    """

    def __init__(self, data: PaddedTrials, fitted: Parameters, prior: Prior, problem: FitProblem):
        self._data, self._prior, self._problem = data, prior, problem
        loading, log_noise, offset, log_tau = (p.numpy() for p in fitted)
        self._shape = loading.shape
        count = np.maximum(data.observed.sum((0, 1)), 1.0)[:, None]
        curvature = np.broadcast_to(count, loading.shape)
        if problem.automatic_relevance:
            square = (loading**2).sum(0) + NEGLIGIBLE_COLUMN
            curvature = curvature + problem.automatic_relevance * len(loading) / square
        sigma = np.exp(log_noise / 2)[:, None]
        root = np.sqrt([curvature, *np.broadcast_to([count / 2, count], (2, *loading.shape))])
        self._scale = np.concatenate(
            [(root[0] / sigma).ravel(), root[1, :, 0], root[2, :, 0] / sigma[:, 0], np.ones(len(log_tau))]
        )
        arrays = (loading * sigma).ravel(), log_noise, offset, log_tau
        self.start = np.concatenate(arrays) * self._scale
        self._lower, self._upper = np.full((2, len(self.start)), np.inf) * [[-1], [1]]
        noise = slice(loading.size, loading.size + len(loading))
        self._lower[noise] = math.log(problem.limits.noise_floor) * self._scale[noise]
        self._time_scales = slice(len(self.start) - len(log_tau), None)
        self._lower[self._time_scales] = self.bound(-1)
        self._cap = -math.inf
        self.n_evaluations = 0
        self.make_room(self.longest(self.start))

    def place(self, k: int) -> int:
        """Return where log tau_k is."""
        return len(self.start) - self._shape[1] + k

    def bound(self, side: int) -> float:
        """Return the log of the shortest (-1) or longest (1) time scale of the fit (bins)."""
        return math.log(self._problem.time_scale_bounds[side > 0])

    def log_time_scales(self, x: Array) -> Array:
        """Return log tau (bins), (latent,)."""
        return x[self._time_scales]

    def longest(self, x: Array) -> float:
        """Return the log of the longest time scale (bins)."""
        return float(self.log_time_scales(x).max())

    def make_room(self, log_tau: float) -> bool:
        """Make the circle long enough for a time scale, and return whether it had to be."""
        if log_tau < self._cap - _AT_BOUND or self._cap == self.bound(1):
            return False
        self._cap = min(log_tau + math.log(_ROOM), self.bound(1))
        time_scale = np.exp(self.start[self._time_scales])
        cap = math.exp(self._cap)
        self._blocks = make_blocks(self._data, self._prior, time_scale, cap)
        self._upper[self._time_scales] = self._cap
        return True

    def clip(self, x: Array) -> Array:
        """Return the nearest point within the bounds."""
        return np.clip(x, self._lower, self._upper)

    def may_move(self, x: Array, gradient: Array) -> NDArray[np.bool_]:
        """Return which variables descent would not push out of their bounds."""
        return ~(((x <= self._lower) & (gradient > 0)) | ((x >= self._upper) & (gradient < 0)))

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return the value and the gradient; infinity and NaN where rounding leaves no positive precision."""
        self.n_evaluations += 1
        p, q = self._shape
        loading, log_noise, offset, log_tau = np.split(x / self._scale, [p * q, p * q + p, p * q + 2 * p])
        sigma = np.exp(log_noise / 2)[:, None]
        arrays = loading.reshape(p, q) / sigma, log_noise, offset, log_tau
        parameters = Parameters(*(torch.as_tensor(a, device=self._prior.device) for a in arrays))
        try:
            value, gradient = evaluate(self._blocks, parameters)
        except torch.linalg.LinAlgError:
            return math.inf, np.full(len(x), math.nan)
        by_loading = gradient.loading
        if self._problem.automatic_relevance:
            penalty, slope = relevance_penalty(parameters.loading, self._problem.automatic_relevance)
            value, by_loading = value + float(penalty), by_loading + slope
        by_noise = gradient.log_noise - 0.5 * (by_loading * parameters.loading).sum(1)
        parts = by_loading.cpu().numpy() / sigma, by_noise, gradient.offset, gradient.log_time_scale
        flat = [np.ravel(part if isinstance(part, np.ndarray) else part.cpu().numpy()) for part in parts]
        return value, np.concatenate(flat) / self._scale

    def first_differences(self, relevant: NDArray[np.intp]) -> list[tuple[Array, Array]]:
        """Return steps and changes of the gradient along what the data determine least.

        That is mixing the latents, trading their means for offsets, and the time scales. The steps are
        combined so that the curvature couples none of them: each then keeps its place in the estimate.
        """
        p, q = self._shape
        loading = (self.start / self._scale)[: p * q].reshape(p, q)
        steps = []
        for k in relevant:
            for j in relevant:
                mixed = np.zeros((p, q))
                mixed[:, k] = loading[:, j]
                steps.append(np.concatenate([mixed.ravel(), np.zeros(2 * p + q)]))
            steps.append(np.concatenate([np.zeros(p * q + p), loading[:, k], np.zeros(q)]))
            steps.append(_unit(self.place(k), len(self.start)))
        step = np.array(steps) * self._scale * _NUDGE
        gradient = self(self.start)[1]
        change = np.array([self(self.start + s)[1] - gradient for s in step])
        curvature, vector = np.linalg.eigh((step @ change.T + change @ step.T) / 2)
        kept = vector[:, curvature > 1e-6 * curvature.max()].T
        return list(zip(kept @ step, kept @ change, strict=True))


def _unit(at: int, size: int) -> Array:
    unit = np.zeros(size)
    unit[at] = 1.0
    return unit
