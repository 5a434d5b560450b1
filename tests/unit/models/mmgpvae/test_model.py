"""MM-GPVAE: what its bound, its inference and its bookkeeping promise."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from support import (
    BIN_WIDTH,
    BOTH,
    N_BINS,
    OPTIONS,
    fit_vae,
    make_trials,
    simulate,
    unfitted_vae,
    vae_options,
)

from colatent.config import MMGPVAESettings
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.jobs.checkpoint import Checkpoint
from colatent.models import gp
from colatent.models.mmgpvae import model as mmgpvae
from colatent.models.mmgpvae.joint import JointPosterior, posteriors
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.training import Trainer

STRAIGHT: dict[str, MMGPVAE] = {}  # fits without an interruption


@pytest.fixture(scope="module")
def fitted() -> MMGPVAE:
    # of so few trials one run in five ends in another optimum
    return fit_vae(simulate(40)[0], **OPTIONS | {"restarts": 3})


@pytest.fixture(scope="module")
def test_trials() -> Trials:
    return simulate(8, seed=1)[0]


@pytest.fixture
def training_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits end with training: the steps after it take four times as long, and follow from its end alone."""
    monkeypatch.setattr("colatent.models.mmgpvae.model.take_last_steps", lambda *_: None)


@pytest.fixture
def random_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """All starts are random, as where there is no linear model."""
    monkeypatch.setattr(MMGPVAESettings, "can_start_linear", False)


def test_finds_the_shared_and_the_private_latent(fitted: MMGPVAE) -> None:
    (train, z_train), (test, z_test) = simulate(40), simulate(20, seed=2)
    for k in range(2):
        x = fitted.latents(train, BOTH)[0][..., k].ravel()
        slope, offset = np.polyfit(x, z_train[..., k].ravel(), 1)
        mean = slope * fitted.latents(test, BOTH)[0][..., k] + offset
        complete = np.arange(20) > 1  # the first trials have gaps
        error = ((z_test[..., k] - mean)[complete] ** 2).mean() / z_test[complete, :, k].var()
        assert 1 - error > (0.9, 0.75)[k]


def test_predictions_are_in_the_data_s_units(fitted: MMGPVAE, test_trials: Trials) -> None:
    emg = test_trials.values["emg"]
    observed = test_trials.observed["emg"].all(axis=(1, 2))
    prediction = fitted.predict(test_trials, BOTH, "emg")
    # the simulation's noise has a standard deviation of 0.5
    assert ((emg - prediction.mean)[observed] ** 2).mean() < 1.25 * 0.5**2
    np.testing.assert_allclose(np.asarray(prediction.scale), 0.5, rtol=0.3)
    spikes = fitted.predict(test_trials, BOTH, "spikes").mean
    assert spikes.mean() == pytest.approx(test_trials.values["spikes"][observed].mean(), rel=0.15)


