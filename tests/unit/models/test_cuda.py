"""Fits on a GPU are those of the CPU, to rounding. Skipped, and said so, where PyTorch has no GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import Killed, fit_vae, make_trials, unfitted_vae

from colatent.data.trials import Trials
from colatent.jobs.checkpoint import Checkpoint
from colatent.jobs.device import reserved_device
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.mmgpvae.model import MMGPVAE

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch has no GPU here")

N_TRIALS, N_BINS = 24, 30
ALL = ("emg", "spikes", "video")
OPTIONS = dict(
    latents={"spikes+emg+video": 1, "spikes": 1, "video": 1},
    decoder={"video": "convolutional"},
    image_shape={"video": (8, 8)},
    cross_weight={"emg": 1.0},
    time_scale=0.1,
    hidden=32,
    epochs=12,
    batch_size=8,
)


@pytest.fixture(scope="module")
def trials() -> Trials:
    """Spikes, EMG and images of smooth latents, with gaps, a short trial and one without EMG."""
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, (N_TRIALS, 1, 3))
    z = np.sqrt(2) * np.sin(np.arange(N_BINS)[:, None] / (4, 5, 6) + phase)
    pattern = rng.normal(size=(2, 64))
    values = {
        "spikes": rng.poisson(np.exp(0.7 * z[..., :2] @ rng.normal(size=(2, 20)))).astype(float),
        "emg": z[..., :1] * rng.normal(size=4) + 0.3 * rng.normal(size=(N_TRIALS, N_BINS, 4)),
        "video": np.tanh(z[..., [0, 2]] @ pattern) + 0.1 * rng.normal(size=(N_TRIALS, N_BINS, 64)),
    }
    observed = {name: np.ones(v.shape, dtype=bool) for name, v in values.items()}
    observed["spikes"][3, 10:15] = observed["emg"][5] = False
    for mask in observed.values():
        mask[7, 20:] = False
    return make_trials(values, observed)


def fit(trials: Trials, device: str, checkpoint: Checkpoint | None = None, progress=print, **more) -> MMGPVAE:
    return fit_vae(trials, 0, progress, checkpoint, device, **OPTIONS | more)


def close(a: np.ndarray, b: np.ndarray, tolerance: float) -> None:
    """Assert that two arrays differ by at most this share of their root mean square."""
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.sqrt(np.square(b).mean()))


@pytest.mark.parametrize("posterior", ["sites", "averaged", "mean-field"])
def test_an_mm_gpvae_is_trained_as_on_the_cpu(trials: Trials, posterior: str) -> None:
    cpu, gpu = (fit(trials, device, posterior=posterior, restarts=2) for device in ("cpu", "cuda"))
    assert next(gpu.network.parameters()).is_cuda
    first, last = ([model.history[i]["loss"] for model in (gpu, cpu)] for i in (0, -1))
    assert first[0] == pytest.approx(first[1], rel=1e-4)
    # rounding grows from step to step
    assert last[0] == pytest.approx(last[1], rel=0.02)
    close(gpu.latents(trials, ALL)[0], cpu.latents(trials, ALL)[0], 0.2)


def test_one_fit_predicts_on_the_gpu_what_it_predicts_on_the_cpu(trials: Trials) -> None:
    model = fit(trials, "cuda")
    there = unfitted_vae(trials.layout, **OPTIONS).restore(model.state())
    for given in (ALL, ("spikes",), ("emg", "video")):
        for a, b in zip(model.latents(trials, given), there.latents(trials, given), strict=True):
            close(a, b, 1e-3)
        for name in ALL:
            close(model.predict(trials, given, name).mean, there.predict(trials, given, name).mean, 1e-3)
    close(model.elbo(trials), there.elbo(trials), 1e-3)
    latents = model.latents(trials, ALL)[0]
    close(model.summary(latents).loading["video"], there.summary(latents).loading["video"], 1e-3)


def test_an_interrupted_fit_goes_on_on_the_gpu(trials: Trials, tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, {"data": "these"})
    lines: list[str] = []

    def kill(line: str) -> None:
        if line.startswith("epoch 12"):
            raise Killed

    with pytest.raises(Killed):
        fit(trials, "cuda", checkpoint, kill)
    resumed, whole = fit(trials, "cuda", checkpoint, lines.append), fit(trials, "cuda")
    assert lines[0].startswith("resumed after epoch 10; ")
    losses = [[row["loss"] for row in model.history] for model in (resumed, whole)]
    # sums on a GPU are taken in no fixed order
    np.testing.assert_allclose(*losses, rtol=0.01)


def test_gpfa_is_fitted_as_on_the_cpu(trials: Trials) -> None:
    roots = np.where(trials.observed["spikes"], np.sqrt(trials.values["spikes"]), np.nan)
    cpu, gpu = (GPFA(n_latents=2, bin_width=0.02, device=d).fit(roots) for d in ("cpu", "cuda"))
    ends = [model.history_[-1]["log_likelihood"] for model in (gpu, cpu)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-4)
    mean = cpu.predict(roots).mean
    close(gpu.predict(roots).mean, mean, 1e-2)


def test_gpfa_of_counts_is_fitted_as_on_the_cpu(trials: Trials) -> None:
    counts = np.where(trials.observed["spikes"], trials.values["spikes"], np.nan)
    cpu, gpu = (CountGPFA(n_latents=2, bin_width=0.02, device=d).fit(counts) for d in ("cpu", "cuda"))
    close(gpu.predict(counts).mean, cpu.predict(counts).mean, 1e-2)


@pytest.mark.parametrize("wanted", ["cuda", "auto"])
def test_a_gpu_is_found_and_named(wanted: str) -> None:
    said: list[str] = []
    with reserved_device(wanted, said.append) as used:
        assert used == "cuda"
    assert f"on the GPU {torch.cuda.get_device_name()}" in said
