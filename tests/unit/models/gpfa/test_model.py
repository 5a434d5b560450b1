"""GPFA as the workflow asks it: predictive distributions of counts, hidden channels, what a summary says."""

import numpy as np
import pytest
from scipy import stats

from colatent.config import GPFASettings
from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.model import LEVEL, GPFAModel


def fit(trials: Trials, **options) -> GPFAModel:
    settings = GPFASettings(kind="gpfa", latents={"spikes": 2}, **options)
    return GPFAModel(settings, trials.layout).fit(trials.select(np.arange(24)), FitRun())


@pytest.fixture(scope="module", params=["poisson", "negative-binomial"])
def fitted(request: pytest.FixtureRequest, simulated_trials: Trials) -> GPFAModel:
    return fit(simulated_trials, likelihood={"spikes": request.param})


def test_prediction_agrees_with_monte_carlo_over_the_posterior(fitted, simulated_trials):
    test = simulated_trials.select(np.arange(40, 42))
    predictive = fitted.predict(test, ("spikes",), "spikes")
    counts = test.values["spikes"]
    eta = fitted._observation_model.gpfa.predictor(counts)
    noise = np.random.default_rng(0).standard_normal((4000, *eta.mean.shape))
    rate = np.exp(eta.mean + np.sqrt(eta.variance) * noise)
    np.testing.assert_allclose(predictive.mean, np.exp(eta.mean + eta.variance / 2), rtol=1e-12)
    if predictive.family == "poisson":
        mass = stats.poisson.pmf(counts, rate)
    else:
        r = fitted._observation_model.gpfa.dispersion_
        mass = stats.nbinom.pmf(counts, r, r / (r + rate))
    np.testing.assert_allclose(predictive.log_density(counts), np.log(mass.mean(axis=0)), atol=0.02)


def test_hidden_channels_are_predicted_from_the_others_only(fitted, simulated_trials):
    test = simulated_trials.select(np.arange(40, 44))
    hidden = np.arange(test.values["spikes"].shape[2]) % 4 == 0
    seen = test.hide({"spikes": hidden})
    changed = {**seen.values, "spikes": seen.values["spikes"] + 9.0 * hidden}
    other = Trials(changed, seen.observed, seen.channels, seen.kinds, seen.bin_width, seen.condition)
    one, two = (fitted.predict(t, ("spikes",), "spikes").mean for t in (seen, other))
    np.testing.assert_array_equal(one, two)
    training = simulated_trials.select(np.arange(24)).values["spikes"]
    counts, null = test.values["spikes"][..., hidden], training.mean(axis=(0, 1))[hidden]
    gain = stats.poisson.logpmf(counts, one[..., hidden]) - stats.poisson.logpmf(counts, null)
    assert gain.sum() > 0


def test_it_knows_one_modality(fitted, simulated_trials):
    assert [group.name for group in fitted.latent_groups] == ["spikes", "spikes"]
    with pytest.raises(ValueError, match="knows only 'spikes'"):
        fitted.latents(simulated_trials, ("emg",))
    rate = fitted.decode(np.zeros((1, 1, 2)), "spikes")
    np.testing.assert_allclose(rate, np.exp(fitted._observation_model.gpfa.offset_)[None, None])
    summary = fitted.summary(np.zeros((1, 1, 2)))
    assert summary.unit == {"spikes": "log rate"} and not summary.interval


def test_intervals_of_time_scales_are_those_of_the_training_trials(simulated_trials):
    model = fit(simulated_trials, automatic_relevance=0.3)
    summary = model.summary(np.zeros((1, 1, 2)))
    gpfa = model._observation_model.gpfa
    assert isinstance(gpfa, GPFA)
    roots = np.sqrt(simulated_trials.select(np.arange(24)).with_nan("spikes"))
    for name, value in gpfa.time_scale_interval(roots, LEVEL)._asdict().items():
        np.testing.assert_array_equal(summary.interval[name], value)
    assert (summary.interval["low"] < summary.time_scale).all()
    assert summary.interval_attrs["likelihood"] == "penalised"
    assert summary.unit == {"spikes": "√(spikes per bin)"}
