"""GPFA as a model of the workflow: Gaussian with read-outs, of one or several modalities, or of counts."""

from abc import ABC, abstractmethod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import shift
from scipy.special import ndtri

from colatent.config.models import COUNT_LIKELIHOODS, GPFASettings, LatentGroup
from colatent.data.predictive import Predictive
from colatent.data.tasks import NOTHING_WITHHELD, Task, Withheld, subsets, tasks_of_latent_model
from colatent.data.trials import Layout, Trials
from colatent.errors import InputError
from colatent.models.base import (
    Array,
    FitRun,
    LatentSummary,
    State,
    array_of,
    arrays_of,
    part_of,
    with_prefix,
)
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.modalities import AUTO, Modalities, group_state, groups_of_state
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.time_scale_interval import TimeScaleInterval, interval_drop
from colatent.models.readout.latents import gaussian_unit, observations
from colatent.models.readout.readouts import Readouts
from colatent.models.readout.time_course import TimeCourse

# With the default convergence, fitted time scales can lie outside their own confidence intervals.
FITTING = FitOptions(max_iterations=500, convergence=1e-8)
LEVEL = 0.95  # confidence level of time-scale intervals
# Equiprobable values of the log mean that represent its posterior in a predictive distribution.
N_COMPONENTS = 32
INTERVAL = "interval."
_INTERVALS = [INTERVAL + end for end in TimeScaleInterval._fields]
# arrays of a GPFA that follow from settings and layout
_OF_LAYOUT = {"modality_names", "modality_channels", "square_root", "groups", "group_sizes"}
Question = tuple[tuple[str, ...], str]  # given modalities, predicted modality


