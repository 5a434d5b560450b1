"""What is fitted must not change when the trials that are held out are replaced by noise."""

from dataclasses import replace

import numpy as np
import pytest
from support import QUICK_MODELS, fit_to, settings_of, write_split

from colatent.data.splits import TRAINING, make_split
from colatent.data.trials import Trials
from colatent.store.session import read_fold

MODELS = QUICK_MODELS | {
    "gpfa, poisson": {"kind": "gpfa", "latents": {"spikes": 2}, "likelihood": {"spikes": "poisson"}},
    "smoothed-fa": {"latents": {"emg": 2}},
}
CLIP = {"emg": (2.0, 98.0)}
N_TRIALS, FOLD = 24, 1


@pytest.fixture(scope="module", params=["trials", "windows"])
def split(request, simulated_trials, tmp_path_factory):
    trials = simulated_trials.select(np.arange(N_TRIALS))
    trials = replace(trials, time_locked=request.param == "trials")
    groups = make_split(trials, 3, False, {"spikes": 0.25}, [0], guard=1)
    folder = tmp_path_factory.mktemp("split") / request.param
    write_split(folder, groups, CLIP, time=0.2)
    return trials, folder, groups["split"]["role"].values[FOLD]


def with_noise(trials: Trials, role: np.ndarray) -> Trials:
    """The same training trials; everything else (guards too) noise, with other gaps."""
    rng = np.random.default_rng(8)
    values, observed = {}, {}
    for name, value in trials.values.items():
        keep = (role == TRAINING)[:, None, None]
        noise = rng.poisson(9.0, value.shape) if name == "spikes" else 50 * rng.normal(size=value.shape)
        seen = rng.random(value.shape) < 0.8
        observed[name] = np.where(keep, trials.observed[name], seen)
        values[name] = np.where(keep, value, np.where(seen, noise, 0.0)).astype(float)
    return replace(trials, values=values, observed=observed)


@pytest.mark.parametrize("name", MODELS)
def test_held_out_trials_change_no_fitted_parameter(name, split):
    trials, folder, role = split
    settings = settings_of(**{"kind": name} | MODELS[name])
    states = []
    for one in (trials, with_noise(trials, role)):
        fold = read_fold(one, folder, FOLD, 0)
        assert fold.training.n_trials == (role == TRAINING).sum()
        tensors = fit_to(settings, fold.training, fold.withheld).tensors()
        states.append({(name, key): value for name, part in tensors.items() for key, value in part.items()})
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][key])
