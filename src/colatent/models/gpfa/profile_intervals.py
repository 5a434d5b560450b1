"""Profile-likelihood intervals of the time scales and delays of Gaussian GPFA.

The interval of tau_k, or of a delay, contains the values at which the log likelihood, maximised over all
other parameters, is at most chi2(1, level) / 2 nats below its maximum (Venzon & Moolgavkar 1988, Applied
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
from colatent.models.gpfa.structure import Structure

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


class Interval(NamedTuple):
    """Intervals of the time scales (latent,), or of the delays (modality, latent), seconds.

    Attributes:
        low: 0, or of a delay minus infinity, if there is no end down to the smallest value of the fit; NaN if
            the search for it failed.
        high: infinite if there is no end up to the largest, NaN likewise.
        maximum: where the likelihood is largest; differs from the fit only because the fit stops early.
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
) -> tuple[Interval, Interval]:
    """Return the intervals of all time scales and of all delays, in bins.

    Latents with negligible loadings have a flat profile and the intervals (0, infinity) and (-infinity,
    infinity). What is no delay of the fit has NaN.

    Args:
        data: standardised training trials.
        fitted: parameters of the fit to them.
        prior: the kernel and its Fourier representation.
        problem: limits and penalty of the fit.
        drop: drop in log likelihood at the ends (nats).
    """
    relevant = np.flatnonzero((fitted.loading**2).sum(0).numpy() > 10 * NEGLIGIBLE_COLUMN)
    search = _Search(_ScaledNegativeEvidence(data, fitted, prior, problem), relevant)
    objective = search.objective
    wanted = objective.places(relevant)
    low, high = np.full((2, len(objective.start)), np.inf) * [[-1], [1]]
    for _ in range(_ROUNDS):
        n_maxima = search.n_maxima
        for at in wanted:
            for side, end in ((-1, low), (1, high)):
                if not math.isnan(end[at]):  # NaN: given up in the previous round
                    end[at] = _end(search, at, side, drop, objective.n_evaluations + _EVALUATIONS)
        if search.n_maxima == n_maxima:  # otherwise some ends refer to a lower maximum
            break
    log_time_scales, delays = zip(*map(objective.of_latents, (low, high, search.best)), strict=True)
    return Interval(*map(np.exp, log_time_scales)), Interval(*delays)