class GPFAModel:
    """GPFA: Gaussian (of values or square-rooted counts) of any modalities, or counts of one.

    See `GPFA` and `CountGPFA` for the models themselves.

    Attributes:
        modalities: in the session's order.
        latent_groups: the group of each latent; none before a fit that finds them.
        history: rows of the training curve.
    """

    def __init__(self, settings: GPFASettings, layout: Layout, device: str = "cpu") -> None:
        self.layout = layout
        self.modalities = settings.modalities_among(layout.modalities)
        self.latent_groups = settings.latent_groups
        self.history: list[dict[str, float]] = []
        likelihoods = {m: settings.likelihood_of(m, layout.kinds[m]) for m in self.modalities}
        counts = not set(COUNT_LIKELIHOODS).isdisjoint(likelihoods.values())
        self._observation_model: _ObservationModel = (_Counts if counts else _Gaussian)(
            settings, layout, likelihoods
        )

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Fit to the training trials."""
        for modality in self.modalities:
            if not training.observed[modality].any():
                raise InputError(f"{modality}: nothing was observed in the training trials of this fold")
        self._observation_model.fit(training, run)  # deterministic: needs no seed
        self.latent_groups = self._observation_model.latent_groups
        self.history = self._observation_model.gpfa.history_
        return self

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return the tasks: each modality from each subset of modalities."""
        return tasks_of_latent_model(self.modalities, withheld)

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return the posterior mean and variance of the latents, each (trial, time, latent)."""
        self._only_own(given)
        return self._observation_model.posterior(trials, given)

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of every bin and channel, observed or not."""
        self._only_own((*given, predicted))
        return self._observation_model.predict(trials, given, predicted)

    def decode(self, latents: Array, modality: str) -> Array:
        """Return the expected observations (trial, time, channel) at latents (trial, time, latent).

        Latents that the modality follows are shifted; before their first bin they are taken to be as in it.
        """
        self._only_own((modality,))
        return self._observation_model.decode(latents, modality)

    def summary(self, latents: Array) -> LatentSummary:
        """Return loadings, delays and time scales, those of one Gaussian modality with intervals."""
        return self._observation_model.summary()

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the parameters and, for Gaussian likelihoods, read-outs and time-scale intervals."""
        return self._observation_model.state()

    @classmethod
    def from_state(cls, settings: GPFASettings, layout: Layout, state: State, device: str = "cpu") -> Self:
        """Rebuild a fit from its arrays."""
        model = cls(settings, layout)
        model._observation_model.load(state)
        model.latent_groups = model._observation_model.latent_groups
        return model

    def _only_own(self, modalities: tuple[str, ...]) -> None:
        if unknown := [m for m in modalities if m not in self.modalities]:
            raise ValueError(
                f"this model knows only {', '.join(map(repr, self.modalities))}, not {unknown[0]!r}"
            )


class _ObservationModel(ABC):
    """The parts of `GPFAModel` that depend on the likelihood; methods as there."""

    gpfa: GPFA | CountGPFA

    def __init__(self, settings: GPFASettings, layout: Layout, likelihoods: dict[str, str]) -> None:
        self.modalities = tuple(likelihoods)
        self.joined = tuple(settings.modalities)  # the order of the channels in the GPFA
        self.latent_groups = settings.latent_groups
        self.n_latents = len(settings.latent_groups)
        self.n_channels = {m: layout.n_channels(m) for m in likelihoods}
        self.spikes = {m: layout.kinds[m] == "spikes" for m in likelihoods}
        self.likelihoods = likelihoods

    def observation(self, trials: Trials, modality: str) -> Array:
        """Return the input of the GPFA (trial, time, channel), NaN where nothing was observed."""
        return observations(trials, modality, self.likelihoods[modality] == "gaussian-sqrt")

    @abstractmethod
    def fit(self, training: Trials, run: FitRun) -> None: ...

    @abstractmethod
    def posterior(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]: ...

    @abstractmethod
    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive: ...

    @abstractmethod
    def decode(self, latents: Array, modality: str) -> Array: ...

    @abstractmethod
    def summary(self) -> LatentSummary: ...

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]: ...

    @abstractmethod
    def load(self, state: State) -> None:
        """Restore a fit from its state."""


class _Gaussian(_ObservationModel):
    """Exact Gaussian GPFA; `Readouts` predict each modality from the latents, given each subset."""

    gpfa: GPFA

    def __init__(self, settings: GPFASettings, layout: Layout, likelihoods: dict[str, str]) -> None:
        super().__init__(settings, layout, likelihoods)
        self.finds_groups = settings.finds_groups
        self.several = len(self.modalities) > 1 or self.finds_groups
        self.n_bins = layout.n_bins if settings.mean == "time" else None
        if settings.mean == "time" and not layout.time_locked:
            raise InputError(
                "mean: time of a gpfa model needs trials aligned in time; windows of a continuous recording "
                "share no time course; use mean: constant"
            )
        self.gpfa = GPFA(
            max(1, self.n_latents),
            layout.bin_width,
            settings.kernel,
            latents=AUTO if self.finds_groups else settings.numbers if self.several else None,
            # `observation` takes the roots
            likelihood=dict.fromkeys(likelihoods, "gaussian") if self.several else None,
            delays=settings.delays,
            fitting=FITTING,
            automatic_relevance=settings.automatic_relevance,
        )
        self.readouts: dict[Question, Readouts] = {}

    @property
    def questions(self) -> list[Question]:
        """What is predicted from what."""
        return [(given, predicted) for given in subsets(self.modalities) for predicted in self.modalities]

    def seen(self, trials: Trials, given: tuple[str, ...]) -> Any:
        """Return the input of the GPFA: what is given of the trials."""
        if not self.several:
            return self.observation(trials, given[0])
        return {m: self.observation(trials, m) for m in self.joined if m in given}

    def fit(self, training: Trials, run: FitRun) -> None:
        seen = self.seen(training, self.modalities)
        self.gpfa.fit(seen, progress=run.progress)
        if self.finds_groups:
            self._adopt(self.gpfa.latents)
        courses = {} if self.n_bins is None else {m: TimeCourse.fit(training, m) for m in self.modalities}
        for given, predicted in self.questions:

            def infer(trials: Trials, question: Question = (given, predicted)) -> Array:
                return self._seen_latents(trials, *question)

            withheld = run.withheld if predicted in given else NOTHING_WITHHELD
            course = courses.get(predicted)
            self.readouts[given, predicted] = Readouts.fit(infer, predicted, training, withheld, course)
        unknown = TimeScaleInterval(*np.full((3, self.n_latents), np.nan))
        intervals = run.intervals and not self.several
        self.interval = self.gpfa.time_scale_interval(seen, LEVEL) if intervals else unknown

    def _adopt(self, groups: dict[str, int]) -> None:
        """Take the groups that a fit has found for those of the settings."""
        self.latent_groups = tuple(LatentGroup.of(name) for name, n in groups.items() for _ in range(n))
        self.n_latents = len(self.latent_groups)
        self.joined = tuple(dict.fromkeys(m for name in groups for m in name.split("+")))

    def posterior(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        found = self.gpfa.posterior(self.seen(trials, given))
        return found.mean, found.variance

    def _seen_latents(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Array:
        """Posterior means of the latents that drive a modality, at the times at which it sees them."""
        if not self.several:
            return self.gpfa.posterior(self.seen(trials, given)).mean
        mean = self.gpfa.latents_seen_by(predicted, self.seen(trials, given))
        return mean[..., self._drives(predicted)]

    def _drives(self, modality: str) -> NDArray[np.bool_]:
        return np.array([modality in group.modalities for group in self.latent_groups])

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        latents = self._seen_latents(trials, given, predicted)
        return self.readouts[given, predicted].predict(latents, trials)

    def decode(self, latents: Array, modality: str) -> Array:
        if self.several:
            row = self.gpfa.delay_[self.joined.index(modality)] / self.gpfa.bin_width
            late = [
                shift(latents[..., k], (0, row[k]), order=1, mode="nearest") if row[k] else latents[..., k]
                for k in np.flatnonzero(self._drives(modality))
            ]
            latents = np.stack(late, axis=-1)
        return self.readouts[self.modalities, modality].decode(latents)

    def summary(self) -> LatentSummary:
        likelihood = "penalised" if self.gpfa.automatic_relevance > 0 else "marginal"
        units = {m: gaussian_unit(m, self.likelihoods[m] == "gaussian-sqrt") for m in self.modalities}
        return LatentSummary(
            {m: self.gpfa.loading_[self._layout.channels(m)] for m in self.modalities},
            units,
            self.gpfa.time_scale_,
            self.interval._asdict(),
            {"level": LEVEL, "drop": interval_drop(LEVEL), "likelihood": likelihood},
            dict(zip(self.joined, self.gpfa.delay_, strict=True)) if self.gpfa.delays else {},
        )

    @property
    def _layout(self) -> Modalities:
        sizes = tuple(self.n_channels[m] for m in self.joined)
        return Modalities(self.joined, sizes, (False,) * len(sizes))

    def state(self) -> dict[str, NDArray[Any]]:
        state = {name: array for name, array in self.gpfa.state().items() if name not in _OF_LAYOUT}
        if self.finds_groups:
            state |= group_state(self.gpfa.latents)
        for question, readouts in self.readouts.items():
            state |= with_prefix(self._prefix(question), readouts.state())
        return state | with_prefix(INTERVAL, self.interval._asdict())

    def _prefix(self, question: Question) -> str:
        given, predicted = question
        return f"{'+'.join(given)}>{predicted}|" if self.several else ""

    def load(self, state: State) -> None:
        groups = self.gpfa.latents
        if self.finds_groups:
            groups = groups_of_state(state)
            self._adopt(groups)
            if set(self.joined) != set(self.modalities):
                raise ValueError("groups are not of the model's modalities")
            state = {name: array for name, array in state.items() if name not in _OF_LAYOUT}
        n, q = sum(self.n_channels.values()), self.n_latents
        scalars = ("bin_width", "tolerance", "kernel", "noise_floor", "automatic_relevance")
        shapes: dict[str, tuple[int | None, ...]] = dict.fromkeys(scalars, ())
        shapes |= {"loading": (n, q), "offset": (n,), "noise_variance": (n,), "time_scale": (q,)}
        for question in self.questions:
            prefix, predicted = self._prefix(question), question[1]
            n_seen = int(self._drives(predicted).sum())
            own = Readouts.shapes(part_of(state, prefix), self.n_channels[predicted], n_seen, self.n_bins)
            shapes |= {prefix + name: shape for name, shape in own.items()}
        # an end may be open (0 or infinite) or unknown (NaN); a latent has no delay where it drives nothing
        may_be_nan = dict.fromkeys(_INTERVALS, (q,)) | (
            {"delay": (len(self.joined), q)} if self.several else {}
        )
        known = {name: array_of(state, name, *shape, finite=False) for name, shape in may_be_nan.items()}
        arrays = arrays_of({k: v for k, v in state.items() if k not in known}, shapes)
        of_layout = self._layout.state() | group_state(groups) if self.several else {}
        self.gpfa = GPFA.from_state(arrays | known | of_layout)
        for question in self.questions:
            found, predicted = part_of(arrays, self._prefix(question)), question[1]
            self.readouts[question] = Readouts.from_state(predicted, self.spikes[predicted], found)
        self.interval = TimeScaleInterval(*(known[name] for name in _INTERVALS))


class _Counts(_ObservationModel):
    """GPFA of the counts of one modality, which predicts counts directly."""

    gpfa: CountGPFA

    def __init__(self, settings: GPFASettings, layout: Layout, likelihoods: dict[str, str]) -> None:
        super().__init__(settings, layout, likelihoods)
        ((self.modality, self.likelihood),) = likelihoods.items()
        self.gpfa = CountGPFA(self.n_latents, layout.bin_width, settings.kernel, likelihood=self.likelihood)

    def fit(self, training: Trials, run: FitRun) -> None:
        self.gpfa.fit(self.observation(training, self.modality), run.progress)

    def posterior(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        found = self.gpfa.posterior(self.observation(trials, self.modality))
        return found.mean, found.variance

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return a mixture over the posterior of each channel's log mean, at equiprobable quantiles."""
        eta = self.gpfa.predictor(self.observation(trials, self.modality))
        quantile = ndtri((np.arange(N_COMPONENTS) + 0.5) / N_COMPONENTS)
        quantile /= np.sqrt((quantile**2).mean())  # unit variance
        component = np.exp(eta.mean + quantile[:, None, None, None] * np.sqrt(eta.variance))
        # the quantiles miss the tails: correct the mean, which is known exactly
        component *= np.exp(eta.mean + eta.variance / 2) / component.mean(axis=0)
        scale = self.gpfa.dispersion_ if self.likelihood == "negative-binomial" else None
        return Predictive(self.likelihood, component, scale)

    def decode(self, latents: Array, modality: str) -> Array:
        return np.exp(latents @ self.gpfa.loading_.T + self.gpfa.offset_)

    def summary(self) -> LatentSummary:
        loading = {self.modality: self.gpfa.loading_}
        return LatentSummary(loading, {self.modality: "log rate"}, self.gpfa.time_scale_)

    def state(self) -> dict[str, NDArray[Any]]:
        return self.gpfa.state()

    def load(self, state: State) -> None:
        n, q = self.n_channels[self.modality], self.n_latents
        scalars = ("bin_width", "tolerance", "kernel", "likelihood")
        shapes = {"loading": (n, q), "offset": (n,), "dispersion": (n,), "time_scale": (q,)}
        self.gpfa = CountGPFA.from_state(arrays_of(state, shapes | dict.fromkeys(scalars, ())))
