"""What each step and term of MM-GPVAE buys: python tests/benchmarks/ablation.py [SEEDS]

Three simulations of `multimodal_gpfa`: linear, oscillating latents, and EMG through a random network. Each
line leaves one thing out of the defaults. R² of every true latent in test trials (as there) and what their
95 % bands hold; EMG and spikes predicted from each other. CPU seconds of one thread. The last line is JSON;
the exit status is 1 if the defaults are worse than a line by more than .01 on average over all latents.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np
from multimodal_gpfa import BIN_WIDTH, SIMULATIONS, Simulation, ending, simulate

from colatent.config import MMGPVAESettings
from colatent.data.trials import Trials, running
from colatent.models.base import FitRun, LatentModel
from colatent.models.mmgpvae import inference, model
from colatent.models.mmgpvae.model import MMGPVAE

CHOSEN = ("linear", "oscillating", "network")
EPOCHS = 150
MOST_LOST = 0.01
DIRECTIONS = {"emg": "spikes", "spikes": "emg"}  # predicted -> given


@contextmanager
def encoders_posterior() -> Iterator[None]:
    """Infer from the encoders' sites, as training does, not from the decoders."""
    sites = inference.INFERENCES["sites"]
    alone = inference.Inference(sites.basis, sites.posterior, sites.combine)
    with patch.dict(inference.INFERENCES, {"sites": alone}):
        yield


LEFT_OUT: dict[str, tuple[Callable[[], AbstractContextManager[Any]], dict[str, Any]]] = {
    "nothing": (nullcontext, {}),
    "the linear model": (lambda: patch.object(MMGPVAESettings, "can_start_linear", False), {}),
    "the joint posterior": (encoders_posterior, {}),
    "last steps": (lambda: patch.object(model, "take_last_steps", lambda *_: None), {}),
    "cross-modal prediction": (nullcontext, {"cross_weight": {}}),
    "hidden channels": (lambda: patch.object(MMGPVAESettings, "channel_dropout", 0.0), {}),
    "decay of decoders": (lambda: patch.object(MMGPVAESettings, "decoder_decay", 0.0), {}),
}


def as_trials(data: dict[str, np.ndarray], chosen: np.ndarray) -> Trials:
    values = {name: x[chosen] for name, x in data.items()}
    return Trials(
        values={name: np.nan_to_num(x) for name, x in values.items()},
        observed={name: ~np.isnan(x) for name, x in values.items()},
        channels={name: tuple(map(str, range(x.shape[2]))) for name, x in values.items()},
        kinds={name: "spikes" if name == "spikes" else "continuous" for name in values},
        bin_width=BIN_WIDTH,
    )


def divided(of: Simulation, seed: int) -> tuple[Trials, Trials, tuple[np.ndarray, np.ndarray], list[str]]:
    """Return training trials, the quarter that is held out, true latents of both, and their groups."""
    z, names, data = simulate(of, seed)
    test = np.arange(of.trials) % 4 == 0
    return as_trials(data, ~test), as_trials(data, test), (z[~test], z[test]), names


def score(model: Any, training: Trials, test: Trials, predicted: str) -> float:
    """Return R² of EMG, or bits per spike of spikes, in test trials from the other modality alone."""
    given = DIRECTIONS[predicted]
    guess = model.predict(test.only((given,)), (given,), predicted).mean
    truth, mean = test.with_nan(predicted), np.nanmean(training.with_nan(predicted), axis=(0, 1))
    if predicted == "spikes":
        gain = truth * np.log(guess / mean) - guess + mean
        return float(np.nansum(gain) / np.nansum(truth) / np.log(2))
    return float(1 - np.nansum((truth - guess) ** 2) / np.nansum((truth - mean) ** 2))


def recovered(fit: LatentModel, train: Trials, test: Trials, truth: tuple, names: list[str]) -> np.ndarray:
    """Return R² of each true latent, and what its band holds (2, latent): an affine map of its group's."""
    inferred, (mean, variance) = fit.latents(train, fit.modalities)[0], fit.latents(test, fit.modalities)
    there = [running(trials.observed.values()) for trials in (train, test, test)]
    rows = []
    for k, name in enumerate(names):
        own = [group.name == name for group in fit.latent_groups]
        flat = [z[bins][:, own] for z, bins in zip((inferred, mean, variance), there, strict=True)]
        x, y = (np.column_stack([z, np.ones(len(z))]) for z in flat[:2])
        weight = np.linalg.lstsq(x, truth[0][there[0], k], rcond=None)[0]
        error = truth[1][there[1], k] - y @ weight
        sd = np.sqrt(flat[2] @ weight[:-1] ** 2)
        rows.append((1 - error.var() / truth[1][there[1], k].var(), (np.abs(error) < 1.96 * sd).mean()))
    return np.array(rows).T


def run(name: str, options: dict[str, Any], seed: int) -> dict[str, Any]:
    training, held_out, truth, names = divided(SIMULATIONS[name], seed)
    settings = MMGPVAESettings(kind="mm-gpvae", latents=dict(Counter(names)), epochs=EPOCHS, **options)
    start = time.process_time()
    fit = MMGPVAE(settings, training.layout).fit(training, FitRun(seed))
    seconds = time.process_time() - start
    found, band = recovered(fit, training, held_out, truth, names)
    scores = {predicted: score(fit, training, held_out, predicted) for predicted in DIRECTIONS}
    return {"r2": [*found], "band": [*band], **scores, "cpu_s": seconds}


def main() -> int:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 2)
    results, failures = {}, []
    head = f"{'R² of latents':30} {'worst band':>10} {'spikes':>7} {'emg':>5}  CPU-s"
    print(f"{'simulation':12} {'left out':24} {head}")
    for name in CHOSEN:
        for left_out, (change, options) in LEFT_OUT.items():
            with change():
                rows = [run(name, options, seed) for seed in seeds]
            results[f"{name}, without {left_out}"] = rows
            mean = {key: np.mean([row[key] for row in rows], axis=0) for key in rows[0]}
            print(
                f"{name:12} {left_out:24} {' '.join(f'{x:.3f}' for x in mean['r2']):30} "
                f"{mean['band'].min():10.2f} {mean['spikes']:7.3f} {mean['emg']:5.2f} {mean['cpu_s']:6.0f}",
                flush=True,
            )
            whole = np.mean([row["r2"] for row in results[f"{name}, without nothing"]])
            if mean["r2"].mean() > whole + MOST_LOST:
                failures.append(f"{name}: better without {left_out} ({mean['r2'].mean():.3f} > {whole:.3f})")
    return ending(results, failures)


if __name__ == "__main__":
    sys.exit(main())
