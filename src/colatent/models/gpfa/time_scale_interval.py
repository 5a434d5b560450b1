"""Profile-likelihood intervals of the time scales of Gaussian GPFA.

The interval of tau_k contains the values at which the log likelihood, maximised over all other
parameters, is at most chi2(1, level) / 2 nats below its maximum (Venzon & Moolgavkar 1988, Applied
Statistics 37:87-94, doi 10.2307/2347496). If the fit is penalised, so is the likelihood here.

A fit stops when an iteration gains little. Along poorly determined directions it can then be several nats
short of the maximum, more than the drop that defines an interval. The search therefore first climbs to
the maximum. This climb and the profiles share one quasi-Newton estimate of the inverse Hessian, which
starts from the curvature along the poorly determined directions and is updated by each evaluation.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import LbfgsInvHessProduct
from scipy.special import chdtri  # scipy.stats is slow to import

from colatent.models.gpfa.evidence import evaluate, make_blocks
from colatent.models.gpfa.fit import NEGLIGIBLE_COLUMN, FitProblem, relevance_penalty
from colatent.models.gpfa.padded_trials import PaddedTrials
from colatent.models.gpfa.parameters import Parameters
from colatent.models.gpfa.prior import Prior

Array = NDArray[np.float64]

# tolerance of the prior: at the fit's, dropping a coefficient would cause a step in a profile
PROFILE_TOLERANCE = 1e-6

_GAIN = 5e-3  # nats short of the maximum at which a climb stops: moves the ends by 0.1 % of the interval
_CLOSE = 0.02  # accuracy of the signed root of the deviance at an end, in standard errors
_STEPS = 60  # steps of a climb
_HISTORY = 100  # gradient differences kept in addition to those of the first directions
_ROUNDS = 2  # rounds over all latents, if a profile leads to a higher maximum
# Evaluations after which the search for an end gives up (NaN). Most take three to ten; many more only if
# latents with similar time scales can swap.
_EVALUATIONS = 40
_AT_BOUND = 1e-3  # in log tau
_ROOM = 1.5  # factor by which the circle's longest time scale grows
_NUDGE = 1e-4  # step of finite differences of gradients, relative to the perturbed quantity


class TimeScaleInterval(NamedTuple):
    """Intervals of the time scales.

    Attributes:
        low: seconds (latent,); 0 if there is no end down to the shortest time scale of the fit, NaN if the
            search for it failed.
        high: seconds (latent,); infinite if there is no end up to the longest, NaN likewise.
        maximum: seconds (latent,), where the likelihood is largest; differs from the fit only because the
            fit stops early.
    """

    low: Array
    high: Array
    maximum: Array


def interval_drop(level: float) -> float:
    """Return the drop in log likelihood that defines the ends of an interval (nats)."""
    if not 0 < level < 1:
        raise ValueError(f"the level of an interval must lie between 0 and 1, not {level!r}")
    return float(chdtri(1, 1 - level)) / 2


def profile_intervals(
    data: PaddedTrials, fitted: Parameters, prior: Prior, problem: FitProblem, drop: float
) -> TimeScaleInterval:
    """Return the intervals of all time scales, in bins.

    Latents with negligible loadings have a flat profile and the interval (0, infinity).

    Args:
        data: standardised training trials.
        fitted: parameters of the fit to them.
        prior: the kernel and its Fourier representation.
        problem: limits and penalty of the fit.
        drop: drop in log likelihood at the ends (nats).
    """
    relevant = np.flatnonzero((fitted.loading**2).sum(0).numpy() > 10 * NEGLIGIBLE_COLUMN)
    log_low, log_high = np.full((2, fitted.loading.shape[1]), np.inf) * [[-1], [1]]
    search = _Search(_ScaledNegativeEvidence(data, fitted, prior, problem), relevant)
    for _ in range(_ROUNDS):
        n_maxima = search.n_maxima
        for k in relevant:
            for side, end in ((-1, log_low), (1, log_high)):
                if not math.isnan(end[k]):  # NaN: given up in the previous round
                    limit = search.objective.n_evaluations + _EVALUATIONS
                    end[k] = _end(search, int(k), side, drop, limit)
        if search.n_maxima == n_maxima:  # otherwise some ends refer to a lower maximum
            break
    return TimeScaleInterval(*np.exp([log_low, log_high, search.objective.log_time_scales(search.best)]))


def _end(search: "_Search", k: int, side: int, drop: float, limit: int) -> float:
    """Return log tau_k (bins) at one end of its interval, infinite if there is no end.

    NaN if the end is not found within ``limit`` evaluations of the objective, or is closer than rounding
    can resolve.

    The root of the deviance, r = sqrt(2 (maximum - profile)), is nearly linear in log tau_k, so that the
    secant through the last two points finds the end in two or three steps.
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
        if not math.isfinite(value):  # too far, see `_ScaledNegativeEvidence`
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
    """Quasi-Newton climbs to the maximum and along the profiles, sharing one estimate of the curvature.

    Attributes:
        objective: negative log likelihood; counts its evaluations.
        best, lowest: location and value of its minimum.
        n_maxima: how often a profile led to a higher maximum of the likelihood.
    """

    def __init__(self, objective: "_ScaledNegativeEvidence", relevant: NDArray[np.intp]):
        self.objective = objective
        self.best, self.n_maxima = objective.start, 0
        self._first = objective.first_differences(relevant)
        self._later: list[tuple[Array, Array]] = []
        self.climb_to_maximum()

    def climb_to_maximum(self, higher: Array | None = None) -> None:
        """Climb from the best point or a higher one, on a circle long enough for the time scales there."""
        if higher is not None:
            self.best, self.n_maxima = higher, self.n_maxima + 1
        while True:
            self.lowest, self.best = self._climb(self.best, None)
            if not self.objective.make_room(self.objective.longest(self.best)):
                return

    def standard_error(self, at: int) -> float:
        """Return the standard error of variable ``at`` implied by the curvature."""
        return math.sqrt(self._inverse()(_unit(at, len(self.best)))[at])

    def profile(self, at: int, value: float, nearby: Array) -> tuple[float, Array]:
        """Return value and location of the minimum with variable ``at`` held at ``value``.

        The search starts where the minimum would be if the curvature were constant.
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
            while share > 1e-3:  # nearly always the full step
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
        """Return the Newton step with one variable held, as are variables that would leave their bounds."""
        inverse = self._inverse()
        free = self.objective.may_move(x, gradient)
        step = -inverse(gradient * free)
        if held is not None:
            column = inverse(_unit(held, len(x)))
            step -= column * step[held] / column[held]
            step[held] = 0.0
        return step * free

    def _learn(self, step: Array, change: Array) -> None:
        if step @ change > 1e-8 * (step @ step):  # keeps the curvature positive definite
            self._later.append((step, change))


class _ScaledNegativeEvidence:
    """Negative (penalised) log likelihood (nats) of a vector of scaled variables.

    The variables are C, log R, d and log tau. C is nearly uncoupled from R, unlike the fit's C / sqrt(R).
    The first three are scaled so that their second derivatives would be about 1 if the latents were known.
    """

    def __init__(self, data: PaddedTrials, fitted: Parameters, prior: Prior, problem: FitProblem):
        self._data, self._prior, self._problem = data, prior, problem
        loading, log_noise, offset, log_tau = (p.numpy() for p in fitted[:4])  # no delays
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
        """Return the index of log tau_k in the vector."""
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
        """Extend the circle if a time scale needs it, and return whether it did."""
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
        """Return which variables can move downhill without leaving their bounds."""
        return ~(((x <= self._lower) & (gradient > 0)) | ((x >= self._upper) & (gradient < 0)))

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return value and gradient; infinity and NaN if rounding makes the precision indefinite."""
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
        """Return steps and gradient changes along the directions that the data determine least.

        These mix latents, trade latent means for offsets, and change time scales. The steps are combined
        into directions conjugate under the curvature, so that each stays exact in the estimate.
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
