"""The objective's cross-modal predictions: from which modalities, and with which density."""

from collections import Counter

import numpy as np
import torch
from support import make_trials, vae_options

from colatent.models.mmgpvae.network import Data, MultiModalNetwork
from colatent.models.mmgpvae.objective import Objective

WEIGHT = {"emg": 0.5, "pose": 2.0}


def objective() -> tuple[Objective, Data]:
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=(4, 12, 3)) for name in ("emg", "pose", "spikes")}
    values["spikes"] = rng.poisson(1.0, (4, 12, 3)).astype(float)
    trials = make_trials(values, {name: np.ones(v.shape, dtype=bool) for name, v in values.items()})
    options = vae_options(trials.layout, latents={"emg+pose+spikes": 1, "emg": 1}, hidden=8)
    network = MultiModalNetwork(options, torch.Generator().manual_seed(0))
    network.calibrate(trials)
    return Objective(network, WEIGHT), network.inputs(trials, network.names)


def test_in_training_half_of_the_predictions_are_from_random_subsets() -> None:
    one, data = objective()
    one.network.train()
    generator = torch.Generator().manual_seed(1)
    drawn = Counter(tuple(one._others("emg", data, generator)) for _ in range(4000))
    # alone: kept of the two, or kept as neither was
    expected = {("pose", "spikes"): 5 / 8, ("pose",): 3 / 16, ("spikes",): 3 / 16}
    assert drawn.keys() == expected.keys()
    for subset, share in expected.items():
        assert abs(drawn[subset] / 4000 - share) < 0.03


def test_on_held_out_trials_all_others_are_given() -> None:
    one, data = objective()
    one.network.eval()
    generator = torch.Generator().manual_seed(1)
    assert all(one._others("emg", data, generator) == ["pose", "spikes"] for _ in range(50))


def test_a_prediction_sees_the_modalities_that_it_is_given_alone() -> None:
    one, data = objective()
    network = one.network.eval()
    bases = network.bases(12)
    with torch.no_grad():
        for name in network.names:  # at first they say next to nothing
            network.modality(name).encoder.log_precision.bias.fill_(2.0)
        sites = network.sites(data)
        found = network.cross_log_prob(data, sites, bases, {"emg": ["pose"]})["emg"]
        mean = network.cross_mean("emg", {"pose": sites["pose"]}, bases)
        by_hand = network.modality("emg").cross_log_prob(data["emg"], mean, network.unseen("emg", ["pose"]))
        from_all = network.cross_log_prob(data, sites, bases, {"emg": ["pose", "spikes"]})["emg"]
    torch.testing.assert_close(found, by_hand)
    assert not torch.allclose(found, from_all)


def test_terms_are_weighted() -> None:
    one, data = objective()
    one.network.eval()
    with torch.no_grad():
        _, terms = one.loss(data, torch.Generator().manual_seed(0))
        sites, bases = one.network.sites(data), one.network.bases(12)
        given = {"emg": ["pose", "spikes"], "pose": ["emg", "spikes"]}
        found = one.network.cross_log_prob(data, sites, bases, given)
    expected = sum(WEIGHT[name] * found[name].sum() for name in WEIGHT) / (4 * 12)
    torch.testing.assert_close(terms["cross_log_prob"], expected)