def _end(search: "_Search", at: int, side: int, drop: float, limit: int) -> float:
    """Return variable ``at`` (log tau or a delay) at one end of its interval, infinite if there is no end.

    NaN if the end is not found within ``limit`` evaluations of the objective, or is closer than rounding
    can resolve.

    The root of the deviance, r = sqrt(2 (maximum - profile)), is nearly linear in both, so that the
    secant through the last two points finds the end in two or three steps.
    """
    objective, goal = search.objective, math.sqrt(2 * drop)
    bound = objective.bound(at, side)
    known, root, x = search.best[at], 0.0, search.best
    value_at = known + side * goal * search.standard_error(at)
    while objective.n_evaluations < limit:
        value_at = side * min(side * value_at, side * bound)
        if side * (bound - search.best[at]) < _AT_BOUND:
            return side * math.inf
        if value_at == known:
            return math.nan
        if objective.make_room(objective.longest(x, at, value_at)):
            search.climb_to_maximum()
            return _end(search, at, side, drop, limit)
        value, there = search.profile(at, value_at, x)
        if not math.isfinite(value):  # too far, see `_ScaledNegativeEvidence`
            value_at = (known + value_at) / 2
            continue
        x = there
        if objective.make_room(objective.longest(x)) or value < search.lowest - 2 * _GAIN:
            search.climb_to_maximum(x if value < search.lowest - 2 * _GAIN else None)
            return _end(search, at, side, drop, limit)
        before, root = root, math.sqrt(2 * max(value - search.lowest, 0.0))
        if value_at == bound and root < goal:
            return side * math.inf
        far = abs(value_at - search.best[at])
        slope = side * (root - before) / (value_at - known)
        step = (goal - root) / slope if slope > 0 else far
        if abs(root - goal) < _CLOSE:
            return value_at + side * step
        known, value_at = value_at, value_at + side * float(np.clip(step, -far / 2, far))
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

    The variables are C where it is not zero by structure, log R, d, log tau and the delays that are learned.
    C is nearly uncoupled from R, unlike the fit's C / sqrt(R). The first three are scaled so that their
    second derivatives would be about 1 if the latents were known.

    Attributes:
        start: the fit.
        late: which delays are learned (modality, latent).
        n_evaluations: how often it was evaluated.
    """

    def __init__(self, data: PaddedTrials, fitted: Parameters, prior: Prior, problem: FitProblem):
        self._data, self._prior, self._problem = data, prior, problem
        loading, log_noise, offset, log_tau, delay = (p.numpy() for p in fitted)
        structure = problem.structure or Structure.of_one(*loading.shape)
        self._support, self.late = structure.support, structure.delayed
        self._longest_delay = structure.longest_delay
        count = np.maximum(data.observed.sum((0, 1)), 1.0)[:, None]
        curvature = np.broadcast_to(count, loading.shape)
        if problem.automatic_relevance:  # of one modality alone
            square = (loading**2).sum(0) + NEGLIGIBLE_COLUMN
            curvature = curvature + problem.automatic_relevance * len(loading) / square
        sigma = np.exp(log_noise / 2)[:, None]
        root = np.sqrt([curvature, *np.broadcast_to([count / 2, count], (2, *loading.shape))])
        n_others = len(log_tau) + int(self.late.sum())
        by_loading = (root[0] / sigma)[self._support]
        self._scale = np.concatenate(
            [by_loading, root[1, :, 0], root[2, :, 0] / sigma[:, 0], np.ones(n_others)]
        )
        late = np.broadcast_to(delay, self.late.shape)[self.late]
        arrays = (loading * sigma)[self._support], log_noise, offset, log_tau, late
        self._ends = np.cumsum([len(array) for array in arrays])
        self.start = np.concatenate(arrays) * self._scale
        self._lower, self._upper = np.full((2, len(self.start)), np.inf) * [[-1], [1]]
        noise = slice(*self._ends[:2])
        self._lower[noise] = math.log(problem.limits.noise_floor) * self._scale[noise]
        self._time_scales = slice(*self._ends[2:4])
        self._lower[self._time_scales] = self.bound(self._ends[2], -1)
        self._lower[self._ends[3] :], self._upper[self._ends[3] :] = -self._longest_delay, self._longest_delay
        self._cap = -math.inf
        self.n_evaluations = 0
        self.make_room(self.longest(self.start))

    def places(self, latents: NDArray[np.intp]) -> list[int]:
        """Return the variables whose intervals are wanted: log tau and delays of some latents."""
        of_delays = np.flatnonzero(np.isin(np.nonzero(self.late)[1], latents))
        return [*(int(self._ends[2] + k) for k in latents), *(int(self._ends[3] + i) for i in of_delays)]

    def of_latents(self, x: Array) -> tuple[Array, Array]:
        """Return log tau (latent,) and the delays (modality, latent), NaN where none is learned."""
        delay = np.full(self.late.shape, np.nan)
        delay[self.late] = x[self._ends[3] :]
        return x[self._time_scales], delay

    def bound(self, at: int, side: int) -> float:
        """Return the smallest (-1) or largest (1) value of log tau or a delay in the fit (bins)."""
        if at >= self._ends[3]:
            return side * self._longest_delay
        return math.log(self._problem.time_scale_bounds[side > 0])

    def longest(self, x: Array, at: int = 0, value: float = -math.inf) -> float:
        """Return the log of the longest time scale (bins), with variable ``at`` set to a value."""
        is_time_scale = self._ends[2] <= at < self._ends[3]
        return max(float(x[self._time_scales].max()), value if is_time_scale else -math.inf)

    def make_room(self, log_tau: float) -> bool:
        """Extend the circle if a time scale needs it, and return whether it did."""
        longest = math.log(self._problem.time_scale_bounds[1])
        if log_tau < self._cap - _AT_BOUND or self._cap == longest:
            return False
        self._cap = min(log_tau + math.log(_ROOM), longest)
        time_scale = np.exp(self.start[self._time_scales])
        delays = self._problem.delays
        self._blocks = make_blocks(self._data, self._prior, time_scale, math.exp(self._cap), delays=delays)
        self._upper[self._time_scales] = self._cap
        return True

    def clip(self, x: Array) -> Array:
        """Return the nearest point within the bounds."""
        return np.clip(x, self._lower, self._upper)

    def may_move(self, x: Array, gradient: Array) -> NDArray[np.bool_]:
        """Return which variables can move downhill without leaving their bounds."""
        return ~(((x <= self._lower) & (gradient > 0)) | ((x >= self._upper) & (gradient < 0)))

    def parameters(self, x: Array) -> Parameters:
        """Return the parameters at a point."""
        by_loading, log_noise, offset, log_tau, late = np.split(x / self._scale, self._ends[:-1])
        loading, delay = np.zeros(self._support.shape), np.zeros(self.late.shape)
        loading[self._support], delay[self.late] = by_loading, late
        arrays = loading / np.exp(log_noise / 2)[:, None], log_noise, offset, log_tau, delay
        return Parameters(*(torch.as_tensor(a, device=self._prior.device) for a in arrays))

    def __call__(self, x: Array) -> tuple[float, Array]:
        """Return value and gradient; infinity and NaN if rounding makes the precision indefinite."""
        self.n_evaluations += 1
        parameters = self.parameters(x)
        try:
            value, gradient = evaluate(self._blocks, parameters)
        except torch.linalg.LinAlgError:
            return math.inf, np.full(len(x), math.nan)
        if self._problem.automatic_relevance:
            penalty, slope = relevance_penalty(parameters.loading, self._problem.automatic_relevance)
            value, gradient = value + float(penalty), gradient._replace(loading=gradient.loading + slope)
        by_noise = gradient.log_noise - 0.5 * (gradient.loading * parameters.loading).sum(1)
        parts = gradient.loading, by_noise, gradient.offset, gradient.log_time_scale, gradient.delay
        arrays = [part.cpu().numpy() for part in parts]
        sigma = np.exp(parameters.log_noise.cpu().numpy() / 2)[:, None]
        free = (arrays[0] / sigma)[self._support], *arrays[1:4], arrays[4][self.late]
        return value, np.concatenate(free) / self._scale

    def first_differences(self, relevant: NDArray[np.intp]) -> list[tuple[Array, Array]]:
        """Return steps and gradient changes along the directions that the data determine least.

        These mix latents, trade latent means for offsets, and change time scales and delays. The steps are
        combined into directions conjugate under the curvature, so that each stays exact in the estimate.
        """
        at_start = np.zeros(self._support.shape)
        at_start[self._support] = np.split(self.start / self._scale, self._ends[:-1])[0]
        steps = [_unit(at, len(self.start)) for at in self.places(relevant)]
        for k in relevant:
            for j in relevant:
                loading, mixed = np.zeros_like(at_start), np.zeros_like(self.start)
                loading[:, k] = at_start[:, j]
                mixed[: self._ends[0]] = loading[self._support]
                steps.append(mixed)
            shifted = np.zeros_like(self.start)
            shifted[slice(*self._ends[1:3])] = at_start[:, k]
            steps.append(shifted)
        # latents of modalities that have none in common cannot be mixed
        step = np.array([one for one in steps if one.any()]) * self._scale * _NUDGE
        gradient = self(self.start)[1]
        change = np.array([self(self.start + s)[1] - gradient for s in step])
        curvature, vector = np.linalg.eigh((step @ change.T + change @ step.T) / 2)
        kept = vector[:, curvature > 1e-6 * curvature.max()].T
        return list(zip(kept @ step, kept @ change, strict=True))


def _unit(at: int, size: int) -> Array:
    unit = np.zeros(size)
    unit[at] = 1.0
    return unit
