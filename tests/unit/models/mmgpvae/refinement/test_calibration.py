"""Shares of channels against dense Gaussian algebra, and against noise that is known."""

import numpy as np
import pytest
import torch
from scipy.optimize import check_grad
from scipy.stats import multivariate_normal
from support import fit_vae, vae_options

from colatent.config import MMGPVAESettings
from colatent.data.trials import Layout, Trials
from colatent.models import gp
from colatent.models.mmgpvae.joint import JointInference
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.refinement.calibration import Evidence

N_BINS = 30


def covariance(scale: float, n_bins: int = N_BINS) -> np.ndarray:
    t = torch.arange(n_bins, dtype=torch.float64)
    return gp.correlation("squared-exponential", t[:, None] - t, torch.tensor(scale)).numpy()


def small_network(n_bins: int) -> tuple[MultiModalNetwork, Trials]:
    """Two modalities with linear decoders, of a shared latent and a private one each, and random data."""
    rng = np.random.default_rng(0)
    kinds = dict.fromkeys(("a", "b"), "continuous")
    layout = Layout({"a": tuple("uvw"), "b": tuple("uvwx")}, kinds, 0.02, n_bins)
    latents, linear = {"a+b": 1, "a": 1, "b": 1}, dict.fromkeys("ab", "linear")
    options = vae_options(layout, latents=latents, decoder=linear, time_scale=0.05, hidden=4)
    network = MultiModalNetwork(options, torch.Generator().manual_seed(0))
    network.eval()
    values = {m: rng.standard_normal((3, n_bins, layout.n_channels(m))) for m in kinds}
    observed = {m: np.ones(v.shape, dtype=bool) for m, v in values.items()}
    observed["a"][0, 2] = observed["b"][1, 3:] = False
    return network, Trials(values, observed, layout.channels, layout.kinds, 0.02)


def evidence_of(network: MultiModalNetwork, trials: Trials) -> tuple[Evidence, JointInference]:
    data = network.inputs(trials, network.names)
    inference = JointInference(network, data, (trials.n_trials, trials.n_bins))
    return Evidence(inference, network.sites(data)), inference


def test_evidence_is_that_of_dense_algebra() -> None:
    """Each bin of a modality is an observation of its latents, with the noise that its decoder says."""
    n_bins = 6
    network, trials = small_network(n_bins)
    evidence, _ = evidence_of(network, trials)
    prior = covariance(2.5, n_bins)

    def dense(log_factor: np.ndarray) -> float:
        total = 0.0
        for i in range(trials.n_trials):
            rows, centers, noises = [], [], []
            for m, name in enumerate(network.names):
                modality = network.modality(name)
                own = modality.latents.tolist()
                loading = modality.linear_decoder.readout.weight.detach().double().numpy()
                noise = modality.likelihood.scale().detach().double().numpy()  # type: ignore[union-attr]
                data = network.inputs(trials, [name])[name]
                for t in range(n_bins):
                    if not data.observed[i, t].all():
                        continue
                    precision = loading.T @ (loading / noise[:, None] ** 2)
                    bias = modality.decoder.output_bias.detach().double().numpy()
                    residual = data.target[i, t].double().numpy() - bias
                    centers.append(np.linalg.solve(precision, loading.T @ (residual / noise**2)))
                    noises.append(np.linalg.inv(precision) / np.exp(log_factor[m]))
                    rows += [(k, t) for k in own]
            k, t = np.array(rows).T
            joint = prior[t[:, None], t] * (k[:, None] == k)
            at = 0
            for noise in noises:
                joint[at : at + len(noise), at : at + len(noise)] += noise
                at += len(noise)
            total += multivariate_normal.logpdf(np.concatenate(centers), cov=joint)
        return total

    here, there = np.array([-0.2, -1.0]), np.array([-1.5, -0.1])
    difference = evidence.cost(there)[0] - evidence.cost(here)[0]
    assert difference == pytest.approx(dense(here) - dense(there), rel=1e-3)


def test_gradient_is_that_of_finite_differences() -> None:
    evidence, _ = evidence_of(*small_network(8))
    at = np.array([-0.5, -1.2])
    off = check_grad(lambda x: evidence.cost(x)[0], lambda x: evidence.cost(x)[1], at)
    assert off < 1e-4 * np.abs(evidence.cost(at)[1]).max()


def common_noise(n_trials: int, seed: int) -> tuple[Trials, np.ndarray]:
    """A shared latent; one modality's noise is independent over channels, the other's is common to them."""
    rng, weights = np.random.default_rng(seed), np.random.default_rng(5)
    z = rng.multivariate_normal(np.zeros(N_BINS), covariance(5.0), size=n_trials)
    clean = z[..., None] * weights.normal(size=8)
    noise = rng.standard_normal((*z.shape, 4)) @ weights.normal(size=(4, 30))
    values = {
        "clean": clean + 2.0 * rng.standard_normal(clean.shape),
        "common": z[..., None] * weights.normal(size=30) + noise + 0.3 * rng.standard_normal(noise.shape),
    }
    trials = Trials(
        values=values,
        observed={name: np.ones(v.shape, dtype=bool) for name, v in values.items()},
        channels={name: tuple(map(str, range(v.shape[2]))) for name, v in values.items()},
        kinds=dict.fromkeys(values, "continuous"),
        bin_width=0.02,
    )
    return trials, z


def test_bands_cover_the_truth_where_channels_share_their_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    # the one latent of the linear model follows the noise that the channels share, which is stronger
    monkeypatch.setattr(MMGPVAESettings, "can_start_linear", False)
    (train, z_train), (test, z_test) = common_noise(80, 0), common_noise(40, 1)
    given = ("clean", "common")
    said: list[str] = []
    model = fit_vae(
        train,
        progress=said.append,
        latents={"clean+common": 1},
        decoder={"clean": "linear"},
        time_scale=0.1,
        epochs=40,
        batch_size=8,
        hidden=16,
    )

    def error_and_coverage() -> tuple[float, float]:
        fit = model.latents(train, given)[0][..., 0]
        mean, variance = (x[..., 0] for x in model.latents(test, given))
        slope, offset = np.polyfit(fit.ravel(), z_train.ravel(), 1)
        error, band = z_test - slope * mean - offset, 1.96 * np.abs(slope) * np.sqrt(variance)
        return float(error.std()), float((np.abs(error) < band).mean())

    error, coverage = error_and_coverage()
    assert float(model.network.modality("clean").effective_share) == 1.0
    (line,) = [line for line in said if "channels share noise" in line]
    assert line.startswith("common: ")
    model.network.modality("common").effective_share.fill_(1.0)
    raw_error, raw_coverage = error_and_coverage()
    assert raw_coverage < 0.90 < coverage < 0.98
    assert error < raw_error
