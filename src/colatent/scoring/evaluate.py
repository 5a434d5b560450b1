"""Score one fit on held-out trials, channels, modalities and times."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from colatent.data import metrics
from colatent.data.scaling import standard_deviation
from colatent.data.tasks import Withheld, largest_tasks
from colatent.data.trials import Trials
from colatent.models.fitting import FittedModel
from colatent.scoring import calibration
from colatent.scoring.answers import Answer, all_tasks, answers
from colatent.scoring.diagnostics import diagnostics
from colatent.scoring.scorable import Array, Mask, scorable

COLUMNS = ("heldout", "given", "predicted", "channel", "metric", "value", "n")


class Evaluation(NamedTuple):
    """Evaluation of one fit on its test trials.

    Attributes:
        scores: table with the columns ``COLUMNS``.
        calibration: PIT histogram of each task; see `calibration`.
        diagnostics: ``{heldout}/{predicted}`` -> errors by trial and by bin (see `diagnostics`), for the task
            with the most modalities given.
    """

    scores: pd.DataFrame
    calibration: xr.Dataset
    diagnostics: dict[str, xr.Dataset]


def evaluate(fit: FittedModel, training: Trials, test: Trials, withheld: Withheld) -> Evaluation:
    """Score a fit on its test trials in all tasks that it supports.

    Args:
        fit: the fitted model with its read-outs.
        training: training trials of the fold, which give the scale of each channel.
        test: test trials of the fold.
        withheld: what is withheld from inference in the test trials.
    """
    rows: list[dict[str, Any]] = []
    histograms: list[calibration.Histogram] = []
    errors: dict[str, xr.Dataset] = {}
    asked = all_tasks(fit, withheld)
    largest = largest_tasks(asked)
    deviation = {
        m: standard_deviation(training.values[m], training.observed[m]) for m in {t.predicted for t in asked}
    }
    for answered in answers(fit, asked, test, withheld):
        task, scale = answered.task, deviation[answered.task.predicted]
        good = scorable(answered, test.kinds[task.predicted], scale)
        rows += _score(answered, test, scale, good)
        pit = calibration.pit_histogram(answered.pit, answered.scored & good)
        histograms.append(calibration.Histogram(task.heldout, task.given_name, task.predicted, *pit))
        if task in largest:
            errors[f"{task.heldout}/{task.predicted}"] = diagnostics(answered, training, scale, good)
    return Evaluation(pd.DataFrame(rows, columns=list(COLUMNS)), calibration.as_dataset(histograms), errors)


def _score(answered: Answer, test: Trials, scale: Array, good: Mask) -> Iterator[dict[str, Any]]:
    """Yield tidy rows of all metrics that apply to the predicted modality; ``scale`` as in `metrics`."""
    predicted = answered.task.predicted
    outcome = metrics.Outcome(
        observation=answered.observation,
        mean=answered.mean,
        scored=answered.scored,
        scale=scale,
        scorable=good,
        log_density=answered.log_density,
        pit=answered.pit,
        condition=test.condition,
    )
    counts, conditions = test.kinds[predicted] == "spikes", test.condition is not None
    for name, metric in metrics.computed_metrics(counts, conditions).items():
        yield from _rows(answered, name, metric.score(outcome), test.channels[predicted])


def _rows(
    answered: Answer, metric: str, one: metrics.Score, names: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    task = answered.task
    head = {
        "heldout": task.heldout,
        "given": task.given_name,
        "predicted": task.predicted,
        "metric": metric,
    }
    for i in np.flatnonzero(answered.channels):
        yield head | {"channel": names[i], "value": float(one.channel[i]), "n": int(one.n_channel[i])}
    yield head | {"channel": "pooled", "value": one.pooled, "n": one.n_pooled}
