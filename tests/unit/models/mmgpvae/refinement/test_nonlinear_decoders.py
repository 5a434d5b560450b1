"""Decoders fitted by themselves at the end: their loss against SciPy, what moves, and what it gains."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import norm
from support import fit_vae

from colatent.data.trials import Trials
from colatent.jobs.checkpoint import Checkpoint
from colatent.models.base import FitRun
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.posterior import Marginals
from colatent.models.mmgpvae.refinement import last_steps
from colatent.models.mmgpvae.refinement.nonlinear_decoders import decoder_loss

TRIALS, BINS, BIN_WIDTH = 24, 30, 0.02
BOTH = ("emg", "pose")
OPTIONS = {
    "latents": {"emg+pose": 1},
    "decoder": {"emg": "linear"},
    "weight": {"pose": 2.0},
    "epochs": 12,
    "batch_size": 8,
    "hidden": 16,
    "time_scale": 0.1,
}


def simulate(seed: int = 0) -> Trials:
    """Muscles that follow a slow latent, and a pose that is a bent function of it; some bins missing."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 2 * np.pi, (TRIALS, 1))
    z = np.sin(2 * np.pi * np.arange(BINS) / 25 + phase)[..., None] * rng.uniform(0.5, 2, (TRIALS, 1, 1))
    weights = np.random.default_rng(9)
    emg = z * weights.normal(0, 1, 6) + 0.3 * rng.standard_normal((TRIALS, BINS, 6))
    bent = np.concatenate([z**2, np.abs(z), np.sin(3 * z)], axis=-1)
    pose = bent + 0.2 * rng.standard_normal(bent.shape)
    values = {"emg": emg, "pose": pose}
    observed = {name: np.ones(v.shape, dtype=bool) for name, v in values.items()}
    observed["pose"][0, 5:9] = False
    return Trials(
        values={name: np.where(observed[name], v, 0.0) for name, v in values.items()},
        observed=observed,
        channels={name: tuple(map(str, range(v.shape[2]))) for name, v in values.items()},
        kinds=dict.fromkeys(values, "continuous"),
        bin_width=BIN_WIDTH,
    )


@pytest.fixture
def unrefined(monkeypatch: pytest.MonkeyPatch) -> MMGPVAE:
    with monkeypatch.context() as patch:
        patch.setattr(last_steps, "refine_decoders", lambda *_: None)
        return fit_vae(simulate(), **OPTIONS)


@pytest.fixture(scope="module")
def refined() -> MMGPVAE:
    return fit_vae(simulate(), **OPTIONS)


def test_the_loss_is_the_log_density_of_the_decoded_latents(unrefined: MMGPVAE) -> None:
    trials, network = simulate(), unrefined.network.modality("pose")
    data = unrefined.network.inputs(trials, BOTH)
    latents = torch.from_numpy(np.random.default_rng(1).normal(size=(TRIALS, BINS, 1)))
    certain = Marginals(latents, torch.zeros_like(latents))  # so that its samples are its mean
    loss = decoder_loss(unrefined.network, ["pose"], data, certain)
    chosen = torch.tensor([0, 3, 7])
    with torch.no_grad():
        eta = network.decoder(latents[chosen]).double().numpy()
        sd = network.likelihood.scale().double().numpy()
        value, _ = loss(chosen, torch.Generator().manual_seed(0))
    target, seen = data["pose"].target[chosen].double().numpy(), data["pose"].observed[chosen].numpy()
    expected = 2.0 * norm.logpdf(target, eta, sd)[seen].sum()
    assert float(value) == pytest.approx(-expected / (3 * BINS), rel=1e-5)


def test_only_non_linear_decoders_move(unrefined: MMGPVAE, refined: MMGPVAE) -> None:
    before, after = unrefined.network.state_dict(), refined.network.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    pose = unrefined.network.names.index("pose")
    parts = {re.sub(rf"modalities\.{pose}\.(\w+)\..*", r"\1", name) for name in moved}
    assert parts == {"decoder"}


def test_the_pose_is_told_better(unrefined: MMGPVAE, refined: MMGPVAE) -> None:
    test = simulate(seed=1)
    for given in (BOTH, ("emg",)):
        errors = [
            np.square(model.predict(test, given, "pose").mean - test.values["pose"]).mean()
            for model in (unrefined, refined)
        ]
        assert errors[1] < 0.9 * errors[0]


def test_a_modality_with_a_cross_weight_is_left_as_it_is() -> None:
    lines: list[str] = []
    fit_vae(simulate(), 0, lines.append, **OPTIONS | {"cross_weight": {"pose": 0.5}, "epochs": 1})
    assert not [line for line in lines if line.startswith("decoders")]


def test_weights_that_do_no_better_on_held_out_trials_are_not_kept(
    unrefined: MMGPVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, lines = OPTIONS | {"learning_rate": 1e-9}, []
    monkeypatch.setattr("colatent.models.mmgpvae.refinement.nonlinear_decoders.EPOCHS", 2)
    start = fit_vae(simulate(), 0, lines.append, **options)
    assert any(re.match(r"decoders: kept epoch \d: held-out loss", line) for line in lines)
    with monkeypatch.context() as patch:
        patch.setattr("colatent.models.mmgpvae.training.Trainer._step", _ruin)
        lines.clear()
        last_steps.refine_decoders(
            start.network, simulate(), torch.arange(TRIALS), FitRun(progress=lines.append)
        )
    assert lines[-1].startswith("decoders: kept epoch 0:")
    weights = [p.detach() for p in start.network.parameters()]
    assert all(bool(w.isfinite().all()) and float(w.abs().max()) < 50 for w in weights)


def _ruin(trainer, batch):
    with torch.no_grad():
        for parameter in trainer.module.modality("pose").decoder.parameters():
            parameter.fill_(100.0)
    return {"loss": 0.0}


def test_interrupted_in_the_decoders_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("decoders: epoch 20/"):
            raise KeyboardInterrupt

    checkpoint, lines = Checkpoint(tmp_path, {"config": "this one"}), []
    with pytest.raises(KeyboardInterrupt):
        fit_vae(simulate(), 0, interrupt, checkpoint, **OPTIONS)
    resumed = fit_vae(simulate(), 0, lines.append, checkpoint, **OPTIONS).state()
    assert "decoders: resumed after epoch 10; 10 epochs are trained a second time" in lines
    straight = fit_vae(simulate(), **OPTIONS).state()
    assert all(resumed[name].tobytes() == straight[name].tobytes() for name in straight)
