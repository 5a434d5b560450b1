"""Groups of latents found: their numbers, independent modalities, and that the fit is an ordinary one."""

from typing import Any

import numpy as np
import pytest

from colatent.models.gpfa.gaussian import GPFA

BIN_WIDTH = 0.02
BINS = 30
CHANNELS = {"spikes": 30, "emg": 8, "pose": 6}
TIME_SCALES = (4.0, 6.0, 9.0, 7.0, 5.0)
Array = np.ndarray


def simulate(groups: dict[str, int], seed: int, trials: int = 40) -> dict[str, Array]:
    """Return spike counts and linear channels driven by latents of different time scales."""
    rng = np.random.default_rng(seed)
    lag = np.subtract.outer(np.arange(BINS), np.arange(BINS))
    names = [group for group, n in groups.items() for _ in range(n)]
    latents = [
        rng.standard_normal((trials, BINS))
        @ np.linalg.cholesky(np.exp(-0.5 * (lag / scale) ** 2) + 1e-6 * np.eye(BINS)).T
        for _, scale in zip(names, TIME_SCALES, strict=False)
    ]
    data = {}
    for modality in dict.fromkeys(m for name in names for m in name.split("+")):
        own = np.stack([z for z, name in zip(latents, names, strict=True) if modality in name], axis=-1)
        signal = own @ rng.normal(size=(CHANNELS[modality], own.shape[-1])).T
        if modality == "spikes":
            data[modality] = rng.poisson(0.4 * np.exp(0.5 * signal)).astype(float)
        else:
            data[modality] = signal + rng.normal(size=signal.shape)
    return data


def fitted(data: dict[str, Any], **options: Any) -> GPFA:
    return GPFA(latents="auto", bin_width=BIN_WIDTH, **options).fit(data)


@pytest.mark.parametrize(
    "groups",
    [{"spikes+emg": 2, "spikes": 1, "emg": 1}, {"spikes": 2, "emg": 1}, {"emg+pose": 1, "emg": 1, "pose": 1}],
)
def test_true_groups_are_found(groups: dict[str, int]) -> None:
    assert fitted(simulate(groups, seed=0)).latents == groups


def test_curvature_of_square_roots_is_no_latent() -> None:
    assert fitted(simulate({"spikes": 2}, seed=1)).latents == {"spikes": 2}


def test_the_fit_is_that_of_the_groups_found() -> None:
    data = simulate({"spikes+emg": 1, "emg": 1}, seed=2)
    found = fitted(data)
    given = GPFA(latents=found.latents, bin_width=BIN_WIDTH).fit(data)
    np.testing.assert_array_equal(found.loading_, given.loading_)
    rebuilt = GPFA.from_state(found.state())
    assert rebuilt.latent_groups_ == found.latent_groups_ == ("spikes+emg", "emg")
    np.testing.assert_array_equal(rebuilt.transform(data), found.transform(data))


def test_a_modality_without_signal_keeps_one_private_latent() -> None:
    data = simulate({"emg": 1}, seed=3)
    data["pose"] = np.random.default_rng(0).normal(size=(40, BINS, 5))
    assert fitted(data).latents == {"emg": 1, "pose": 1}


def test_more_latents_are_offered_when_nearly_all_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colatent.models.gpfa.latent_groups._OFFERED", 2)
    said: list[str] = []
    data = simulate({"emg+pose": 1, "emg": 1}, seed=4)
    model = GPFA(latents="auto", bin_width=BIN_WIDTH).fit(data, said.append)
    assert model.latents == {"emg+pose": 1, "emg": 1}
    assert said[0] == "latents found among 4 offered: 1 of emg+pose, 1 of emg"


def test_gaps_and_missing_modalities_are_no_obstacle() -> None:
    data = simulate({"emg+pose": 1, "emg": 1, "pose": 1}, seed=7)
    data["pose"][::10] = np.nan
    data["emg"][1, 5] = np.nan
    assert fitted(data).latents == {"emg+pose": 1, "emg": 1, "pose": 1}


def test_every_fit_finds_groups_anew() -> None:
    model = fitted(simulate({"emg+pose": 1}, seed=6))
    assert model.fit(simulate({"emg": 1, "pose": 1}, seed=6)).latents == {"emg": 1, "pose": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"latents": "all"}, "'auto' or a mapping"), ({"automatic_relevance": 0.5}, "cannot be used with")],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPFA(**({"latents": "auto", "bin_width": BIN_WIDTH} | options))


def test_one_array_is_refused() -> None:
    with pytest.raises(ValueError, match="trials must be a mapping"):
        fitted(np.zeros((3, 10, 4)))  # type: ignore[arg-type]