def test_elbo_is_below_the_importance_sampled_log_likelihood(test_trials: Trials) -> None:
    options = OPTIONS | {"decoder": {"emg": "linear"}, "epochs": 8}
    model = fit_vae(simulate(16)[0], **options)
    ((_, q),) = posteriors(model.network, test_trials, BOTH)
    assert isinstance(q, JointPosterior)
    n_samples, generator = 1000, torch.Generator().manual_seed(0)
    noise = torch.randn(n_samples // 2, *q.u.shape, generator=generator, dtype=torch.float64)
    noise = torch.cat([noise, -noise])  # what is odd in it, nearly all of the estimate's error, cancels
    factor = torch.linalg.cholesky(q.spread.inverse)
    u = q.u + torch.einsum("nij,snj->sni", factor, noise)
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    log_weight = (0.5 * (noise**2 - u**2).sum(dim=-1) + log_det).numpy()
    latents = q.basis.to_bins(u.flatten(0, 1))[0].unflatten(0, (n_samples, -1))
    for name in BOTH:
        network = model.network.modality(name)
        with torch.no_grad():
            given = network.predictive(latents[..., network.latents])
        y, observed = test_trials.values[name], test_trials.observed[name]
        density = given.likelihood.log_density(y, given.component_mean, given.scale)
        log_weight += np.where(observed, density, 0.0).sum(axis=(-2, -1))
    log_likelihood = logsumexp(log_weight, axis=0) - np.log(n_samples)
    elbo = model.elbo(test_trials)  # E_q[log w]
    assert (elbo < log_likelihood).all()
    se = log_weight.std(axis=0) / np.sqrt(n_samples)
    assert (np.abs(elbo - log_weight.mean(axis=0)) < 5 * se + 1e-2).all()


def test_linear_gaussian_elbo_reaches_the_exact_log_likelihood() -> None:
    trials = simulate(40)[0]
    emg = make_trials({"emg": trials.values["emg"]}, {"emg": np.ones(trials.values["emg"].shape, dtype=bool)})
    emg = emg.select(np.arange(40) > 1)
    options = dict(latents={"emg": 1}, decoder={"emg": "linear"}, cross_weight={}, epochs=120)
    model = fit_vae(emg, **OPTIONS | options)
    network = model.network.modality("emg")
    sd = network.scale.numpy()
    c = network.decoder.readout.weight.detach().numpy()[:, 0] * sd * model.network.prior_sd().detach().numpy()
    mean = network.decoder.readout.bias.detach().numpy() * sd + network.offset.numpy()
    noise = (network.likelihood.scale().detach().numpy() * sd) ** 2
    t = torch.arange(N_BINS).double()
    time_scale = torch.from_numpy(model.time_scales() / BIN_WIDTH)
    prior = gp.correlation("squared-exponential", t[:, None] - t, time_scale).numpy()
    covariance = np.kron(prior, np.outer(c, c)) + np.kron(np.eye(N_BINS), np.diag(noise))
    exact = multivariate_normal(np.tile(mean, N_BINS), covariance).logpdf(emg.values["emg"].reshape(38, -1))
    gap = exact - model.elbo(emg)
    assert (gap > -1e-2).all()
    assert gap.mean() < 0.05  # nats a trial


def test_missing_modality_equals_leaving_it_out(fitted: MMGPVAE, test_trials: Trials) -> None:
    hidden = test_trials.only(("spikes",))
    without = make_trials(
        {"spikes": test_trials.values["spikes"]}, {"spikes": test_trials.observed["spikes"]}
    )
    reference = fitted.latents(test_trials, ("spikes",))
    for trials, given in ((hidden, BOTH), (without, ("spikes",)), (without, BOTH)):
        for expected, got in zip(reference, fitted.latents(trials, given), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_private_latents_stay_at_the_prior(fitted: MMGPVAE, test_trials: Trials) -> None:
    mean, variance = fitted.latents(test_trials, ("emg",))
    private = [group.modalities == {"spikes"} for group in fitted.latent_groups]
    np.testing.assert_allclose(mean[..., private], 0.0)
    np.testing.assert_allclose(variance[..., private], 1.0, atol=1e-3)


def test_hidden_values_cannot_be_seen(fitted: MMGPVAE, test_trials: Trials) -> None:
    hidden = np.arange(24) < 6
    trials = test_trials.hide({"spikes": hidden})
    # `hide` zeroes the values; put others there
    spoiled = replace(
        trials, values={**trials.values, "spikes": np.where(hidden, 7.0, trials.values["spikes"])}
    )
    for predicted in BOTH:
        a, b = (fitted.predict(x, BOTH, predicted).component_mean for x in (trials, spoiled))
        np.testing.assert_array_equal(a, b)


def test_order_of_modalities_and_trials_is_irrelevant(fitted: MMGPVAE, test_trials: Trials) -> None:
    layout = test_trials.layout
    reordered = layout._replace(channels=dict(reversed(layout.channels.items())))
    options = OPTIONS | {"latents": {"emg+spikes": 1, "spikes": 1}}
    model = unfitted_vae(reordered, **options).restore(fitted.state())
    assert model.modalities == fitted.modalities[::-1]
    order = np.random.default_rng(0).permutation(test_trials.n_trials)
    swapped = make_trials(
        {name: test_trials.values[name] for name in BOTH}, {name: test_trials.observed[name] for name in BOTH}
    ).select(order)
    a = fitted.predict(test_trials, ("emg", "spikes"), "emg").component_mean[:, order]
    b = model.predict(swapped, ("spikes", "emg"), "emg").component_mean
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_same_seed_same_bytes_and_no_global_state() -> None:
    trials = simulate(12)[0]
    options = OPTIONS | {"epochs": 3}
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = fit_vae(trials, 4, **options).state()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = fit_vae(trials, 4, **options).state()
    other = fit_vae(trials, 5, **options).state()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    assert not np.array_equal(first["network.log_time_scale"], other["network.log_time_scale"])


def test_state_round_trip(fitted: MMGPVAE, test_trials: Trials) -> None:
    rebuilt = unfitted_vae(test_trials.layout, **OPTIONS).restore(fitted.state())
    a, b = (m.predict(test_trials, ("spikes",), "emg") for m in (fitted, rebuilt))
    np.testing.assert_array_equal(a.component_mean, b.component_mean)
    np.testing.assert_array_equal(a.scale, b.scale)
    np.testing.assert_array_equal(fitted.time_scales(), rebuilt.time_scales())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("network.bounds", lambda _: None, "network.bounds is missing"),
        ("more", lambda _: np.zeros(1), "more is unknown"),
        ("sign", lambda a: a[:-1], "sign has the shape"),
        ("network.log_time_scale", lambda a: a * np.nan, "log_time_scale is not finite"),
        ("order", lambda a: a * 0, r"order is \[0, 0\]"),
        ("bin_width", lambda a: 2 * a, "bin_width is 0.04 s, not 0.02 s"),
    ],
)
def test_a_state_of_something_else_is_refused(fitted: MMGPVAE, name: str, change, message: str) -> None:
    state = fitted.state()
    changed = state | {name: change(state.get(name))}
    model = unfitted_vae(fitted.options.layout, **OPTIONS)
    with pytest.raises(ValueError, match=message):
        model.restore({key: array for key, array in changed.items() if array is not None})


