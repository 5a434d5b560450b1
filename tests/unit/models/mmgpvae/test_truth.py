"""MM-GPVAE against the truth of simulations, and against exact algebra with several groups."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from support import BIN_WIDTH, BOTH, OPTIONS, fit_vae, make_trials, simulate, unfitted_vae
from torch import Tensor, nn

from colatent.data.trials import Trials
from colatent.models import gp
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.posterior import Sites

N_BINS, N_TRIALS = 12, 4
GROUPS = ("emg+pose", "emg", "pose")
TIME_SCALES = (2.0, 3.0, 4.0)  # bins


def test_bands_cover_the_truth_and_latents_have_the_prior_s_variance() -> None:
    """Of the 95 % bands, after an affine map fitted on training trials."""
    (train, z_train), (test, z_test) = simulate(120), simulate(60, seed=2)
    # the prior's variance takes longest to learn
    options = OPTIONS | {"cross_weight": {}, "epochs": 150}
    model = fit_vae(train, **options)
    fit, (mean, variance) = model.latents(train, BOTH)[0], model.latents(test, BOTH)
    complete = np.arange(60) > 1  # the first trials have gaps
    for k in range(2):
        slope, offset = np.polyfit(fit[..., k].ravel(), z_train[..., k].ravel(), 1)
        error = (z_test[..., k] - slope * mean[..., k] - offset)[complete]
        band = 1.96 * np.abs(slope) * np.sqrt(variance[..., k])[complete]
        assert 0.90 < (np.abs(error) < band).mean() < 0.98
        assert np.abs(slope) == pytest.approx(1.0, abs=0.15)
        assert model.time_scales()[k] == pytest.approx(5.0 * BIN_WIDTH, rel=0.15)


class LinearGaussian(NamedTuple):
    """Loadings C (channel, latent), offsets, noise variances of one modality."""

    loading: np.ndarray
    offset: np.ndarray
    noise: np.ndarray


def draw_truth() -> dict[str, LinearGaussian]:
    """Loadings that are orthogonal in units of the noise, so that exact sites are one a latent."""
    rng = np.random.default_rng(0)
    truth = {}
    for name, driven in (("emg", [0, 1]), ("pose", [0, 2])):
        noise = rng.uniform(0.3, 1.0, 4)
        directions = np.linalg.qr(rng.standard_normal((4, 2)))[0] * [1.5, 0.8]
        loading = np.zeros((4, 3))
        loading[:, driven] = np.sqrt(noise)[:, None] * directions
        truth[name] = LinearGaussian(loading, rng.standard_normal(4), noise)
    return truth


def priors() -> np.ndarray:
    """Covariance over bins of each latent, (latent, time, time)."""
    lag = torch.arange(N_BINS).double()
    scale = torch.tensor(TIME_SCALES).double()[:, None, None]
    return gp.correlation("squared-exponential", lag[:, None] - lag, scale).numpy()


def observations(truth: dict[str, LinearGaussian]) -> Trials:
    rng = np.random.default_rng(1)
    z = np.stack([rng.multivariate_normal(np.zeros(N_BINS), k, N_TRIALS) for k in priors()], axis=-1)
    values = {
        name: z @ m.loading.T + m.offset + np.sqrt(m.noise) * rng.standard_normal((N_TRIALS, N_BINS, 4))
        for name, m in truth.items()
    }
    return make_trials(values, {name: np.ones(v.shape, dtype=bool) for name, v in values.items()})


class ExactSites(nn.Module):
    """The encoder of a linear Gaussian modality: precision C' R^-1 C and linear term C' R^-1 (y - d)."""

    def __init__(self, m: LinearGaussian, driven: list[int]) -> None:
        super().__init__()
        self.weight = torch.from_numpy(m.loading[:, driven] / m.noise[:, None])
        self.precision = torch.from_numpy((m.loading[:, driven] ** 2 / m.noise[:, None]).sum(axis=0))

    def forward(self, features: Tensor, observed: Tensor) -> Sites:
        linear = features.double() @ self.weight
        return Sites(self.precision.expand_as(linear), linear)


def exact_model(truth: dict[str, LinearGaussian]) -> MMGPVAE:
    """An MM-GPVAE whose parameters are the truth and whose encoders are exact."""
    options = {"latents": dict.fromkeys(GROUPS, 1), "decoder": dict.fromkeys(truth, "linear")}
    model = unfitted_vae(observations(truth).layout, **options)
    model.network = MultiModalNetwork(model.options, torch.Generator())
    model.order, model.sign = np.arange(3), np.ones(3)
    with torch.no_grad():
        model.network.log_time_scale.copy_(torch.tensor(TIME_SCALES).log())
        for name, m in truth.items():
            network = model.network.modality(name)
            network.offset.copy_(torch.from_numpy(m.offset))
            network.decoder.readout.weight.copy_(torch.from_numpy(m.loading[:, network.latents.numpy()]))
            network.likelihood.log_scale.copy_(torch.from_numpy(0.5 * np.log(m.noise)))
            network.encoder = ExactSites(m, network.latents.tolist())
    return model


def dense_moments(truth: dict[str, LinearGaussian], given: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """Mean and covariance of the stacked observations, and their covariance with the latents."""
    loading = np.concatenate([truth[name].loading for name in given])
    noise = np.concatenate([truth[name].noise for name in given])
    offset = np.concatenate([truth[name].offset for name in given])
    with_latents = np.einsum("kst,ck->sctk", priors(), loading)  # (time, channel, time', latent)
    size = N_BINS * len(noise)
    covariance = np.einsum("kst,ck,dk->sctd", priors(), loading, loading).reshape(size, size)
    covariance += np.kron(np.eye(N_BINS), np.diag(noise))
    return np.tile(offset, N_BINS), covariance, with_latents.reshape(size, N_BINS * 3)


@pytest.mark.parametrize("given", [("emg", "pose"), ("emg",), ("pose",)])
def test_linear_gaussian_optimum_is_exact_multi_group_gpfa(given: tuple[str, ...]) -> None:
    truth = draw_truth()
    trials = observations(truth)
    model = exact_model(truth)
    mean, covariance, with_latents = dense_moments(truth, given)
    y = np.concatenate([trials.values[name] for name in given], axis=2).reshape(N_TRIALS, -1)
    expected = (y - mean) @ np.linalg.solve(covariance, with_latents)
    explained = (with_latents * np.linalg.solve(covariance, with_latents)).sum(axis=0)
    inferred, variance = model.latents(trials, given)
    np.testing.assert_allclose(inferred.reshape(N_TRIALS, -1), expected, atol=5e-3)
    np.testing.assert_allclose(
        variance.reshape(N_TRIALS, -1), np.tile(1 - explained, (N_TRIALS, 1)), atol=5e-3
    )


def test_no_other_posterior_or_parameter_beats_the_exact_one() -> None:
    truth = draw_truth()
    trials = observations(truth)
    mean, covariance, _ = dense_moments(truth, ("emg", "pose"))
    y = np.concatenate([trials.values["emg"], trials.values["pose"]], axis=2).reshape(N_TRIALS, -1)
    exact = multivariate_normal(mean, covariance).logpdf(y)
    model = exact_model(truth)
    np.testing.assert_allclose(model.elbo(trials), exact, atol=5e-2)
    for change in (0.7, 1.4):
        changed = exact_model(truth)
        changed.network.modality("emg").encoder.precision *= change
        # inference finds back to the optimum, from sites that are off it
        np.testing.assert_allclose(changed.elbo(trials), exact, atol=5e-2)
        data = changed.network.inputs(trials, ("emg", "pose"))
        encoded = changed.network.encoded_posterior(trials, ("emg", "pose"))
        plain = changed.network.elbo(data, encoded, torch.Generator()).detach().numpy()
        assert (plain < exact - 0.05).all()


def test_weights_scale_a_modality_s_share_of_the_objective() -> None:
    truth = draw_truth()
    trials = observations(truth)
    model = exact_model(truth)
    data = model.network.inputs(trials, ("emg", "pose"))
    q = model.network.encoded_posterior(trials, ("emg", "pose"))
    plain, half, none = (
        model.network.elbo(data, q, torch.Generator(), {"emg": w}).detach() for w in (1.0, 0.5, 0.0)
    )
    torch.testing.assert_close(half, (plain + none) / 2)
    m, (mean, variance) = truth["emg"], (x.numpy() for x in q.marginals)
    error = trials.values["emg"] - m.offset - mean @ m.loading.T
    spread = error**2 + variance @ (m.loading**2).T
    expected = -0.5 * (np.log(2 * np.pi * m.noise) + spread / m.noise).sum(axis=(1, 2))
    np.testing.assert_allclose((plain - none).numpy(), expected, rtol=1e-4)
