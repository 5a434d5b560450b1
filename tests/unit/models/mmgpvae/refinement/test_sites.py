"""Refined sites against GPFA's exact posterior and its own iteration to the optimum."""

import numpy as np
import pytest
import torch
from support import fit_vae

from colatent.data.trials import Trials
from colatent.models import gp
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.mmgpvae.inference import product
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.posterior import Sites, posterior

TRIALS, BINS, CHANNELS, BIN_WIDTH = 12, 40, 15, 0.02


def simulate(likelihood: str) -> Trials:
    rng = np.random.default_rng(3)
    t = torch.arange(BINS).double()
    prior = gp.correlation("squared-exponential", t[:, None] - t, torch.tensor(5.0)).numpy()
    z = rng.multivariate_normal(np.zeros(BINS), prior, size=TRIALS)
    eta = z[..., None] * rng.normal(0.5, 0.7, CHANNELS) - 0.5
    y = rng.poisson(np.exp(eta)).astype(float) if likelihood == "poisson" else rng.normal(eta, 0.7)
    observed = np.ones(y.shape, dtype=bool)
    observed[0, 10:20] = observed[1, 30:] = observed[2, :, :5] = False
    return Trials(
        values={"m": np.where(observed, y, 0.0)},
        observed={"m": observed},
        channels={"m": tuple(map(str, range(CHANNELS)))},
        kinds={"m": "spikes" if likelihood == "poisson" else "continuous"},
        bin_width=BIN_WIDTH,
    )


def barely_trained(likelihood: str, n_latents: int = 1) -> MMGPVAE:
    options = {"latents": {"m": n_latents}, "decoder": {"m": "linear"}, "time_scale": 0.1, "epochs": 5}
    return fit_vae(simulate(likelihood), **options, hidden=16)


def as_gpfa(model: MMGPVAE) -> GPFA | CountGPFA:
    """The GPFA with the same parameters."""
    network = model.network.modality("m")
    readout = network.decoder.readout  # type: ignore[union-attr]
    scale, offset = network.scale.numpy(), network.offset.numpy()
    weight, bias = readout.weight.detach().double().numpy(), readout.bias.detach().double().numpy()
    state = {
        "loading": weight * scale[:, None] * model.network.prior_sd().detach().numpy(),
        "offset": bias * scale + offset,
        "time_scale": model.time_scales(),
        "bin_width": np.array(BIN_WIDTH),
        "tolerance": np.array(1e-8),
        "kernel": np.array(0),
    }
    noise = network.likelihood.scale()
    if noise is None:
        counts = CountGPFA(1, BIN_WIDTH).fit(simulate("poisson").with_nan("m")).state()
        return CountGPFA.from_state(counts | state)
    return GPFA.from_state(state | {"noise_variance": (noise.detach().double().numpy() * scale) ** 2})


@pytest.mark.parametrize(("likelihood", "tolerance"), [("gaussian", 1e-4), ("poisson", 2e-2)])
def test_posterior_is_that_of_gpfa_with_the_same_parameters(likelihood: str, tolerance: float) -> None:
    model, trials = barely_trained(likelihood), simulate(likelihood)
    mean, variance = model.latents(trials, ("m",))
    expected = as_gpfa(model).posterior(trials.with_nan("m"))
    np.testing.assert_allclose(mean * model.sign, expected.mean, atol=tolerance)
    np.testing.assert_allclose(variance, expected.variance, atol=tolerance)


def test_means_of_several_latents_are_exact_in_a_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Gaussian observations: the optimum's means are those of the posterior with correlated latents."""
    monkeypatch.setattr("colatent.models.mmgpvae.refinement.sites.MOST_STEPS", 3)
    model, trials = barely_trained("gaussian", 3), simulate("gaussian")
    mean = model.posterior(trials, ("m",)).marginals.mean / model.network.prior_sd().detach()
    with_raw_order = as_gpfa(model)
    with_raw_order.time_scale_ = model.network.time_scale().detach().numpy() * BIN_WIDTH
    np.testing.assert_allclose(mean, with_raw_order.posterior(trials.with_nan("m")).mean, atol=0.01)


def test_bound_is_above_that_of_the_encoder_s_sites() -> None:
    model, trials = barely_trained("poisson"), simulate("poisson")
    network = model.network.eval()
    with torch.no_grad():
        data, bases = network.inputs(trials, ("m",)), network.bases(BINS)
        empty = torch.zeros(TRIALS, BINS, 1, dtype=torch.float64)
        amortised = posterior(bases, product([Sites(empty, empty), *network.sites(data).values()]))
        bound = network.elbo(data, amortised, torch.Generator()).numpy()
    assert (model.elbo(trials) > bound + 1.0).all()


def test_a_trial_does_not_depend_on_those_beside_it() -> None:
    model, trials = barely_trained("poisson"), simulate("poisson")
    together = model.latents(trials, ("m",))[0]
    for i in (0, 5):
        np.testing.assert_allclose(model.latents(trials.select([i]), ("m",))[0][0], together[i], atol=1e-6)


def test_hidden_values_are_not_looked_at() -> None:
    model, trials = barely_trained("poisson"), simulate("poisson")
    hidden = np.arange(CHANNELS) < 4
    before = model.latents(trials.hide({"m": hidden}), ("m",))[0]
    trials.values["m"][..., hidden] += 7.0
    np.testing.assert_array_equal(model.latents(trials.hide({"m": hidden}), ("m",))[0], before)
