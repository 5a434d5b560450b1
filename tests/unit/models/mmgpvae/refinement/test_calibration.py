"""Calibrated sites against dense Gaussian algebra, and against noise that is known."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from support import fit_vae, vae_options

from colatent.data.trials import Layout, Trials
from colatent.jobs.checkpoint import Checkpoint
from colatent.models import gp
from colatent.models.mmgpvae.inference import product
from colatent.models.mmgpvae.network import MultiModalNetwork
from colatent.models.mmgpvae.posterior import Sites, log_evidence, prior_basis
from colatent.models.mmgpvae.refinement.calibration import calibrate_sites, log_normaliser, lower_precisions

KERNEL, SCALES, N_BINS = "squared-exponential", torch.tensor([4.0, 7.0], dtype=torch.float64), 30


def covariance(scale: float) -> np.ndarray:
    t = torch.arange(N_BINS, dtype=torch.float64)
    return gp.correlation(KERNEL, t[:, None] - t, torch.tensor(scale, dtype=torch.float64)).numpy()


def random_sites(rng: np.random.Generator, n_trials: int) -> Sites:
    precision = rng.gamma(2.0, 1.0, (n_trials, N_BINS, 2)) * (rng.random((n_trials, N_BINS, 2)) < 0.8)
    return Sites(
        torch.from_numpy(precision), torch.from_numpy(precision * rng.standard_normal(precision.shape))
    )


def test_evidence_is_that_of_dense_algebra() -> None:
    """Two modalities observe both latents; the sites of a bin without an observation are zero."""
    rng = np.random.default_rng(0)
    sites = [random_sites(rng, 3) for _ in range(2)]
    expected = 0.0
    for k, scale in enumerate(SCALES.tolist()):
        for trial in range(3):
            precision = np.concatenate([s.precision[trial, :, k].numpy() for s in sites])
            linear = np.concatenate([s.linear[trial, :, k].numpy() for s in sites])
            seen = np.flatnonzero(precision)
            bins = seen % N_BINS
            dense = covariance(scale)[np.ix_(bins, bins)] + np.diag(1 / precision[seen])
            expected += multivariate_normal.logpdf(linear[seen] / precision[seen], cov=dense)
    evidence = log_evidence(prior_basis(KERNEL, SCALES, N_BINS), product(sites)).sum()
    normalised = float(evidence) + sum(float(log_normaliser(s)) for s in sites)
    assert normalised == pytest.approx(expected, abs=2e-3)  # the basis leaves out 1e-6 of the variance


class KnownSites:
    """Stands for a network whose one modality has sites of a noise that is known, and says another."""

    def __init__(self, rng: np.random.Generator, noise: list[float], said: list[float]) -> None:
        n_trials = 40
        latents = np.stack(
            [
                rng.multivariate_normal(np.zeros(N_BINS), covariance(s), size=n_trials)
                for s in SCALES.tolist()
            ],
            axis=-1,
        )
        location = latents + np.sqrt(noise) * rng.standard_normal(latents.shape)
        precision = np.broadcast_to(1 / np.array(said), latents.shape)
        self.emitted = Sites(torch.from_numpy(precision.copy()), torch.from_numpy(precision * location))
        layout = Layout({"m": tuple("xyz")}, {"m": "continuous"}, 0.02, N_BINS)
        network = MultiModalNetwork(vae_options(layout, latents={"m": 2}, hidden=4), torch.Generator())
        self.modality = network.modality
        self.names = network.names
        self.has_linear_decoder = network.has_linear_decoder
        self.on_all_latents = network.on_all_latents
        self.data = {"m": None}

    def sites(self, data: object) -> dict[str, Sites]:
        return {"m": self.emitted}

    calibrated_sites = sites


def test_factors_are_those_of_the_true_noise_and_at_most_1() -> None:
    network = KnownSites(np.random.default_rng(1), noise=[0.5, 0.1], said=[0.05, 0.2])
    bases = prior_basis(KERNEL, SCALES, N_BINS)
    empty = Sites(torch.zeros_like(network.emitted.precision), torch.zeros_like(network.emitted.linear))
    calibrate_sites(network, network.data, bases, empty)  # type: ignore[arg-type]
    assert network.modality("m").site_factor.numpy() == pytest.approx([0.1, 1.0], rel=0.15)


@pytest.mark.parametrize(("best", "found"), [(0.3, 0.25), (1.0, 1.0), (1e-9, 1 / 64)])
def test_factors_are_halved_as_long_as_trials_held_out_gain(best: float, found: float) -> None:
    network = KnownSites(np.random.default_rng(1), noise=[0.5, 0.1], said=[0.05, 0.2])
    factors = network.modality("m").site_factor
    lower_precisions(network, lambda: -float(((factors - best) ** 2).sum()) * 1e4)  # type: ignore[arg-type]
    assert factors.tolist() == [found, found]


def test_factors_that_leave_no_objective_are_not_taken() -> None:
    network = KnownSites(np.random.default_rng(1), noise=[0.5, 0.1], said=[0.05, 0.2])
    factors = network.modality("m").site_factor
    lower_precisions(network, lambda: 0.0 if (factors == 1).all() else float("nan"))  # type: ignore[arg-type]
    assert factors.tolist() == [1.0, 1.0]


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


def test_bands_cover_the_truth_where_channels_share_their_noise(monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (train, z_train), (test, z_test) = common_noise(80, 0), common_noise(40, 1)
    given = ("clean", "common")
    options = {
        "latents": {"clean+common": 1},
        "decoder": {"clean": "linear"},
        "time_scale": 0.1,
        "epochs": 40,
        "batch_size": 8,
        "hidden": 16,
    }

    trained = Checkpoint(tmp_path, {})

    def error_and_coverage() -> tuple[float, float]:
        model = fit_vae(train, checkpoint=trained, **options)
        fit = model.latents(train, given)[0][..., 0]
        mean, variance = (x[..., 0] for x in model.latents(test, given))
        slope, offset = np.polyfit(fit.ravel(), z_train.ravel(), 1)
        error, band = z_test - slope * mean - offset, 1.96 * np.abs(slope) * np.sqrt(variance)
        return float(error.std()), float((np.abs(error) < band).mean())

    error, coverage = error_and_coverage()
    monkeypatch.setattr("colatent.models.mmgpvae.refinement.last_steps.calibrate", lambda *_: None)
    for later in filter(Path.is_dir, tmp_path.iterdir()):
        shutil.rmtree(later)  # what followed calibration; the training before it is the same
    raw_error, raw_coverage = error_and_coverage()
    assert raw_coverage < 0.90 < coverage < 0.98
    assert error < raw_error
