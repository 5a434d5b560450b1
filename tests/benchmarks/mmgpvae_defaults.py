"""MM-GPVAE with default options only: python tests/benchmarks/mmgpvae_defaults.py [SEEDS [SIMULATION ...]]

The simulations of `multimodal_gpfa` and some that are not linear in more ways, beside the multi-modal GPFA of
the same latents (as the workflow fits it) and three baselines. For each simulation: R² of every true latent
in test trials less the GPFA's, what the 95 % bands hold, R² of EMG from spikes and bits per spike of spikes
from EMG with the best of ridge, MLP and GRU in brackets, and CPU seconds of one thread. The last line is
JSON; the exit status is 1 if a goal is missed. Goals hold for the mean over the seeds (3).
"""

import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from ablation import DIRECTIONS, divided, recovered, score
from multimodal_gpfa import SIMULATIONS, TWO, Simulation, ending
from pydantic import TypeAdapter

from colatent.config import Model
from colatent.data.tasks import NOTHING_WITHHELD
from colatent.data.trials import Trials
from colatent.models.base import FitRun
from colatent.models.fitting import fit_model
from colatent.models.registry import model_class

ALL = SIMULATIONS | {
    "tuned units": Simulation({}, units="tuned", rate=0.5),
    "bursty units": Simulation({}, units="bursty"),
    "correlated noise": Simulation({}, channels={"spikes": 70, "emg": 30}, noise="correlated"),
    "unequal lengths": Simulation({}, unequal=True),
    "network, 200 training trials": replace(SIMULATIONS["network"], trials=267),
}
BASELINES: dict[str, dict[str, Any]] = {"ridge-lags": {}, "mlp-lags": {"lags": 11}, "gru": {}}
LEAST_GAIN, MOST_CPU, MOST_FROM_NOTHING = -0.01, 25.0, 0.02
BAND, LEAST_BAND = (0.88, 0.98), 0.75  # where the model is right, and elsewhere
SHARE_OF_QUESTIONS = 0.9  # in which the best baseline is reached


def is_linear(of: Simulation) -> bool:
    return of.readout == "linear" and of.units == "log-linear"


def is_right(of: Simulation) -> bool:
    """Whether the model is that of the simulation."""
    return is_linear(of) and of.noise == "gaussian" and not (of.late or of.frequency)


def fitted(kind: str, training: Trials, seed: int, **options: Any) -> Any:
    """Return a fitted model, with latents or without."""
    settings = TypeAdapter(Model).validate_python({"kind": kind, **options})
    return fit_model(model_class(settings), settings, training, FitRun(seed, NOTHING_WITHHELD)).model


def run(of: Simulation, seed: int) -> dict[str, Any]:
    """Fit all models to one simulation and return its row."""
    training, held_out, truth, names = divided(of, seed)
    latents = dict(Counter(names))
    start = time.process_time()
    vae = fitted("mm-gpvae", training, seed, latents=latents)
    seconds = time.process_time() - start
    linear = fitted("gpfa", training, seed, latents=latents)
    found, straight = (recovered(one, training, held_out, truth, names) for one in (vae, linear))
    row: dict[str, Any] = {"r2": [*found[0]], "linear": [*straight[0]], "band": [*found[1]], "cpu_s": seconds}
    others = {kind: fitted(kind, training, seed, **options) for kind, options in BASELINES.items()}
    for predicted in DIRECTIONS:
        row[predicted] = score(vae, training, held_out, predicted)
        row[f"{predicted}, best"] = max(score(o, training, held_out, predicted) for o in others.values())
    return row


def missed(name: str, of: Simulation, rows: list[dict[str, Any]]) -> list[str]:
    """Return the goals that a simulation missed, but for those of predictions."""
    r2, linear, band, cpu = (
        np.mean([row[k] for row in rows], axis=0) for k in ("r2", "linear", "band", "cpu_s")
    )
    found = []
    if (worst := (r2 - linear).min()) < LEAST_GAIN:
        found.append(f"{name}: R² of a latent is {-worst:.3f} below the linear model's")
    if not is_linear(of) and r2.mean() <= linear.mean():
        found.append(f"{name}: latents of R² {r2.mean():.3f}, no better than the linear model's")
    least, most = BAND if is_right(of) else (LEAST_BAND, 1.0)
    found += [f"{name}: a band holds {b:.2f}" for b in band if not least <= b <= most]
    return [*found, *([f"{name}: {cpu:.0f} CPU-s"] if cpu > MOST_CPU else [])]


def falls_short(rows: list[dict[str, Any]], predicted: str) -> bool:
    """Whether the best baseline predicts better by more than one standard error over the seeds."""
    ahead = np.array([row[predicted] - row[f"{predicted}, best"] for row in rows])
    error = ahead.std(ddof=1) / np.sqrt(len(ahead)) if len(ahead) > 1 else 0.0
    return bool(ahead.mean() < -error)


def nothing_shared(seed: int) -> float:
    """Return R² of EMG from spikes in test trials, where nothing is shared."""
    of = Simulation({}, {"spikes": 2, "emg": 2})
    training, held_out, _, _ = divided(of, seed)
    return score(fitted("mm-gpvae", training, seed, latents=TWO), training, held_out, "emg")


def main() -> int:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    chosen = {name: of for name, of in ALL.items() if len(sys.argv) < 3 or name in sys.argv[2:]}
    results, failures, short = {}, [], []
    print(f"{'simulation':30} {'R² less linear':42} {'bands':35} {'emg':13} {'spikes':13} CPU-s")
    for name, of in chosen.items():
        rows = results[name] = [run(of, seed) for seed in seeds]
        failures += missed(name, of, rows)
        short += [f"{name}: {predicted}" for predicted in DIRECTIONS if falls_short(rows, predicted)]
        mean = {key: np.mean([row[key] for row in rows], axis=0) for key in rows[0]}
        gain = " ".join(f"{x:+.3f}" for x in mean["r2"] - mean["linear"])
        bands = " ".join(f"{x:.2f}" for x in mean["band"])
        scores = [f"{mean[m]:.3f} ({mean[f'{m}, best']:.3f})" for m in DIRECTIONS]
        print(f"{name:30} {gain:42} {bands:35} {scores[0]} {scores[1]} {mean['cpu_s']:5.0f}", flush=True)
    if len(short) > (1 - SHARE_OF_QUESTIONS) * len(chosen) * len(DIRECTIONS):
        failures.append(f"a baseline predicts better: {'; '.join(short)}")
    unrelated = [nothing_shared(seed) for seed in seeds]
    print("nothing shared: R² of emg from spikes", " ".join(f"{r:.3f}" for r in unrelated))
    failures += [f"nothing shared: R² {r:.3f}" for r in unrelated if r > MOST_FROM_NOTHING]
    return ending(results, failures)


if __name__ == "__main__":
    sys.exit(main())
