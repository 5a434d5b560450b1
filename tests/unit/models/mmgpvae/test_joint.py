"""The joint posterior against GPFA's, dense algebra and importance sampling."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import multivariate_normal
from support import fit_vae, simulate, vae_options

from colatent.data.trials import Layout, Trials
from colatent.models import gp
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.mmgpvae import joint
from colatent.models.mmgpvae.joint import JointInference, marginals, posteriors
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.posterior import posterior

TRIALS, BINS, CHANNELS, BIN_WIDTH = 12, 40, 15, 0.02


def covariance(n_bins: int, scale: float) -> np.ndarray:
    t = torch.arange(n_bins).double()
    return gp.correlation("squared-exponential", t[:, None] - t, torch.tensor(scale)).numpy()


def one_modality(likelihood: str) -> Trials:
    rng = np.random.default_rng(3)
    z = rng.multivariate_normal(np.zeros(BINS), covariance(BINS, 5.0), size=TRIALS)
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
    return fit_vae(one_modality(likelihood), **options, hidden=16)


def as_gpfa(model: MMGPVAE) -> GPFA | CountGPFA:
    """The GPFA with the same parameters, its latents in the order of the network."""
    network = model.network.modality("m")
    readout = network.decoder.readout  # type: ignore[union-attr]
    scale, offset = network.scale.numpy(), network.offset.numpy()
    weight, bias = readout.weight.detach().double().numpy(), readout.bias.detach().double().numpy()
    state = {
        "loading": weight * scale[:, None] * model.network.prior_sd().detach().numpy(),
        "offset": bias * scale + offset,
        "time_scale": model.network.time_scale().detach().numpy() * BIN_WIDTH,
        "bin_width": np.array(BIN_WIDTH),
        "tolerance": np.array(1e-8),
        "kernel": np.array(0),
    }
    noise = network.likelihood.scale()
    if noise is None:
        counts = CountGPFA(1, BIN_WIDTH).fit(one_modality("poisson").with_nan("m")).state()
        return CountGPFA.from_state(counts | state)
    return GPFA.from_state(state | {"noise_variance": (noise.detach().double().numpy() * scale) ** 2})


@pytest.mark.parametrize("n_latents", [1, 3])
@pytest.mark.parametrize("likelihood", ["gaussian", "poisson"])
def test_with_linear_decoders_it_is_that_of_gpfa_with_the_same_parameters(
    likelihood: str, n_latents: int
) -> None:
    model, trials = barely_trained(likelihood, n_latents), one_modality(likelihood)
    model.network.modality("m").effective_share.fill_(1.0)
    mean, variance = marginals(model.network, trials, ("m",))
    sd = model.network.prior_sd().detach().numpy()
    expected = as_gpfa(model).posterior(trials.with_nan("m"))
    tolerance = 1e-3 if likelihood == "gaussian" else 5e-3
    np.testing.assert_allclose(mean.numpy() / sd, expected.mean, atol=tolerance)
    np.testing.assert_allclose(variance.numpy() / sd**2, expected.variance, atol=tolerance)


def two_modalities(n_bins: int, seed: int = 0) -> tuple[MultiModalNetwork, Trials]:
    """A network of random weights with a linear and a curved decoder, and observations of its own."""
    rng = np.random.default_rng(seed)
    kinds = {"curved": "continuous", "linear": "continuous"}
    layout = Layout({m: tuple("abcd") for m in kinds}, kinds, BIN_WIDTH, n_bins)
    options = vae_options(
        layout,
        latents={"curved+linear": 1, "curved": 1},
        decoder={"linear": "linear"},
        time_scale=1.5 * BIN_WIDTH,  # little longer than a bin, so that dense matrices can be inverted
        hidden=8,
    )
    # no recurrent units, whose weights would be drawn before the decoders': these curve little enough for a
    # Laplace approximation, others do not
    per_bin = {name: replace(modality, context=1) for name, modality in options.modalities.items()}
    with patch.dict(vars(options), modalities=per_bin):
        network = MultiModalNetwork(options, torch.Generator().manual_seed(seed))
    network.eval()
    with torch.no_grad():
        for name in network.names:
            network.modality(name).likelihood.log_scale.fill_(np.log(0.5))  # type: ignore[union-attr]
        z = torch.from_numpy(
            np.stack(
                [rng.multivariate_normal(np.zeros(n_bins), covariance(n_bins, 3.0), 4) for _ in "ab"], -1
            )
        )
        values = {}
        for name in network.names:
            modality = network.modality(name)
            eta = 2 * modality.decoder(z[..., modality.latents]).double().numpy()
            values[name] = eta + 0.5 * rng.standard_normal(eta.shape)
            for part in getattr(modality.decoder, "nonlinear", modality.decoder).readout.parameters():
                part.mul_(2.0)
    observed = {name: rng.random(y.shape) < 0.9 for name, y in values.items()}
    values = {name: np.where(observed[name], y, 0.0) for name, y in values.items()}
    return network, Trials(values, observed, layout.channels, layout.kinds, BIN_WIDTH)


def test_with_a_curved_decoder_it_is_close_to_importance_sampling() -> None:
    """As close as a Laplace approximation: the mean is the mode."""
    n_bins = 4
    network, trials = two_modalities(n_bins)
    ((_, q),) = posteriors(network, trials, network.names)
    assert isinstance(q, joint.JointPosterior)
    (rows,) = q.basis.to_bins(torch.eye(q.basis.n, dtype=torch.float64))
    place = rows.permute(0, 2, 1).flatten(1)  # coordinates -> latents, each over all bins
    rng = np.random.default_rng(1)
    prior = np.kron(np.eye(2), covariance(n_bins, 1.5))
    data = network.inputs(trials, network.names)
    for i in range(trials.n_trials):
        center = (q.u[i] @ place).numpy()
        found = (place.T @ q.spread.inverse[i] @ place).numpy()
        spread = 1.5 * found + 1e-6 * np.eye(len(found))
        draws = rng.multivariate_normal(center, spread, size=100_000)
        z = torch.from_numpy(draws.reshape(-1, 2, n_bins).transpose(0, 2, 1).copy())
        log_weight = multivariate_normal.logpdf(draws, cov=prior)
        log_weight -= multivariate_normal.logpdf(draws, center, spread)
        for name, x in data.items():
            modality = network.modality(name)
            with torch.no_grad():
                log_p = modality.likelihood.log_prob(x.target[i], modality.decoder(z[..., modality.latents]))
            log_weight += torch.where(x.observed[i], log_p, 0.0).sum(dim=(1, 2)).double().numpy()
        weight = np.exp(log_weight - logsumexp(log_weight))
        expected = weight @ draws
        deviation = np.sqrt(weight @ (draws - expected) ** 2)
        assert 1 / (weight**2).sum() > 1000  # draws that count
        np.testing.assert_allclose(center, expected, atol=0.3 * deviation.max())
        np.testing.assert_allclose(np.sqrt(np.diag(found)), deviation, rtol=0.25)


def test_it_is_better_than_that_of_the_encoders() -> None:
    """The bound at the posterior is larger, with decoders of any kind."""
    trials, _ = simulate(20)
    model = fit_vae(trials, latents={"spikes+emg": 1, "spikes": 1}, epochs=5)
    network = model.network
    with torch.no_grad():
        data, bases = network.inputs(trials, network.names), network.bases(trials.n_bins)
        sites = network.inference.combine(list(network.sites(data).values()))
        of_encoders = network.elbo(data, posterior(bases, sites), torch.Generator().manual_seed(0)).numpy()
    for name, x in data.items():
        of_encoders -= (x.observed * network.modality(name).scale.log()).sum(dim=(1, 2)).numpy()
    assert (model.elbo(trials) > of_encoders).all()


def test_samples_have_the_moments_of_the_posterior() -> None:
    network, trials = two_modalities(12)
    ((_, q),) = posteriors(network, trials, network.names)
    samples = q.sample(20_000, torch.Generator().manual_seed(0)).numpy()
    assert isinstance(q, joint.JointPosterior)
    np.testing.assert_allclose(samples.mean(axis=0), q.marginals.mean, atol=1e-9)  # antithetic
    centered = samples - q.marginals.mean.numpy()
    found = np.einsum("sntk,sntj->ntkj", centered, centered) / len(samples)
    np.testing.assert_allclose(found, q.spread.covariance[0], atol=0.06)


def test_divergence_from_the_prior_is_that_of_dense_algebra() -> None:
    n_bins = 5
    network, trials = two_modalities(n_bins)
    data = network.inputs(trials, network.names)
    inference = JointInference(network, data, (trials.n_trials, n_bins))
    at, q = inference.optimum(network.sites(data)), inference.posterior(network.sites(data))
    prior = np.kron(np.eye(2), covariance(n_bins, 1.5))
    for i in range(trials.n_trials):
        precision = np.zeros((2 * n_bins, 2 * n_bins))
        for t in range(n_bins):
            precision[np.ix_([t, n_bins + t], [t, n_bins + t])] = at.precision[i, t].numpy()
        spread = np.linalg.solve(np.eye(2 * n_bins) + prior @ precision, prior)
        mean = q.marginals.mean[i].numpy().T.ravel()
        trace = np.trace(np.linalg.solve(prior, spread))
        log_det = np.linalg.slogdet(np.eye(2 * n_bins) + prior @ precision)[1]
        divergence = 0.5 * (trace + mean @ np.linalg.solve(prior, mean) - 2 * n_bins + log_det)
        assert float(q.kl()[i]) == pytest.approx(divergence, abs=0.02)


@pytest.mark.parametrize("most", [1, 3_000_000])
def test_a_trial_does_not_depend_on_those_beside_it(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    network, trials = two_modalities(12)
    together = marginals(network, trials, network.names)
    monkeypatch.setattr(joint, "MOST_VALUES", most)
    alone = [marginals(network, trials.select(np.array([i])), network.names) for i in range(4)]
    np.testing.assert_allclose(torch.cat([one.mean for one in alone]), together.mean, atol=1e-5)
    np.testing.assert_allclose(
        marginals(network, trials, network.names).variance, together.variance, atol=1e-5
    )


def test_hidden_values_are_not_looked_at() -> None:
    model, trials = barely_trained("poisson"), one_modality("poisson")
    hidden = np.arange(CHANNELS) < 4
    before = model.latents(trials.hide({"m": hidden}), ("m",))[0]
    trials.values["m"][..., hidden] += 7.0
    np.testing.assert_array_equal(model.latents(trials.hide({"m": hidden}), ("m",))[0], before)
