"""Modalities of different trials have nothing in common: MM-GPVAE must not find that they have."""

import numpy as np
import pytest
import torch
from support import fit_vae

from colatent.data.tasks import NOTHING_WITHHELD
from colatent.data.trials import Trials
from colatent.models.fitting import FittedModel
from colatent.models.mmgpvae.joint import marginals
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.scoring.evaluate import evaluate

N_TRIALS, N_TRAINING, N_BINS = 90, 50, 25
OPTIONS = {
    "latents": {"spikes+emg": 1, "spikes": 1, "emg": 1},
    "likelihood": {"spikes": "poisson", "emg": "gaussian"},
    "decoder": {"spikes": "linear", "emg": "linear"},
    "cross_weight": {"emg": 1.0},
    "time_scale": 0.1,
    "hidden": 16,
    "epochs": 60,
}


def simulate(permuted: bool) -> Trials:
    """24 Poisson units and 5 muscles on one latent; with ``permuted``, muscles of other trials."""
    rng = np.random.default_rng(0)
    lag = np.subtract.outer(np.arange(N_BINS), np.arange(N_BINS))
    z = rng.multivariate_normal(np.zeros(N_BINS), np.exp(-0.5 * (lag / 5.0) ** 2), N_TRIALS)[..., None]
    emg = 5 + 2 * z * rng.normal(size=5) + 0.5 * rng.normal(size=(N_TRIALS, N_BINS, 5))
    spikes = rng.poisson(np.exp(z * rng.normal(0, 0.7, 24) - 0.5)).astype(float)
    values = {"spikes": spikes, "emg": emg[rng.permutation(N_TRIALS)] if permuted else emg}
    return Trials(
        values=values,
        observed={m: np.ones(v.shape, dtype=bool) for m, v in values.items()},
        channels={m: tuple(map(str, range(v.shape[2]))) for m, v in values.items()},
        kinds={"spikes": "spikes", "emg": "continuous"},
        bin_width=0.02,
    )


def explained_by_the_shared_group(model: MMGPVAE, test: Trials) -> float:
    """R2 of the muscles at the posterior mean given both, other groups' latents at their prior mean."""
    network = model.network.modality("emg")
    with torch.no_grad():
        z = marginals(model.network, test, ("spikes", "emg")).mean
        z = z * torch.tensor([float(group.name == "spikes+emg") for group in model.latent_groups])
        decoded = network.predictive(z[None][..., network.latents]).mean
    y = test.values["emg"]
    deviation = y - y.mean(axis=(0, 1))
    return float(1 - ((y - decoded) ** 2).sum() / (deviation**2).sum())


@pytest.mark.parametrize("permuted", [True, False])
def test_only_modalities_of_the_same_trials_share_latents(permuted):
    trials = simulate(permuted)
    training, test = (trials.select(i) for i in np.split(np.arange(N_TRIALS), [N_TRAINING]))
    model = fit_vae(training, **OPTIONS)
    scores = evaluate(FittedModel(model), training, test, NOTHING_WITHHELD).scores
    pooled = scores.query("channel == 'pooled' and predicted == 'emg' and metric == 'r2'")
    r2 = pooled.set_index(["heldout", "given"])["value"]
    assert r2["trials", "spikes+emg"] > 0.6  # the fit is good, be it of the muscles' own latent
    if permuted:
        assert r2["modality", "spikes"] <= 0.02
        assert explained_by_the_shared_group(model, test) <= 0.02
    else:
        assert r2["modality", "spikes"] > 0.3
        assert explained_by_the_shared_group(model, test) > 0.3
