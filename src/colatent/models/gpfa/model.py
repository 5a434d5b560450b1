"""GPFA as a model of the workflow: one joint posterior of all latents, and read-outs from them."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from colatent.config.models import GPFASettings, LatentGroup
from colatent.data.likelihoods import LIKELIHOODS, CountLikelihood
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
from colatent.models.gpfa.likelihood_choice import chosen_likelihood, in_words
from colatent.models.gpfa.modalities import AUTO, Modalities, group_state, groups_of
from colatent.models.gpfa.options import FitOptions
from colatent.models.gpfa.profile_intervals import Interval, interval_drop
from colatent.models.readout.latents import observations, unit_of_loadings
from colatent.models.readout.readouts import Readouts
from colatent.models.readout.time_course import TimeCourse

# With the default convergence, fitted time scales can lie outside their own confidence intervals.
FITTING = FitOptions(max_iterations=500, convergence=1e-8)
LEVEL = 0.95  # confidence level of intervals
INTERVAL, DELAY_INTERVAL = "interval.", "delay_interval."
# arrays of a GPFA that follow from settings, layout and likelihoods
_OF_LAYOUT = {
    *("modality_names", "modality_channels", "modality_likelihoods", "groups", "group_sizes", "likelihood")
}
_GROUPS = {"groups", "group_sizes"}  # stored only where a fit finds them
_CHOSEN, _CHOSEN_BY = "likelihoods", "mean_counts"
_NAMES = list(LIKELIHOODS)
_NONE = np.zeros(0, dtype=bool)
Question = tuple[tuple[str, ...], str]  # given modalities, predicted modality


class GPFAModel:
    """GPFA of one or several modalities; `Readouts` predict each from the latents, given each subset.

    See `GPFA` (Gaussian, exact) and `CountGPFA` (with counts by their own likelihood).

    Attributes:
        modalities: in the session's order.
        latent_groups: the group of each latent; none before a fit that finds them.
        likelihoods: modality -> likelihood, once it is fitted.
        mean_counts: modality -> mean count per bin by which its likelihood was chosen; NaN if it was named.
        history: rows of the training curve.
    """

    gpfa: GPFA | CountGPFA
    likelihoods: dict[str, str]
    mean_counts: dict[str, float]

    def __init__(self, settings: GPFASettings, layout: Layout, device: str = "cpu") -> None:
        self.settings, self.layout = settings, layout
        self.modalities = settings.modalities_among(layout.modalities)
        self._adopt(settings.numbers)
        self.history: list[dict[str, float]] = []
        self.readouts: dict[Question, Readouts] = {}
        self.several = len(self.modalities) > 1
        self.mean = settings.mean_of(layout.time_locked)
        if self.mean != "constant" and not layout.time_locked:
            raise InputError(
                f"mean: {self.mean} of a gpfa model needs trials aligned in time; windows of a "
                "continuous recording share no time course; use mean: constant"
            )

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Fit to the training trials."""
        for modality in self.modalities:
            if not training.observed[modality].any():
                raise InputError(f"{modality}: nothing was observed in the training trials of this fold")
        told = self.mean == "condition"
        if told and training.condition is None:
            raise InputError(
                "mean: condition of a gpfa model needs the condition of each trial: name its column in "
                "alignment.condition; or use mean: time"
            )
        self._choose_likelihoods(training, run)
        if self.settings.finds_groups:
            self._adopt(self._found_groups(training, run))
        self.gpfa = self._unfitted()
        seen = self._seen(training, self.modalities)
        self.gpfa.fit(seen, progress=run.progress)  # deterministic: needs no seed
        self.history = self.gpfa.history_
        if not self.gpfa.converged_:
            run.progress(f"not converged after {len(self.history)} iterations, the most that a fit makes")
        with_course = () if self.mean == "constant" else self.modalities
        courses = {m: TimeCourse.fit(training, m, told) for m in with_course}
        for m, one in courses.items() if told else ():
            run.progress(f"{m}: time course of all trials weighs {one.prior_trials:g} trials of a condition")
        known: dict[Any, Array] = {}
        for given, predicted in self._questions:

            def infer(trials: Trials, question: Question = (given, predicted)) -> Array:
                return self._driving(question[1], self._known(known, trials, *question))

            withheld = run.withheld if predicted in given else NOTHING_WITHHELD
            course = courses.get(predicted)
            self.readouts[given, predicted] = Readouts.fit(infer, predicted, training, withheld, course)
        self._find_intervals(seen, run)
        return self

    def _find_intervals(self, seen: Any, run: FitRun) -> None:
        """Find the intervals of time scales and delays if they are asked for; they are NaN otherwise."""
        nan = np.full((3, len(self.joined), len(self.latent_groups)), np.nan)
        self.interval, self.delay_interval = Interval(*nan[:, 0]), Interval(*nan)
        if not (run.intervals and self.settings.intervals):
            return
        if isinstance(self.gpfa, GPFA):
            run.progress("searching for the ends of the confidence intervals")
            self.interval, self.delay_interval = self.gpfa.intervals(seen, LEVEL)
        else:
            run.progress("no confidence intervals: the likelihood of such counts is only bounded from below")

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return the tasks: each modality from each subset of modalities."""
        return tasks_of_latent_model(self.modalities, withheld)

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return the posterior mean and variance of the latents, each (trial, time, latent)."""
        self._only_own(given)
        found = self.gpfa.posterior(self._seen(trials, given))
        return found.mean, found.variance

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of every bin and channel, observed or not."""
        latents = self._driving(predicted, self.latents_seen_by(predicted, trials, given))
        return self.readouts[given, predicted].predict(latents, trials)

    def latents_seen_by(self, modality: str, trials: Trials, given: tuple[str, ...]) -> Array:
        """Return the posterior means at t - D, (trial, time, latent), beyond the ends of trials too."""
        self._only_own((*given, modality))
        seen = self._seen(trials, given)
        return self.gpfa.latents_seen_by(modality, seen) if self.several else self.gpfa.posterior(seen).mean

    def decode(self, latents: Array, modality: str, condition: NDArray[np.str_] | None = None) -> Array:
        """Return the expected observations (trial, time, channel) at latents as the modality sees them."""
        self._only_own((modality,))
        return self.readouts[self.modalities, modality].decode(self._driving(modality, latents), condition)

    def summary(self, latents: Array) -> LatentSummary:
        """Return loadings, delays and time scales, with intervals if they were asked for."""
        likelihood = "penalised" if self.settings.automatic_relevance > 0 else "marginal"
        return LatentSummary(
            {m: self.gpfa.loading_[self._layout.channels(m)] for m in self.modalities},
            {m: unit_of_loadings(m, one) for m, one in self.likelihoods.items()},
            time_scale=self.gpfa.time_scale_,
            interval=self.interval._asdict(),
            interval_attrs={"level": LEVEL, "drop": interval_drop(LEVEL), "likelihood": likelihood},
            delay=dict(zip(self.joined, self.gpfa.delay_, strict=True)) if self.gpfa.delays else {},
            longest_delay=self.gpfa.longest_delay_,
            delay_interval=self.delay_interval._asdict() if self.gpfa.delays else {},
            likelihood={m: in_words(one, self.mean_counts[m]) for m, one in self.likelihoods.items()},
        )

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the parameters, the likelihoods, the read-outs and the intervals."""
        state = {name: array for name, array in self.gpfa.state().items() if name not in _OF_LAYOUT}
        if self.settings.finds_groups:
            state |= group_state(self.numbers)
        state[_CHOSEN] = np.array([_NAMES.index(self.likelihoods[m]) for m in self.modalities])
        state[_CHOSEN_BY] = np.array([self.mean_counts[m] for m in self.modalities])
        for question, readouts in self.readouts.items():
            state |= with_prefix(self._prefix(question), readouts.state())
        if self.settings.delays:
            state |= with_prefix(DELAY_INTERVAL, self.delay_interval._asdict())
        return state | with_prefix(INTERVAL, self.interval._asdict())

    @classmethod
    def from_state(cls, settings: GPFASettings, layout: Layout, state: State, device: str = "cpu") -> Self:
        """Rebuild a fit from its arrays."""
        model = cls(settings, layout)
        model._load(state)
        return model

    def _load(self, state: State) -> None:
        if self.settings.finds_groups:
            self._adopt(groups_of(state))
            if set(self.joined) != set(self.modalities):
                raise ValueError("groups are not of the model's modalities")
            state = {name: array for name, array in state.items() if name not in _GROUPS}
        chosen = array_of(state, _CHOSEN, len(self.modalities)).astype(int)
        self.likelihoods = {m: _NAMES[i] for m, i in zip(self.modalities, chosen, strict=True)}
        n, q = sum(map(self.layout.n_channels, self.modalities)), len(self.latent_groups)
        shapes: dict[str, tuple[int | None, ...]] = dict.fromkeys(("bin_width", "tolerance", "kernel"), ())
        shapes |= {"loading": (n, q), "offset": (n,), "time_scale": (q,), _CHOSEN: (len(self.modalities),)}
        if self._counts:
            shapes |= {"dispersion": (n,)}
        else:
            shapes |= {"noise_variance": (n,), "noise_floor": (), "automatic_relevance": ()}
        for question in self._questions:
            prefix, predicted = self._prefix(question), question[1]
            n_seen = int(self._drives(predicted).sum())
            n_bins = None if self.mean == "constant" else self.layout.n_bins
            sizes = self.layout.n_channels(predicted), n_seen, n_bins, self.mean == "condition"
            own = Readouts.shapes(part_of(state, prefix), *sizes)
            shapes |= {prefix + name: shape for name, shape in own.items()}
        if self.several:
            shapes["longest_delay"] = ()
        # an end may be open (0 or infinite) or unknown (NaN); a latent has no delay where it drives nothing
        of_delays = (len(self.joined), q)
        may_be_nan: dict[str, tuple[int, ...]] = {INTERVAL + end: (q,) for end in Interval._fields}
        may_be_nan[_CHOSEN_BY] = (len(self.modalities),)
        may_be_nan |= {"delay": of_delays} if self.several else {}
        if self.settings.delays:
            may_be_nan |= {DELAY_INTERVAL + end: of_delays for end in Interval._fields}
        known = {name: array_of(state, name, *shape, finite=False) for name, shape in may_be_nan.items()}
        arrays = arrays_of({k: v for k, v in state.items() if k not in known}, shapes)
        self.gpfa = self._unfitted()
        self.gpfa = type(self.gpfa).from_state(arrays | known | self._of_layout())
        for question in self._questions:
            found, predicted = part_of(arrays, self._prefix(question)), question[1]
            is_spikes = self.layout.kinds[predicted] == "spikes"
            self.readouts[question] = Readouts.from_state(predicted, is_spikes, found)
        self.mean_counts = dict(zip(self.modalities, known[_CHOSEN_BY].tolist(), strict=True))
        self.interval = Interval(**part_of(known, INTERVAL))
        if self.settings.delays:
            self.delay_interval = Interval(**part_of(known, DELAY_INTERVAL))

    def _adopt(self, numbers: dict[str, int]) -> None:
        """Take numbers of latents by group: those of the settings, or those found."""
        self.numbers = numbers
        self.latent_groups = tuple(LatentGroup.of(name) for name, n in numbers.items() for _ in range(n))
        # the order of the channels in the GPFA
        self.joined = tuple(dict.fromkeys(m for name in numbers for m in name.split("+")))

    def _found_groups(self, training: Trials, run: FitRun) -> dict[str, int]:
        """Return the latent groups found; counts enter the search as square roots."""
        roots = {m for m in self.modalities if self.likelihoods[m] != "gaussian"}
        seen = {m: observations(training, m, m in roots) for m in self.settings.modalities}
        finder = GPFA(
            bin_width=self.layout.bin_width,
            kernel=self.settings.kernel,
            latents=AUTO,
            likelihood=dict.fromkeys(seen, "gaussian"),
            delays=self.settings.delays,
        )
        return finder.find_groups(seen, run.progress)

    def _choose_likelihoods(self, training: Trials, run: FitRun) -> None:
        """Take each modality's likelihood from the settings, or choose it by the training trials."""
        self.likelihoods, self.mean_counts = {}, {}
        for modality in self.modalities:
            named = self.settings.likelihood_of(modality, self.layout.kinds[modality])
            found = (named, np.nan) if named else chosen_likelihood(training.with_nan(modality))
            self.likelihoods[modality], self.mean_counts[modality] = found
            if not named:
                run.progress(f"{modality}: {in_words(*found)}")

    @property
    def _counts(self) -> bool:
        return any(isinstance(LIKELIHOODS[one], CountLikelihood) for one in self.likelihoods.values())

    @property
    def _of_gpfa(self) -> dict[str, str]:
        """The likelihoods that the GPFA knows, which is given roots, in the order of its channels."""
        known = self.likelihoods
        return {m: "gaussian" if known[m] == "gaussian-sqrt" else known[m] for m in self.joined}

    def _unfitted(self) -> GPFA | CountGPFA:
        settings, of_gpfa = self.settings, self._of_gpfa
        options: dict[str, Any] = {"bin_width": self.layout.bin_width, "kernel": settings.kernel}
        if self.several:
            options |= {"latents": self.numbers, "likelihood": of_gpfa, "delays": settings.delays}
        else:
            options["n_latents"] = len(self.latent_groups)
        if not self._counts:
            relevance = settings.automatic_relevance
            return GPFA(**options, fitting=FITTING, automatic_relevance=relevance)
        return CountGPFA(**({"likelihood": of_gpfa[self.joined[0]]} | options))

    def _of_layout(self) -> dict[str, NDArray[Any]]:
        """Return the arrays of the GPFA that a state leaves out."""
        if self.several:
            return self._layout.state() | group_state(self.gpfa.latents)
        return {"likelihood": np.array(_NAMES.index(self._of_gpfa[self.joined[0]]))} if self._counts else {}

    @property
    def _layout(self) -> Modalities:
        sizes = tuple(map(self.layout.n_channels, self.joined))
        return Modalities(self.joined, sizes, tuple(self._of_gpfa.values()))

    @property
    def _questions(self) -> list[Question]:
        """What is predicted from what."""
        return [(given, predicted) for given in subsets(self.modalities) for predicted in self.modalities]

    def _seen(self, trials: Trials, given: tuple[str, ...]) -> Any:
        """Return the input of the GPFA: what is given of the trials, NaN where nothing was observed."""
        seen = {
            m: observations(trials, m, self.likelihoods[m] == "gaussian-sqrt")
            for m in self.joined
            if m in given
        }
        return seen if self.several else seen[given[0]]

    def _known(
        self, known: dict[Any, Array], trials: Trials, given: tuple[str, ...], predicted: str
    ) -> Array:
        """Return the latents of training trials, inferred once for all modalities that see them alike."""
        hidden = tuple((m, trials.hidden[m].tobytes()) for m in given if trials.hidden.get(m, _NONE).any())
        key = given, predicted if self.gpfa.delays else "", trials.hidden_end, hidden
        if key not in known:
            if any(other[0] != given for other in known):  # all questions on them have been answered
                known.clear()
            known[key] = self.latents_seen_by(predicted, trials, given)
        return known[key]

    def _driving(self, modality: str, latents: Array) -> Array:
        return latents[..., self._drives(modality)] if self.several else latents

    def _drives(self, modality: str) -> NDArray[np.bool_]:
        return np.array([modality in group.modalities for group in self.latent_groups])

    def _prefix(self, question: Question) -> str:
        given, predicted = question
        return f"{'+'.join(given)}>{predicted}|" if self.several else ""

    def _only_own(self, modalities: tuple[str, ...]) -> None:
        if unknown := [m for m in modalities if m not in self.modalities]:
            raise ValueError(
                f"this model knows only {', '.join(map(repr, self.modalities))}, not {unknown[0]!r}"
            )
