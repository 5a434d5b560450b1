"""Score one fit on the trials, channels and modalities that it did not see."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from colatent.models.lagged_regression import LagRegression, subsets
from colatent.predictive import Predictive
from colatent.scoring import calibration, metrics
from colatent.standardize import Standardizer
from colatent.trials import Trials

N_DRAWN = 12
COLUMNS = ("heldout", "given", "predicted", "channel", "metric", "value", "n")


class Task(NamedTuple):
    """One question to a model: predict this from that, with the rest kept from it."""

    heldout: str
    given: tuple[str, ...]
    predicted: str

    @property
    def given_name(self) -> str:
        """How ``given`` is written in tables and stores."""
        return "+".join(self.given) or "none"


def tasks(model: Any, modalities: tuple[str, ...], hidden: Mapping[str, NDArray[np.bool_]]) -> Iterator[Task]:
    """Yield the questions that a model can answer.

    Args:
        model: a fitted model.
        modalities: those it describes.
        hidden: modality -> channels (channel,) held out for co-smoothing.
    """
    if isinstance(model, LagRegression):
        yield from (Task("modality", given, predicted) for given, predicted in model.pairs())
        return
    if not model.latent_groups:  # the condition mean looks at no modality
        for predicted in modalities:
            yield Task("trials", (), predicted)
            if predicted in hidden:
                yield Task("channels", (), predicted)
        return
    for predicted in modalities:
        for given in subsets(modalities):
            yield Task("trials" if predicted in given else "modality", given, predicted)
            if predicted in given and predicted in hidden:
                yield Task("channels", given, predicted)


def largest_tasks(
    model: Any, modalities: tuple[str, ...], hidden: Mapping[str, NDArray[np.bool_]]
) -> list[Task]:
    """Return, of each kind of question and predicted modality, the one with the most modalities given."""
    largest: dict[tuple[str, str], Task] = {}
    for task in tasks(model, modalities, hidden):
        key = (task.heldout, task.predicted)
        if key not in largest or len(task.given) > len(largest[key].given):
            largest[key] = task
    return list(largest.values())


def answer(
    model: Any, task: Task, test: Trials, hidden: Mapping[str, NDArray[np.bool_]]
) -> tuple[Predictive, NDArray[np.bool_]]:
    """Return the prediction and the mask of what is scored, both (trial, time, channel).

    The model is handed trials from which everything it must not see has been removed.
    """
    seen = test.only(task.given)
    scored = test.observed[task.predicted]
    if task.heldout == "channels":
        channel = hidden[task.predicted]
        seen = seen.hide({task.predicted: channel})
        scored = scored & channel
    return model.predict(seen, task.given, task.predicted), scored


def score(
    predictive: Predictive,
    task: Task,
    test: Trials,
    training: Trials,
    scored: NDArray[np.bool_],
    hidden: Mapping[str, NDArray[np.bool_]],
) -> list[dict[str, Any]]:
    """Return the tidy rows of all metrics that suit the predicted modality."""
    observation, prediction = test.values[task.predicted], predictive.mean
    scale = training_scale(training.values[task.predicted], training.observed[task.predicted])
    results: dict[str, metrics.Score] = {}
    if test.kinds[task.predicted] == "spikes":
        results["bits_per_spike"] = metrics.bits_per_spike(observation, prediction, scored)
        if test.condition is not None:
            results["psth_r2"] = metrics.psth_r2(observation, prediction, scored, test.condition, scale)
    else:
        results["r2"] = metrics.r2(observation, prediction, scored, scale)
        results["nrmse"] = metrics.nrmse(observation, prediction, scored, scale)
    results["log_density"] = metrics.mean_over_observed(predictive.log_density(observation), scored)
    for level, covered in zip((50, 95), predictive.coverage(observation, 0.5, 0.95), strict=True):
        results[f"coverage_{level}"] = metrics.mean_over_observed(covered, scored)
    names = test.channels[task.predicted]
    everything = np.ones(len(names), dtype=bool)
    evaluated = hidden[task.predicted] if task.heldout == "channels" else everything
    return [row for name, one in results.items() for row in _rows(task, name, one, names, evaluated)]


def training_scale(values: NDArray[np.float64], observed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return each channel's s.d. in the training trials; NaN, so that it is not pooled, if it has none."""
    low, high = (
        f(np.where(observed, values, fill), axis=(0, 1)) for f, fill in ((np.min, np.inf), (np.max, -np.inf))
    )
    return np.where(high > low, Standardizer.fit(values, observed).deviation, np.nan)


def _rows(
    task: Task, metric: str, one: metrics.Score, names: tuple[str, ...], evaluated: NDArray[np.bool_]
) -> Iterator[dict[str, Any]]:
    head = {
        "heldout": task.heldout,
        "given": task.given_name,
        "predicted": task.predicted,
        "metric": metric,
    }
    for i in np.flatnonzero(evaluated):
        yield head | {"channel": names[i], "value": float(one.channel[i]), "n": int(one.n_channel[i])}
    yield head | {"channel": "pooled", "value": one.pooled, "n": one.n_pooled}


def evaluate(
    model: Any,
    modalities: tuple[str, ...],
    training: Trials,
    test: Trials,
    hidden: Mapping[str, NDArray[np.bool_]],
) -> tuple[pd.DataFrame, xr.Dataset]:
    """Return the scores of one fit on its test trials, and how well its predictions are calibrated.

    Returns:
        The scores with the columns ``COLUMNS``, and the PIT of each question, see `calibration`.
    """
    rows: list[dict[str, Any]] = []
    histograms: list[calibration.Histogram] = []
    for task in tasks(model, modalities, hidden):
        predictive, scored = answer(model, task, test, hidden)
        rows += score(predictive, task, test, training, scored, hidden)
        pit = calibration.pit_histogram(predictive, test.values[task.predicted], scored)
        histograms.append(calibration.Histogram(task.heldout, task.given_name, task.predicted, *pit))
    return pd.DataFrame(rows, columns=list(COLUMNS)), calibration.as_dataset(histograms)


def reconstructions(
    model: Any,
    modalities: tuple[str, ...],
    test: Trials,
    trial_index: NDArray[np.int_],
    time: NDArray[np.float64],
    hidden: Mapping[str, NDArray[np.bool_]],
) -> dict[str, xr.Dataset]:
    """Return what the model predicts of its test trials, with its bands, for the report.

    Of each kind of question and predicted modality, the one with the most modalities given, in
    test trials spread over the session.
    """
    drawn = np.unique(np.linspace(0, test.n_trials - 1, N_DRAWN).round().astype(int))
    test, trial_index = test.select(drawn), trial_index[drawn]
    groups = {}
    for task in largest_tasks(model, modalities, hidden):
        heldout, predicted = task.heldout, task.predicted
        predictive, scored = answer(model, task, test, hidden)
        arrays = {"mean": predictive.mean, "observation": test.values[predicted]}
        for level in (50, 95):
            arrays[f"low_{level}"] = predictive.quantile(0.5 - level / 200)
            arrays[f"high_{level}"] = predictive.quantile(0.5 + level / 200)
        dims = ("trial", "time", "channel")
        dataset = xr.Dataset(
            {name: (dims, value.astype(np.float32)) for name, value in arrays.items()}
            | {"observed": (dims, scored)},
            coords={"trial": trial_index, "time": time, "channel": list(test.channels[predicted])},
            attrs={"given": task.given_name, "predicted": predicted, "heldout": heldout},
        )
        groups[f"{heldout}/{predicted}"] = dataset
    return groups
