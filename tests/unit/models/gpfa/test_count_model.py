"""Count GPFA as the workflow asks it: predictive distributions, hidden channels, keeping a fit."""

import numpy as np
import pytest
from scipy import stats

from colatent.data.trials import Trials
from colatent.models.gpfa.count_model import CountGPFAPrediction

OPTIONS = {"modality": "spikes", "n_latents": 2, "kernel": "squared-exponential"}


def quiet(_: str) -> None: ...


@pytest.fixture(scope="module", params=["poisson", "negative-binomial"])
def fitted(request: pytest.FixtureRequest, simulated_trials: Trials) -> CountGPFAPrediction:
    options = OPTIONS | {"bin_width": simulated_trials.bin_width, "likelihood": request.param}
    return CountGPFAPrediction(**options).fit(simulated_trials.select(np.arange(24)), 0, quiet)


def test_prediction_agrees_with_monte_carlo_over_the_posterior(fitted, simulated_trials):
    test = simulated_trials.select(np.arange(40, 44))
    predictive = fitted.predict(test, ("spikes",), "spikes")
    counts = test.values["spikes"]
    eta = fitted._gpfa.predictor(counts)
    noise = np.random.default_rng(0).standard_normal((4000, *eta.mean.shape))
    rate = np.exp(eta.mean + np.sqrt(eta.variance) * noise)
    np.testing.assert_allclose(predictive.mean, np.exp(eta.mean + eta.variance / 2), rtol=1e-12)
    if predictive.family == "poisson":
        mass = stats.poisson.pmf(counts, rate)
    else:
        r = fitted._gpfa.dispersion_
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


def test_a_kept_fit_predicts_the_same(fitted, simulated_trials):
    options = OPTIONS | {"bin_width": simulated_trials.bin_width, "likelihood": fitted._gpfa.likelihood}
    again = CountGPFAPrediction.from_state(options, fitted.state(), simulated_trials)
    one, two = (m.predict(simulated_trials, ("spikes",), "spikes").mean for m in (fitted, again))
    np.testing.assert_array_equal(one, two)
    assert fitted.latent_groups == again.latent_groups == ("spikes", "spikes")
    with pytest.raises(ValueError, match="knows only 'spikes'"):
        fitted.latents(simulated_trials, ("emg",))
