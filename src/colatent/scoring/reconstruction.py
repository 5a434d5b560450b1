"""Predictions with predictive intervals for some test trials, for figures of the report."""

import numpy as np
import xarray as xr

from colatent.data.tasks import Withheld, largest_tasks
from colatent.data.trials import Trials
from colatent.models.fitting import FittedModel
from colatent.scoring.answers import all_tasks, answers

N_DRAWN = 12


def reconstructions(fit: FittedModel, test: Trials, withheld: Withheld) -> dict[str, xr.Dataset]:
    """Return predictions and their 50 and 95 % intervals under ``{heldout}/{predicted}``.

    Each is for the task with the most modalities given, in test trials spread over the session; the
    coordinate ``trial`` is the index among the test trials. ``recorded`` is True where there is an
    observation, ``observed`` where it is scored.
    """
    drawn = np.unique(np.linspace(0, test.n_trials - 1, N_DRAWN).round().astype(int))
    test = test.select(drawn)
    groups = {}
    asked = largest_tasks(all_tasks(fit, withheld))
    for answered in answers(fit, asked, test, withheld):
        task = answered.task
        arrays = {"mean": answered.mean, "observation": answered.observation}
        for level in (50, 95):
            arrays[f"low_{level}"] = answered.predictive.quantile(0.5 - level / 200)
            arrays[f"high_{level}"] = answered.predictive.quantile(0.5 + level / 200)
        dims = ("trial", "time", "channel")
        groups[f"{task.heldout}/{task.predicted}"] = xr.Dataset(
            {name: (dims, value.astype(np.float32)) for name, value in arrays.items()}
            | {"recorded": (dims, test.observed[task.predicted]), "observed": (dims, answered.scored)},
            coords={"trial": drawn, "channel": list(test.channels[task.predicted])},
            attrs={"given": task.given_name, "predicted": task.predicted, "heldout": task.heldout},
        )
    return groups
