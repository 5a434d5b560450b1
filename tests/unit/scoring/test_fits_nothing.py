"""Scoring fits nothing: whatever could is out of order while it runs."""

import numpy as np
import pytest
from support import QUICK_MODELS, quiet, settings_of, write_session, write_split

from colatent.analyses import analyse
from colatent.data.splits import make_split
from colatent.models.fitting import FitJob, fit_fold
from colatent.models.registry import model_class
from colatent.scoring.session import ScoreJob, score_session
from colatent.scoring.tables import read_scores
from colatent.store.session import read_fold
from colatent.store.stores import identity

FITTERS = (
    "sklearn.linear_model.Ridge.fit",
    "sklearn.linear_model.LinearRegression.fit",
    "sklearn.linear_model.PoissonRegressor.fit",
    "sklearn.decomposition.FactorAnalysis.fit",
    "scipy.optimize.minimize",
    "colatent.models.gpfa.fit.minimize",
    "colatent.models.gpfa.mixing.minimize",
    "colatent.models.gpfa.profile_intervals.profile_intervals",
    "colatent.models.gpfa.gaussian.profile_intervals",
    "colatent.models.readout.ridge.fit_ridge",
    "colatent.models.readout.decoding.fit_ridge",
    "torch.Tensor.backward",
)
MODELS = QUICK_MODELS | {
    "gpfa, counts": {"kind": "gpfa", "latents": {"spikes": 2}, "likelihood": {"spikes": "poisson"}},
}


@pytest.mark.parametrize("name", MODELS)
def test_scoring_fits_nothing(name, simulated_trials, tmp_path, monkeypatch):
    trials, settings = simulated_trials.select(np.arange(24)), settings_of(**{"kind": name} | MODELS[name])
    session, split, fit = (tmp_path / part for part in ("session", "split", "fold-0_seed-0"))
    write_session(session, trials, (np.arange(trials.n_bins) + 0.5) * trials.bin_width)
    write_split(split, make_split(trials, 3, False, {"spikes": 0.25}, [0], guard=1), time=0.2)
    inputs = {"session": identity(session), "split": identity(split), "fold": 0}
    job = FitJob(settings, 0, "cpu", 1, inputs, tmp_path / "none", fit, quiet)
    fit_fold(model_class(settings), read_fold(trials, split, 0, 0), job)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something is fitted")

    for fitter in FITTERS:
        monkeypatch.setattr(fitter, refuse)
    table, head = tmp_path / "m.csv", {"session": "s", "model": "m"}
    score_session(ScoreJob(session, split, [fit], table, tmp_path / "score", head), analyse, quiet)
    assert len(read_scores(table))
