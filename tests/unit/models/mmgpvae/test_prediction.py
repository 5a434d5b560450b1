"""Which posterior predicts a modality from others, decided on training trials held out of the updates."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.stats import poisson
from support import fit_vae, make_trials, simulate, unfitted_vae

from colatent.data.predictive import Predictive
from colatent.models.mmgpvae import prediction
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.prediction import choose_predictors, loss, predict_as_trained, predict_jointly

GROUPS = {"spikes+emg": 1, "spikes": 1}


@pytest.fixture(scope="module")
def fitted():
    trials = simulate(24)[0]
    return fit_vae(trials, latents=GROUPS, cross_weight={"spikes": 0.5, "emg": 0.5}, epochs=3), trials


def test_a_model_predicts_by_what_was_chosen_for_the_given_modalities(fitted):
    model, trials = fitted
    for predicted, given in (("emg", "spikes"), ("spikes", "emg")):
        alone = trials.only((given,))
        each = {
            True: predict_jointly(model.network, alone, (given,), [predicted], model.seed)[predicted],
            False: predict_as_trained(model.network, alone, (given,), predicted),
        }
        assert not np.allclose(each[True].mean, each[False].mean)
        for jointly, expected in each.items():
            model.network.set_predictor(predicted, (given,), jointly)
            got = model.predict(alone, (given,), predicted)
            np.testing.assert_array_equal(got.mean, expected.mean)
            again = MMGPVAE.from_state(model.options.settings, trials.layout, model.state())
            np.testing.assert_array_equal(again.predict(alone, (given,), predicted).mean, expected.mean)
            both = model.predict(trials, ("emg", "spikes"), predicted)
            own = predict_jointly(model.network, trials, ("emg", "spikes"), ("emg", "spikes"), model.seed)
            np.testing.assert_array_equal(both.mean, own[predicted].mean)


@pytest.mark.parametrize("good", ["predict_jointly", "predict_as_trained"])
def test_the_better_prediction_is_chosen_for_each_set(good):
    rng = np.random.default_rng(0)
    values = {
        "a": rng.normal(size=(5, 25, 3)),
        "b": rng.normal(size=(5, 25, 2)),
        "c": rng.normal(size=(5, 25, 2)),
    }
    held_out = make_trials(values, {name: np.ones(v.shape, dtype=bool) for name, v in values.items()})
    network = untrained(held_out, {"a+b+c": 1}, {"a": 1.0, "c": 1.0})

    def by(name: str):
        def predict(network, trials, given, predicted):
            # only from b alone is the other one better
            error = 0.1 if (name == good) == (given != ("b",)) else 0.2
            return Predictive("gaussian", (held_out.values[predicted] + error)[None], np.ones(1))

        return predict

    def jointly_by(network, trials, given, asked, seed):
        return {one: by("predict_jointly")(network, trials, given, one) for one in asked}

    with (
        patch.object(prediction, "predict_jointly", jointly_by),
        patch.object(prediction, "predict_as_trained", by("predict_as_trained")),
    ):
        choose_predictors(network, held_out, 0)
    jointly = good == "predict_jointly"
    for given in (("b",), ("c",), ("b", "c"), ("c", "b")):
        assert network.predicts_jointly("a", given) == (jointly == (given != ("b",)))
    assert network.predicts_jointly("c", ("a", "b")) == jointly
    assert network.predicts_jointly("b", ("a",))  # without a cross weight there is nothing else


def test_without_held_out_trials_predictions_are_as_trained():
    trials = simulate(16)[0]
    model = fit_vae(trials, latents=GROUPS, cross_weight={"emg": 0.5}, epochs=2, validation_share=0.0)
    assert not model.network.predicts_jointly("emg", ("spikes",))
    assert model.network.predicts_jointly("spikes", ("emg",))


def test_losses_are_deviance_and_error_in_units_of_the_channels():
    trials = simulate(6)[0]
    network = untrained(trials, GROUPS, {})
    counts, seen = trials.values["spikes"], trials.observed["spikes"]
    rates = [np.full((1, *counts.shape), rate) for rate in (0.5, 2.0)]
    first, second = (loss(network, Predictive("poisson", rate, None), trials, "spikes") for rate in rates)
    expected = (poisson.logpmf(counts, 2.0) - poisson.logpmf(counts, 0.5))[seen].sum()
    assert first - second == pytest.approx(expected)
    emg, seen = trials.values["emg"], trials.observed["emg"]
    mean = np.broadcast_to(emg[seen].mean(), emg.shape)
    scale = np.array([emg[..., c][seen[..., c]].std() for c in range(emg.shape[2])])
    found = loss(network, Predictive("gaussian", mean[None], scale), trials, "emg")
    assert found == pytest.approx((np.square((emg - mean) / scale))[seen].sum())


def untrained(trials, latents, cross_weight):
    """The network of an MM-GPVAE before training, in the units of these trials."""
    model = unfitted_vae(trials.layout, latents=latents, cross_weight=cross_weight)
    network = MultiModalNetwork(model.options, torch.Generator().manual_seed(0))
    network.calibrate(trials)
    return network
