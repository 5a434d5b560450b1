"""What a summary says of a fit, against a model whose latents are known."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from support import fit_to, settings_of, simulate

from colatent.analyses import ANALYSES, analyse
from colatent.analyses.analysed import AnalysedFit
from colatent.analyses.latent_summary import latent_summary
from colatent.analyses.shared_signal import _cycle, shared_signal
from colatent.config.models import LatentGroup
from colatent.data import metrics
from colatent.data.scaling import standard_deviation
from colatent.data.tasks import NOTHING_WITHHELD
from colatent.data.trials import Trials
from colatent.models.base import LatentSummary
from colatent.store.session import Fold


def fold_of(trials: Trials) -> Fold:
    role = np.repeat(np.array([0, 1], dtype=np.int8), [20, 10])
    training, test = (trials.select(role == r) for r in (0, 1))
    return Fold(training, test, trials, role, NOTHING_WITHHELD, {})


class Linear:
    """EMG and force are sums of a shared and a private latent."""

    modalities = ("emg", "force")
    latent_groups = tuple(map(LatentGroup.of, ("emg+force", "emg", "force")))

    def __init__(self, latents: np.ndarray) -> None:
        self.known = latents

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        z = self.known[-trials.n_trials :] if trials.n_trials == 10 else self.known
        return z, np.ones_like(z)

    def latents_seen_by(self, modality: str, trials: Trials, given: tuple[str, ...]) -> np.ndarray:
        return self.latents(trials, given)[0]

    def decode(self, latents: np.ndarray, modality: str, condition: Any = None) -> np.ndarray:
        private = 1 if modality == "emg" else 2
        return latents[..., [0]] + 2 * latents[..., [private]]

    def summary(self, latents: np.ndarray) -> LatentSummary:
        loading = {m: np.ones((1, 3)) for m in self.modalities}
        return LatentSummary(loading, dict.fromkeys(self.modalities, "N"), np.arange(3.0))


def decoded_trials(model: Any, z: np.ndarray) -> Trials:
    """Trials without noise, decoded from latents."""
    values = {m: model.decode(z, m) for m in model.modalities}
    observed = {m: np.ones(v.shape, dtype=bool) for m, v in values.items()}
    kinds = dict.fromkeys(values, "continuous")
    return Trials(values, observed, dict.fromkeys(values, ("a",)), kinds, 0.02)


def test_what_groups_explain_is_what_is_lost_without_them():
    z = np.random.default_rng(0).normal(size=(30, 200, 3))
    model: Any = Linear(z)
    trials = decoded_trials(model, z)
    found = latent_summary(AnalysedFit(model, fold_of(trials)))
    explained = found["explained"]
    assert list(explained["group"].values) == ["emg+force", "emg", "force"]
    np.testing.assert_allclose(explained["alone"], [[0.2, 0.2], [0.8, np.nan], [np.nan, 0.8]], atol=0.05)
    np.testing.assert_allclose(explained["unique"], [[0.2, 0.2], [0.8, np.nan], [np.nan, 0.8]], atol=0.05)
    assert found["loading/emg"].attrs["unit"] == "N per s.d. of the latent"
    assert found["latent"]["time_scale_low"].isnull().all()
    assert "level" not in found["latent"]["time_scale_low"].attrs


def test_a_modality_that_follows_is_explained_as_it_is_reconstructed_from_the_first_bin_on():
    trials = simulate(60)[0]
    late = 3
    shift = {"spikes": np.s_[:, late:], "emg": np.s_[:, :-late]}  # muscles of the bins before
    values, observed = ({m: of[m][shift[m]] for m in of} for of in (trials.values, trials.observed))
    trials = replace(trials, values=values, observed=observed)
    role = np.repeat(np.array([0, 1], dtype=np.int8), [40, 20])
    training, test = (trials.select(role == r) for r in (0, 1))
    fold = Fold(training, test, trials, role, NOTHING_WITHHELD, {})
    settings = settings_of("gpfa", latents={"spikes+emg": 2}, delays=True)
    model: Any = fit_to(settings, training).model
    delay = model.summary(np.zeros((1, 1, 2))).delay["emg"] / trials.bin_width
    assert delay[0] == pytest.approx(late, abs=1)
    explained = latent_summary(AnalysedFit(model, fold))["explained"]
    for m in ("spikes", "emg"):
        everything = model.predict(test, model.modalities, m).mean
        scale = standard_deviation(training.values[m], training.observed[m])
        r2 = metrics.r2(test.values[m], everything, test.observed[m], scale)
        assert float(explained["alone"].sel(modality=m).item()) == pytest.approx(r2.pooled, abs=1e-3)


class Informed(Linear):
    """The shared latent is the same from either modality; private ones are unknown from the other."""

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
        z = super().latents(trials, given)[0].copy()
        if "emg" not in given:
            z[..., 1] = 0
        if "force" not in given:
            z[..., 2] = 0
        return z, np.ones_like(z)


def test_a_shared_group_predicts_each_modality_from_the_others_beyond_permuted_trials():
    z = np.random.default_rng(0).normal(size=(30, 200, 3))
    model: Any = Informed(z)
    trials = decoded_trials(model, z)
    found = shared_signal(AnalysedFit(model, fold_of(trials)))
    assert found is not None and list(found["group"].values) == ["emg+force"]
    # the shared latent is a fifth of the variance; what permuted trials share is chance
    np.testing.assert_allclose(found["r2"], [[0.2, 0.2]], atol=0.05)
    assert float(found["permuted"].max()) < 0.1
    noise = np.random.default_rng(1).normal(size=trials.values["emg"].shape)
    unrelated = replace(trials, values={**trials.values, "emg": noise})
    nothing = shared_signal(AnalysedFit(model, fold_of(unrelated)))
    assert nothing is not None and float(nothing["r2"].sel(modality="emg").item()) < 0.05


def test_a_permutation_of_trials_keeps_none_in_its_place():
    rng = np.random.default_rng(0)
    for n in (2, 3, 10):
        for _ in range(20):
            order = _cycle(n, rng)
            assert sorted(order) == list(range(n)) and (order != np.arange(n)).all()


@pytest.mark.parametrize("kind", ["gpfa", "smoothed-fa"])
def test_a_model_of_one_modality_explains_what_it_reconstructs(kind):
    fold = fold_of(simulate(30)[0])
    model: Any = fit_to(settings_of(kind, latents={"spikes": 2}), fold.training).model
    found = analyse(model, fold, None)
    assert list(found) == [name for name, analysis in ANALYSES.items() if not analysis.needs_truth]
    summary: Any = found["summary"]
    rate = model.predict(fold.test.only(("spikes",)), ("spikes",), "spikes").mean
    scale = fold.training.values["spikes"].std(axis=(0, 1))
    r2 = metrics.r2(fold.test.values["spikes"], rate, fold.test.observed["spikes"], scale).pooled
    assert summary["explained"]["alone"].item() == pytest.approx(r2, abs=0.01)
    assert summary["loading/spikes"].attrs["unit"] == "√(spikes per bin) per s.d. of the latent"
    assert ("latent" in summary) == (kind == "gpfa")
    latents: Any = found["latents"]
    assert list(latents[""]["latent"].values) == ["spikes 1", "spikes 2"]
    np.testing.assert_array_equal(latents[""]["role"], fold.role)
