"""Likelihoods with a learned scale, and what it takes to add one."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support import OPTIONS, vae_options
from torch import Tensor

from colatent.data.likelihoods import LIKELIHOODS, Likelihood
from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.mmgpvae.likelihoods import ChannelLikelihood, masked_sum
from colatent.models.mmgpvae.model import MMGPVAE


def test_masked_sum_ignores_what_was_not_observed() -> None:
    log_prob = torch.ones(2, 3, 4)
    observed = torch.ones(2, 3, 4, dtype=torch.bool)
    observed[0, 1], log_prob[0, 1] = False, float("nan")
    assert masked_sum(log_prob, observed).tolist() == [8.0, 12.0]


def test_only_likelihoods_with_a_scale_learn_one() -> None:
    assert {name for name in LIKELIHOODS if ChannelLikelihood(name, 3).scale() is not None} == {
        "gaussian-sqrt",
        "gaussian",
        "negative-binomial",
    }
    np.testing.assert_allclose(ChannelLikelihood("negative-binomial", 3).scale().detach(), 10.0)


class Laplace(Likelihood):
    """y ~ Laplace(eta, scale)."""

    name = "laplace"
    title = "Laplace"
    describes = "values"
    models = frozenset({"mm-gpvae"})
    unit = "training s.d."
    discrete = False
    initial_scale = 0.7

    def log_density(self, y: np.ndarray, mean: np.ndarray, scale: Any) -> np.ndarray:
        return stats.laplace(mean, scale).logpdf(y)

    def cdf(self, y: np.ndarray, mean: np.ndarray, scale: Any) -> np.ndarray:
        return stats.laplace(mean, scale).cdf(y)

    def quantile(self, probability: float, mean: np.ndarray, scale: Any) -> np.ndarray:
        return stats.laplace(mean, scale).ppf(probability)

    def distribution(self, eta: Tensor, log_scale: Any) -> torch.distributions.Distribution:
        return torch.distributions.Laplace(eta, log_scale.exp())

    def initial_eta(self, mean: Tensor) -> Tensor:
        return mean


def test_a_new_likelihood_is_one_class_and_its_entry(
    simulated_trials: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIKELIHOODS, "laplace", Laplace())
    layout = simulated_trials.layout
    known = vae_options(
        layout, **OPTIONS, epochs=2
    ).settings  # the config took its names when it was imported
    settings = known.model_copy(update={"likelihood": {"emg": "laplace"}})
    model = MMGPVAE(settings, layout).fit(simulated_trials, FitRun())
    assert not np.allclose(model.network.modality("emg").likelihood.scale().detach(), 0.7)  # learned
    again = MMGPVAE.from_state(settings, layout, model.state())
    one, two = (m.predict(simulated_trials, ("spikes", "emg"), "emg") for m in (model, again))
    assert one.family == "laplace"
    y = simulated_trials.values["emg"]
    density = stats.laplace(one.component_mean, one.scale).pdf(y).mean(axis=0)
    np.testing.assert_allclose(one.log_density(y), np.log(density))
    np.testing.assert_array_equal(one.log_density(y), two.log_density(y))
    np.testing.assert_allclose(one.cdf(one.quantile(0.9)), 0.9, atol=1e-6)
