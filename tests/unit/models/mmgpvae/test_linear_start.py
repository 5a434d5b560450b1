"""Training starts at the linear model, and stays there unless held-out trials gain."""

import numpy as np
import pytest
import torch
from support import BOTH, OPTIONS, fit_vae, make_trials, simulate, unfitted_vae

from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.mmgpvae.linear_start import (
    linear_model,
    own_what_is_private,
    regress,
    start_from_linear_model,
)
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.training import Trainer

LINEAR = OPTIONS | {"latents": {"spikes+emg": 1, "spikes": 1}}


def at_epoch_0(trials: Trials, **options: object) -> MMGPVAE:
    """Return an MM-GPVAE as its training finds it."""
    model = unfitted_vae(trials.layout, **LINEAR | options)
    model.network = MultiModalNetwork(model.options, torch.Generator().manual_seed(0))
    model.network.calibrate(trials)
    start_from_linear_model(model.network, trials, FitRun())
    model.network.eval()
    model.order, model.sign = (
        np.arange(len(model.latent_groups)),
        np.ones(len(model.latent_groups)),
    )
    return model


def gpfa_of(model: MMGPVAE, trials: Trials):  # type: ignore[no-untyped-def]
    return linear_model(model.options).fit({name: trials.with_nan(name) for name in model.modalities})


def test_of_one_latent_the_posterior_and_the_predictions_are_those_of_gpfa() -> None:
    trials = simulate(20)[0]
    emg = make_trials({"emg": trials.values["emg"]}, {"emg": trials.observed["emg"]})
    model = at_epoch_0(emg, latents={"emg": 1}, cross_weight={})
    network = model.network.modality("emg")
    sd, values = network.scale.numpy(), emg.with_nan("emg")
    seen = {"emg": (values - network.offset.numpy()) / sd}
    gpfa = linear_model(model.options).fit(seen)
    mean, variance = model.latents(emg, ("emg",))
    np.testing.assert_allclose(mean, gpfa.posterior(seen).mean, atol=2e-3)
    np.testing.assert_allclose(variance, gpfa.posterior(seen).variance, atol=2e-3)
    expected = gpfa.predict(seen)["emg"].mean * sd + network.offset.numpy()
    np.testing.assert_allclose(model.decode(mean, "emg"), expected, atol=5e-3)
    noise = model.predict(emg, ("emg",), "emg").scale
    np.testing.assert_allclose(noise, sd * np.sqrt(gpfa.noise_variance_), rtol=1e-5)


def test_with_counts_it_is_the_linear_model() -> None:
    trials = simulate(40)[0]
    model = at_epoch_0(trials)
    gpfa = gpfa_of(model, trials)
    seen = {name: trials.with_nan(name) for name in BOTH}
    expected = gpfa.posterior(seen).mean
    # the network's units of emg are other than GPFA's, which change nothing but rounding
    np.testing.assert_allclose(model.time_scales(), gpfa.time_scale_, rtol=0.05)
    for latents in (
        model.latents(trials, BOTH)[0],
        model.network.encoded_posterior(trials, BOTH).marginals.mean.numpy(),
    ):
        for k in range(2):
            assert abs(np.corrcoef(latents[..., k].ravel(), expected[..., k].ravel())[0, 1]) > 0.95
    rates = gpfa.predict(seen)["spikes"].mean
    ours = model.predict(trials, BOTH, "spikes").mean
    assert np.corrcoef(np.log(ours).ravel(), np.log(rates).ravel())[0, 1] > 0.99


def test_nothing_is_added_to_the_linear_model_before_training() -> None:
    model = at_epoch_0(simulate(20)[0])
    emg = model.network.modality("emg").decoder
    z = torch.linspace(-3, 3, 7)[:, None]
    line = emg(z)
    torch.testing.assert_close(line[1:] - line[:-1], (line[-1:] - line[:1]).expand(6, -1) / 6)
    assert emg.loading.abs().max() > 0.1


def test_epochs_that_are_worse_on_held_out_trials_leave_the_linear_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("colatent.models.mmgpvae.model.take_last_steps", lambda *_: None)

    def ruin(trainer: Trainer, batch: torch.Tensor) -> dict[str, float]:
        with torch.no_grad():
            for parameter in trainer.module.parameters():
                parameter.fill_(3.0)
        return {"loss": 0.0}

    monkeypatch.setattr(Trainer, "_step", ruin)
    lines: list[str] = []
    model = fit_vae(simulate(20)[0], 0, lines.append, **LINEAR | {"epochs": 2})
    assert lines[-1].startswith("kept epoch 0:")
    nonlinear = model.network.modality("emg").decoder.nonlinear.readout
    assert not nonlinear.weight.any()


def test_the_linear_model_does_not_see_the_trials_that_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    trials, seen = simulate(20)[0], []
    fit = GPFA.fit
    monkeypatch.setattr(GPFA, "fit", lambda *a: (seen.append(len(next(iter(a[1].values())))), fit(*a))[1])
    fit_vae(trials, **LINEAR | {"epochs": 1})
    assert set(seen) == {18}


@pytest.mark.parametrize("shared", [False, True])
def test_a_latent_of_one_modality_is_called_private(shared: bool) -> None:
    trials = simulate(40)[0]
    spikes, emg = trials.with_nan("spikes"), trials.with_nan("emg")
    seen = {"spikes": spikes if shared else spikes[::-1], "emg": emg}
    latents = {"spikes+emg": 1, "spikes": 1, "emg": 1}
    gpfa = GPFA(latents=latents, likelihood=dict.fromkeys(seen, "gaussian")).fit(seen)
    assert gpfa.modalities_ is not None
    channels = gpfa.modalities_.channels("emg")
    if not shared:  # as likely: what the muscles have to themselves is called shared
        gpfa.loading_[channels] = gpfa.loading_[channels][:, [2, 1, 0]]
        gpfa.loading_[: channels.start, 0] = 1e-3
    before, expected = gpfa.loading_.copy(), gpfa.log_marginal_likelihood(seen)
    own_what_is_private(gpfa, seen)
    assert gpfa.log_marginal_likelihood(seen) > expected - 5
    if shared:
        np.testing.assert_array_equal(gpfa.loading_, before)
    else:
        np.testing.assert_array_equal(gpfa.loading_[channels], before[channels][:, [2, 1, 0]])
        assert not gpfa.loading_[: channels.start, 0].any()


def test_the_regression_is_ordinary_where_latents_are_certain() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((30, 40, 2))
    truth = rng.standard_normal((5, 2))
    y = z @ truth.T + 1.5 + 0.3 * rng.standard_normal((30, 40, 5))
    observed = rng.random(y.shape) < 0.7
    found = regress(np.where(observed, y, 0.0), observed, z, np.zeros_like(z))
    for c in range(5):
        there = observed[..., c]
        design = np.column_stack([z[there], np.ones(there.sum())])
        weight, residual, *_ = np.linalg.lstsq(design, y[..., c][there], rcond=None)
        np.testing.assert_allclose([*found.loading[c], found.offset[c]], weight, atol=0.01)
        assert found.noise[c] == pytest.approx(residual[0] / there.sum(), rel=0.01)
