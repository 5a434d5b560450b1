"""Multi-modal GPFA on simulations with known latents: python tests/benchmarks/multimodal_gpfa.py [SEEDS]

Fourteen simulations: spikes (Poisson, log-linear) and other channels driven by shared and private latents,
linear or not. Three quarters of the trials train the model, with default options and, where modalities are
late, with ``delays=True``. R² of every true latent in test trials: an affine map of the latents of its own
group, fitted on training trials. Coverage: share of test values inside the 95 % band when EMG is predicted
from spikes, where the model of it is right. CPU seconds of one thread. The last line is JSON; the exit
status is 1 if a goal is missed.

The goals on R² are figures that another script reached on simulations of the same description, less .02;
those of our own simulations are what the first run reached, with room. They hold for the mean over the
seeds.
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

torch.set_num_threads(1)

from colatent import GPFA, CountGPFA  # noqa: E402  (after the number of threads)

BIN_WIDTH = 0.02
TWO = {"spikes+emg": 2, "spikes": 2, "emg": 1}
THREE = {"spikes+emg+pose": 2, "spikes+emg": 1, "spikes": 1, "emg": 1, "pose": 1}
MODELS = {"roots": GPFA, "counts": CountGPFA}
# roots: without and with delays; counts
SECONDS = {("roots", False): 1.0, ("roots", True): 5.0, ("counts", False): 15.0, ("counts", True): 15.0}


@dataclass(frozen=True)
class Simulation:
    """What is simulated, and the goals.

    Attributes:
        goals: least R² by kind of group: shared, spikes, other. by_counts: those that differ with counts by
            their own likelihood.
        channels: channels of each modality. trials: number, of which a quarter test.
        readout: of the other modalities: "linear", "rectified" or "network".
        late: bins by which the other modalities follow.
        frequency: of oscillating latents, cycles per bin. weak: factor of the shared loadings.
        noise: "gaussian", "heavy" (Student t, 3 degrees of freedom) or "correlated" (between neighbours).
        units: "log-linear", "tuned" (to a place in the space of the latents) or "bursty" (each bin's rate
            times a gamma variable of shape 1/2). unequal: whether trials end early.
    """

    goals: dict[str, float]
    groups: dict[str, int] = field(default_factory=lambda: TWO)
    channels: dict[str, int] = field(default_factory=lambda: {"spikes": 70, "emg": 8})
    trials: int = 88
    bins: int = 50
    readout: str = "linear"
    late: int = 0
    frequency: float = 0.0
    weak: float = 1.0
    noise: str = "gaussian"
    noise_level: float = 1.0
    rate: float = 0.2
    time_scale: tuple[float, float] = (4.0, 12.0)
    units: str = "log-linear"
    unequal: bool = False
    by_counts: dict[str, float] = field(default_factory=dict)


SIMULATIONS = {
    "linear": Simulation({"shared": 0.96, "spikes": 0.71, "other": 0.97}, by_counts={"spikes": 0.80}),
    "clean channels, weak spikes": Simulation(
        {"shared": 0.93, "spikes": 0.26, "other": 0.94}, channels={"spikes": 30, "emg": 40},
        readout="network", noise_level=0.2, rate=0.04),
    "three modalities": Simulation(
        {"shared": 0.86, "spikes": 0.85, "other": 0.83}, THREE, {"spikes": 70, "emg": 10, "pose": 8}),
    "20 training trials": Simulation({"shared": 0.79, "spikes": 0.66, "other": 0.90}, trials=27),
    "oscillating": Simulation({"shared": 0.93, "spikes": 0.67, "other": 0.94}, frequency=0.08),
    "rectified, saturating": Simulation(
        {"shared": 0.92, "spikes": 0.86, "other": 0.90}, trials=267, readout="rectified", rate=0.3),
    "network": Simulation({"shared": 0.90, "spikes": 0.65, "other": 0.93}, channels={"spikes": 70, "emg": 30},
        readout="network"),
    "everything shared": Simulation({"shared": 0.93}, {"spikes+emg": 3}),
    "heavy-tailed noise": Simulation({"shared": 0.93, "spikes": 0.65, "other": 0.96}, noise="heavy"),
    "late by 5 bins": Simulation({"shared": 0.94, "spikes": 0.64, "other": 0.84}, late=5),
    # of our own
    "equal time scales": Simulation({"shared": 0.80, "spikes": 0.60, "other": 0.85}, time_scale=(8.0, 8.0)),
    "weak shared signal": Simulation({"shared": 0.70, "spikes": 0.65, "other": 0.85}, weak=0.5),
    "200 units, 20 training trials": Simulation(
        {"shared": 0.90, "spikes": 0.80, "other": 0.85}, channels={"spikes": 200, "emg": 8}, trials=27),
    "late by 2 bins": Simulation({"shared": 0.90, "spikes": 0.64, "other": 0.84}, late=2),
}  # fmt: skip


def latents(rng: np.random.Generator, of: Simulation, n_bins: int) -> np.ndarray:
    """Return true latents (trial, bin, latent)."""
    lag = np.subtract.outer(np.arange(n_bins), np.arange(n_bins))
    drawn = []
    for scale in rng.uniform(*of.time_scale, sum(of.groups.values())):
        covariance = np.exp(-0.5 * (lag / scale) ** 2) * np.cos(2 * np.pi * of.frequency * lag)
        root = np.linalg.cholesky(covariance + 1e-6 * np.eye(n_bins))
        drawn.append(rng.standard_normal((of.trials, n_bins)) @ root.T)
    return np.stack(drawn, axis=-1)


def tuned(rng: np.random.Generator, z: np.ndarray, n_units: int, mean: float) -> np.ndarray:
    """Return rates of units that fire near a place in the space of the latents (trial, bin, unit)."""
    place = rng.normal(size=(n_units, z.shape[-1]))
    distance = np.square(z[:, :, None] - place).sum(-1)
    rate = np.exp(-0.5 * distance / 1.5**2)
    return mean * rate / rate.mean(axis=(0, 1))


def simulate(of: Simulation, seed: int) -> tuple[np.ndarray, list[str], dict[str, np.ndarray]]:
    """Return true latents as the first modality of their group sees them, their groups, and the data."""
    rng = np.random.default_rng(seed)
    names = [group for group, n in of.groups.items() for _ in range(n)]
    z = latents(rng, of, of.bins + 2 * of.late)
    early, late = z[:, of.late : of.late + of.bins], z[:, : of.bins]
    data = {}
    for modality, n_channels in of.channels.items():
        seen = early if modality == "spikes" else late
        drives = np.array([modality in name.split("+") for name in names])
        shared = np.array(["+" in name for name in names])
        loading = rng.normal(size=(n_channels, len(names))) * drives * np.where(shared, of.weak, 1.0)
        if modality == "spikes":
            eta = seen @ (0.5 * loading).T + np.log(of.rate) + 0.5 * rng.normal(size=n_channels)
            rate = np.exp(eta)
            if of.units == "tuned":
                rate = tuned(rng, seen[..., drives], n_channels, of.rate)
            if of.units == "bursty":
                rate = rate * rng.gamma(0.5, 2.0, rate.shape)
            data[modality] = rng.poisson(rate).astype(float)
            continue
        signal = seen @ loading.T
        if of.readout == "rectified":
            signal = 3 * np.tanh(np.log1p(np.exp(1.5 * signal)) / 3)
        if of.readout == "network":
            hidden = np.tanh(0.7 * signal + 0.3 * rng.normal(size=n_channels))
            signal = hidden @ rng.normal(size=(n_channels, n_channels)) / np.sqrt(n_channels / 3)
        noise = rng.standard_t(3, signal.shape) if of.noise == "heavy" else rng.normal(size=signal.shape)
        if of.noise == "correlated":
            noise = np.sqrt(0.5) * (noise + np.roll(noise, 1, axis=2))
        data[modality] = signal + of.noise_level * noise + 2
    if of.unequal:
        ended = np.arange(of.bins) >= rng.integers(of.bins // 2, of.bins + 1, of.trials)[:, None]
        data = {modality: np.where(ended[..., None], np.nan, y) for modality, y in data.items()}
    own = np.array(["spikes" in name.split("+") for name in names])
    return np.where(own, early, late), names, data


def r2(train: np.ndarray, truth: np.ndarray, test: np.ndarray, wanted: np.ndarray) -> float:
    """Return R² of a true latent from an affine map of inferred ones."""
    design = [np.column_stack([x.reshape(-1, x.shape[-1]), np.ones(x[..., 0].size)]) for x in (train, test)]
    weight = np.linalg.lstsq(design[0], truth.ravel(), rcond=None)[0]
    return float(1 - (wanted.ravel() - design[1] @ weight).var() / wanted.var())


def run(of: Simulation, seed: int, kind: str) -> dict[str, Any]:
    """Fit one simulation by square roots or by counts and return its row."""
    z, names, data = simulate(of, seed)
    test = np.arange(of.trials) % 4 == 0
    training, held = ({m: y[part] for m, y in data.items()} for part in (~test, test))
    delays = of.late > 0
    start = time.process_time()
    model = MODELS[kind](latents=of.groups, bin_width=BIN_WIDTH, delays=delays).fit(training)
    seconds = time.process_time() - start
    found, heard = (np.asarray(model.transform(part)) for part in (training, held))
    scores: dict[str, list[float]] = {}
    for k, name in enumerate(names):
        own = np.array([one == name for one in model.latent_groups_])
        group = "shared" if "+" in name else "spikes" if name == "spikes" else "other"
        score = r2(found[..., own], z[~test][..., k], heard[..., own], z[test][..., k])
        scores.setdefault(group, []).append(round(score, 3))
    row: dict[str, Any] = {"scores": scores, "cpu_s": round(seconds, 2), "iterations": len(model.history_)}
    if of.readout == "linear" and of.noise == "gaussian":
        emg = model.predict({"spikes": held["spikes"]})["emg"]
        inside = np.abs(held["emg"] - emg.mean) < 1.96 * np.sqrt(emg.variance)
        row["coverage"] = round(float(inside.mean()), 3)
    if delays:
        shared = np.array(["+" in group for group in model.latent_groups_])
        off = model.delay_[1:, shared] / BIN_WIDTH - of.late
        row["delay_error_bins"] = round(float(np.abs(off).max()), 2)
    return row


def missed(name: str, of: Simulation, rows: list[dict], kind: str) -> list[str]:
    """Return the goals that a simulation missed."""
    found = []
    for group, goal in (of.goals | (of.by_counts if kind == "counts" else {})).items():
        worst = np.mean([row["scores"][group] for row in rows], axis=0).min()
        if worst < goal:
            found.append(f"{name}: R² of the worst {group} latent {worst:.3f} < {goal}")
    name = f"{name}, {kind}"
    for row in rows:
        if row["cpu_s"] > SECONDS[kind, of.late > 0]:
            found.append(f"{name}: {row['cpu_s']} CPU-s")
        if "coverage" in row and not 0.90 <= row["coverage"] <= 0.97:
            found.append(f"{name}: coverage {row['coverage']}")
        if row.get("delay_error_bins", 0) > 0.5:
            found.append(f"{name}: a delay is off by {row['delay_error_bins']} bins")
    return found


def nothing_shared(seed: int, kind: str) -> float:
    """Return R² of emg from spikes in test trials, where nothing is shared."""
    of = Simulation({}, {"spikes": 2, "emg": 2})
    _, _, data = simulate(of, seed)
    test = np.arange(of.trials) % 4 == 0
    model = MODELS[kind](latents=TWO, bin_width=BIN_WIDTH).fit({m: y[~test] for m, y in data.items()})
    emg = data["emg"][test]
    error = emg - model.predict({"spikes": data["spikes"][test]})["emg"].mean
    return float(1 - (error**2).sum() / ((emg - data["emg"][~test].mean((0, 1))) ** 2).sum())


def ending(results: dict[str, Any], failures: list[str]) -> int:
    """Print the goals that were missed and all results as JSON, and return the exit status."""
    for failure in failures:
        print("missed:", failure)
    print(json.dumps({"results": results, "missed": failures}))
    return int(bool(failures))


def main() -> int:
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
    results, failures = {}, []
    print(
        f"{'simulation':32} {'spikes':7} {'shared':18} {'spikes':14} {'other':14} {'CPU-s':>6} "
        f"{'coverage':>8} delay error"
    )
    for name, of in SIMULATIONS.items():
        for kind in MODELS:
            rows = [run(of, seed, kind) for seed in seeds]
            results[f"{name}, {kind}"] = rows
            failures += missed(name, of, rows, kind)
            mean = {k: np.mean([row["scores"][k] for row in rows], axis=0) for k in of.goals}
            text = [" ".join(f"{v:.2f}" for v in mean.get(g, [])) for g in ("shared", "spikes", "other")]
            cover = np.mean([row.get("coverage", np.nan) for row in rows])
            late = max(row.get("delay_error_bins", np.nan) for row in rows)
            seconds = max(row["cpu_s"] for row in rows)
            print(
                f"{name if kind == 'roots' else '':32} {kind:7} {text[0]:18} {text[1]:14} {text[2]:14} "
                f"{seconds:6.2f} {cover:8.3f} {late:.2f}",
                flush=True,
            )
    for kind in MODELS:
        unrelated = [nothing_shared(seed, kind) for seed in seeds]
        print(f"nothing shared, {kind}: R² of emg from spikes", " ".join(f"{r:.3f}" for r in unrelated))
        failures += [f"nothing shared, {kind}: R² {r:.3f} > .02" for r in unrelated if r > 0.02]
    return ending(results, failures)


if __name__ == "__main__":
    sys.exit(main())
