"""Baselines that predict one modality from the others at several lags."""

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from colatent.config.models.baselines import LAGS, LagRegressionSettings
from colatent.data.predictive import Predictive
from colatent.data.scaling import MIN_DEVIATION, Standardizer
from colatent.data.tasks import Task, Withheld, subsets
from colatent.data.trials import Layout, Trials
from colatent.models.base import Array, FitRun, State, array_of, arrays_of, part_of, with_prefix

# floor of predicted rates as a share of the unit's mean, below which a spike would be all but impossible
MIN_RATE = 0.02
MOST_PREDICTORS = 3000  # of many channels, more lags than the fewest cost more than a baseline may


def rate_of(values: Array, observed: NDArray[np.bool_]) -> Array:
    """Return the mean counts per bin (channel,), of a silent channel one spike in all trials."""
    return np.maximum(Standardizer.fit(values, observed).mean, 1 / max(values.shape[0] * values.shape[1], 1))


def lagged(values: Array, n_lags: int) -> Array:
    """Return each bin with its neighbours, (trial, time, lag * channel), zero past the trial's ends."""
    half = n_lags // 2
    padded = np.pad(values, ((0, 0), (half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, n_lags, axis=1)
    return windows.transpose(0, 1, 3, 2).reshape(*values.shape[:2], -1)


class LagRegression(ABC):
    """Predicts each modality from every subset of the others, with one regression for each pair.

    Counts are square-rooted as predictors, which evens out their variance. Predictors and continuous targets
    are standardised by the training trials; predictors that are unobserved or past the trial's end are set to
    their training mean. Predictions are Poisson for counts, and Gaussian for continuous values, with the
    residual s.d. on training trials held out of the regression. Windows of a continuous recording are held
    out in blocks.
    """

    def __init__(self, settings: LagRegressionSettings, layout: Layout, device: str = "cpu") -> None:
        self.lags = settings.lags
        self.layout = layout
        self.modalities = layout.modalities
        self.history: list[dict[str, float]] = []
        self._scales: dict[str, Standardizer] = {}
        self._min_rate: dict[str, Array] = {}
        self._fitted: dict[Task, dict[str, NDArray[Any]]] = {}

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return a task for every fitted pair."""
        return [
            Task("modality", given, predicted)
            for predicted in self.modalities
            for given in subsets(m for m in self.modalities if m != predicted)
        ]

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Fit all pairs to the training trials."""
        for m in self.modalities:
            values, observed = training.values[m], training.observed[m]
            self._scales[m] = Standardizer.fit(self._change(m, values), observed)
            if self._counts(m):
                self._min_rate[m] = MIN_RATE * rate_of(values, observed)
        for task in self.tasks(run.withheld):
            target, observed = training.values[task.predicted], training.observed[task.predicted]
            counts = self._counts(task.predicted)
            wanted = target if counts else self._scales[task.predicted].apply(target, observed)
            fits = {
                n: self._regress(
                    self._predictors(training, task.given, n), wanted, observed, counts, run.seed
                )
                for n in self._lag_choices(task)
            }
            best = min(fits, key=lambda n: float(np.square(fits[n]["residual"]).sum()))
            self._fitted[task] = fits[best] | {"lags": np.array(best)}
            run.progress(f"{task.given_name}>{task.predicted}: fitted at {best} lags")
        return self

    def _lag_choices(self, task: Task) -> list[int]:
        """Return the numbers of lags to choose from, by errors on trials held out of the regression."""
        if self.lags is not None:
            return [self.lags]
        n_channels = sum(self.layout.n_channels(m) for m in task.given)
        return [n for n in LAGS if n == LAGS[0] or n * n_channels <= MOST_PREDICTORS]

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the regression of ``predicted`` on ``given``."""
        fitted = self._fitted.get(Task("modality", tuple(given), predicted))
        if fitted is None:
            raise ValueError(f"no regression of {predicted!r} on {given}")
        counts, scale = self._counts(predicted), self._scales[predicted]
        mean = self._apply(fitted, self._predictors(trials, given, int(fitted["lags"])), counts)
        if counts:
            return Predictive("poisson", np.maximum(mean, self._min_rate[predicted])[None])
        deviation = np.maximum(fitted["residual"], MIN_DEVIATION) * scale.deviation
        return Predictive("gaussian", (mean * scale.deviation + scale.mean)[None], deviation)

    def _counts(self, modality: str) -> bool:
        return self.layout.kinds[modality] == "spikes"

    def _change(self, modality: str, values: Array) -> Array:
        return np.sqrt(values) if self._counts(modality) else values

    def _predictors(self, trials: Trials, given: tuple[str, ...], lags: int) -> Array:
        scaled = (self._scales[m].apply(self._change(m, trials.values[m]), trials.observed[m]) for m in given)
        return np.concatenate([lagged(values, lags) for values in scaled], axis=-1)

    @abstractmethod
    def _regress(
        self, x: Array, y: Array, observed: NDArray[np.bool_], counts: bool, seed: int
    ) -> dict[str, NDArray[Any]]:
        """Regress y (trial, time, channel) on x (trial, time, predictor); with ``residual`` (channel,)."""

    @abstractmethod
    def _shapes(self, n_predictors: int, n_channels: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the arrays returned by `_regress`."""

    @abstractmethod
    def _apply(self, fitted: dict[str, NDArray[Any]], x: Array, counts: bool) -> Array:
        """Return the prediction (trial, time, channel)."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the regressions' arrays and the means and s.d.s of the standardisation."""
        state: dict[str, NDArray[Any]] = {}
        for m, scale in self._scales.items():
            state |= with_prefix(f"{m}|", vars(scale))
        for m, least in self._min_rate.items():
            state[f"{m}|least"] = least
        for task, fitted in self._fitted.items():
            state |= with_prefix(_prefix(task), fitted)
        return state

    @classmethod
    def from_state(
        cls, settings: LagRegressionSettings, layout: Layout, state: State, device: str = "cpu"
    ) -> Self:
        """Rebuild a fit from its arrays."""
        model = cls(settings, layout)
        arrays = arrays_of(state, model._state_shapes(state))
        for m in model.modalities:
            model._scales[m] = Standardizer(arrays[f"{m}|mean"], arrays[f"{m}|deviation"])
            if model._counts(m):
                model._min_rate[m] = arrays[f"{m}|least"]
        for task in model.tasks(Withheld({})):
            model._fitted[task] = part_of(arrays, _prefix(task))
        return model

    def _state_shapes(self, state: State) -> dict[str, tuple[int | None, ...]]:
        n = {m: self.layout.n_channels(m) for m in self.modalities}
        shapes: dict[str, tuple[int | None, ...]] = {}
        for m in self.modalities:
            names = ("mean", "deviation", "least") if self._counts(m) else ("mean", "deviation")
            shapes |= {f"{m}|{name}": (n[m],) for name in names}
        for task in self.tasks(Withheld({})):
            lags = int(array_of(state, _prefix(task) + "lags"))
            own = self._shapes(lags * sum(n[m] for m in task.given), n[task.predicted])
            shapes |= {_prefix(task) + name: shape for name, shape in (own | {"lags": ()}).items()}
        return shapes


def _prefix(task: Task) -> str:
    return f"{task.given_name}>{task.predicted}|"