def test_the_summary_is_the_slope_of_the_decoders(fitted: MMGPVAE, test_trials: Trials) -> None:
    latents = fitted.latents(test_trials, BOTH)[0]
    summary = fitted.summary(latents)
    assert summary.unit == {"spikes": "log rate", "emg": "training s.d."}
    assert summary.loading["spikes"].shape == (24, 2)
    np.testing.assert_array_equal(summary.loading["emg"][:, 1], 0.0)  # of the latent of spikes alone
    np.testing.assert_array_equal(summary.time_scale, fitted.time_scales())
    step = np.array([0.1, 0.0])  # decoded emg is in its own units, the loading in s.d. of training
    slope = (fitted.decode(latents + step, "emg") - fitted.decode(latents - step, "emg")).mean((0, 1)) / 0.2
    scale = fitted.network.modality("emg").scale.numpy()
    np.testing.assert_allclose(summary.loading["emg"][:, 0], slope / scale, rtol=0.05, atol=0.01)


def lines_of_a_fit_that_was_interrupted(folder: Path, at: str, seed: int = 0, **change: Any) -> list[str]:
    """Return what a fit says that goes on after one that stopped at a line; it ends with the same bytes."""
    trials, options = simulate(8)[0], OPTIONS | {"epochs": 24} | change

    def interrupt(line: str) -> None:
        if line.startswith(at):
            raise KeyboardInterrupt

    checkpoint = Checkpoint(folder, {"config": "this one"})
    with pytest.raises(KeyboardInterrupt):
        fit_vae(trials, seed, interrupt, checkpoint, **options)
    lines: list[str] = []
    resumed = fit_vae(trials, seed, lines.append, checkpoint, **options)
    key = repr((seed, change, mmgpvae.take_last_steps.__module__))  # that of this test, if it is patched
    if key not in STRAIGHT:
        STRAIGHT[key] = fit_vae(trials, seed, **options)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*states(resumed, STRAIGHT[key]), strict=True))
    return lines


def test_interrupted_fit_ends_with_the_same_bytes(tmp_path: Path) -> None:
    lines = lines_of_a_fit_that_was_interrupted(tmp_path, "epoch 20/")
    assert lines[0] == "resumed after epoch 10; 10 epochs are trained a second time"


def test_of_several_starts_the_most_promising_goes_on(
    training_only: None, random_only: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials, chosen, promise = simulate(12)[0], set(), Trainer.early_loss
    for seed in range(4):
        promises: list[float] = []

        def kept(self: Trainer, epochs: int, promises: list[float] = promises) -> float:
            promises.append(promise(self, epochs))
            return promises[-1]

        monkeypatch.setattr(Trainer, "early_loss", kept)
        lines: list[str] = []
        options = OPTIONS | {"epochs": 10, "restarts": 3}
        model = fit_vae(trials, seed, lines.append, **options)
        best = int(np.argmin(promises))
        assert len(set(promises)) == 3 and len(model.history) == 10
        assert promises[best] == min(row["held_out_loss"] for row in model.history[:2])
        assert f"start {best + 1} continues: held-out loss {promises[best]:.4f} in 2 epochs" in lines
        ends = [x[:7] for x in lines if re.match(r"start \d/3: epoch 10/10", x)]
        assert ends == [f"start {best + 1}"]
        first = fit_vae(trials, seed, **options | {"restarts": 1})
        same = all(a.tobytes() == b.tobytes() for a, b in zip(*states(first, model), strict=True))
        assert same == (best == 0)
        chosen.add(best)
    assert len(chosen) > 1


def states(*models: MMGPVAE) -> list[list[np.ndarray]]:
    return [list(model.state().values()) for model in models]


def test_a_start_whose_loss_is_never_finite_is_left(random_only, monkeypatch) -> None:
    trials, options = simulate(8)[0], OPTIONS | {"epochs": 5, "restarts": 2}
    build, built = MultiModalNetwork.__init__, []

    def damage(self, *arguments):
        build(self, *arguments)
        built.append(self)
        if len(built) in damaged:
            with torch.no_grad():
                self.log_prior_sd.fill_(np.nan)

    monkeypatch.setattr(MultiModalNetwork, "__init__", damage)
    damaged, lines = {1}, []
    fit_vae(trials, 0, lines.append, **options)
    assert any(line.startswith("start 2 continues") for line in lines)
    built.clear()
    damaged = {1, 2}
    with pytest.raises(FloatingPointError, match="never finite"):
        fit_vae(trials, **options)


@pytest.mark.parametrize("at", ["start 2/2: epoch 5/", "start 2 continues", "start 2/2: epoch 20/"])
def test_several_starts_interrupted_end_with_the_same_bytes(
    training_only: None, random_only: None, tmp_path: Path, at: str
) -> None:
    lines = lines_of_a_fit_that_was_interrupted(tmp_path, at, restarts=2, seed=3)
    assert lines[0] == "start 1/2: resumed after epoch 5; 0 epochs are trained a second time"
    assert not [line for line in lines if line.startswith("start 1/2: epoch")]
    resumed = {"start 2/2: epoch 5/": 0, "start 2 continues": 5, "start 2/2: epoch 20/": 10}[at]
    again = {"start 2/2: epoch 5/": 5, "start 2 continues": 0, "start 2/2: epoch 20/": 10}[at]
    said = [line for line in lines if line.startswith("start 2/2: resumed")]
    expected = f"start 2/2: resumed after epoch {resumed}; {again} epochs are trained a second time"
    assert said == ([expected] if resumed else [])


def test_the_history_has_the_terms_of_the_objective(training_only: None) -> None:
    options = OPTIONS | {"epochs": 3, "cross_weight": {"emg": 2.0}}
    for row in fit_vae(simulate(8)[0], **options).history:
        assert row["elbo"] == pytest.approx(row["expected_log_likelihood"] - row["kl"])
        assert row["loss"] == pytest.approx(-row["elbo"] - row["cross_log_prob"])
        assert row["kl"] > 0


def test_the_first_epochs_may_have_another_objective(training_only: None) -> None:
    options = OPTIONS | {"epochs": 10, "cross_weight": {}, "first_cross_weight": {"emg": 0.5, "spikes": 1.0}}
    for row in fit_vae(simulate(8)[0], **options).history:
        parts = row["elbo"] + (row["cross_log_prob"] if row["epoch"] <= 2 else 0.0)
        assert row["loss"] == pytest.approx(-parts)
        assert np.isfinite(row["cross_log_prob"]) == (row["epoch"] <= 2)


@pytest.mark.parametrize(
    ("change", "first", "final"),
    [
        ({}, {"emg": 1.0}, {"emg": 1.0}),
        ({"cross_weight": {}}, {}, {}),
        ({"cross_weight": {"emg": 0.0}}, {}, {}),
        ({"cross_weight": {}, "first_cross_weight": {"emg": 0.5, "spikes": 0.0}}, {"emg": 0.5}, {}),
        ({"first_cross_weight": {}}, {}, {"emg": 1.0}),
        ({"latents": {"emg": 2}, "first_cross_weight": {"emg": 1.0}}, {}, {}),  # nothing to predict it from
        ({"latents": {"emg+emg": 2}}, {}, {}),
    ],
)
def test_cross_weights_that_count(change: dict, first: dict[str, float], final: dict[str, float]) -> None:
    trials = simulate(2)[0]
    assert vae_options(trials.layout, **OPTIONS | change).cross_weights == (first, final)


@pytest.mark.parametrize("at", ["epoch 5/", "epoch 10/", "epoch 20/"])
def test_interrupted_before_or_after_the_objective_changes(
    training_only: None, tmp_path: Path, at: str
) -> None:
    lines_of_a_fit_that_was_interrupted(tmp_path, at, first_cross_weight={"spikes": 1.0})


@pytest.mark.parametrize("family", ["negative-binomial", "bernoulli"])
def test_other_likelihoods(family: str) -> None:
    trials = simulate(12)[0]
    spikes = trials.values["spikes"] if family == "negative-binomial" else (trials.values["spikes"] > 0) * 1.0
    trials = replace(trials, values={**trials.values, "spikes": spikes})
    model = fit_vae(trials, **OPTIONS | {"likelihood": {"spikes": family}, "epochs": 15})
    prediction = model.predict(trials, BOTH, "spikes")
    assert prediction.family == family
    null = replace(prediction, component_mean=np.broadcast_to(spikes.mean(axis=(0, 1)), (1, *spikes.shape)))
    assert prediction.log_density(spikes).mean() > null.log_density(spikes).mean()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": {}}, "at least 1 item"),
        ({"latents": {"spikes+emg": 1, "emg+spikes": 2}}, "twice"),
        ({"decoder": {"emg": "cubic"}}, "'linear', 'mlp' or 'convolutional'"),
        ({"kernel": "linear"}, "'squared-exponential'"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"restarts": 0}, "greater than or equal to 1"),
        ({"latents": {"emg+pose": 1}}, "lack the modality 'pose'"),
    ],
)
def test_wrong_options(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vae_options(simulate(2)[0].layout, **OPTIONS | {"cross_weight": {}} | change)


def test_images_of_another_size_are_named() -> None:
    options = OPTIONS | {"decoder": {"emg": "convolutional"}, "image_shape": {"emg": (2, 3)}}
    with pytest.raises(InputError, match="image_shape of emg: 2 x 3 pixels, but it has 5 channels"):
        vae_options(simulate(2)[0].layout, **options)


def test_wrong_trials(fitted: MMGPVAE, test_trials: Trials) -> None:
    with pytest.raises(ValueError, match=r"bins of 0\.05 s"):
        fitted.latents(replace(test_trials, bin_width=0.05), BOTH)
