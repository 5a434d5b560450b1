"""GPFA against elephant's, in one run: python tests/benchmarks/gpfa.py [--quick]

Both get the same simulated counts (square-rooted) in the same process order, one thread each, every
fit in a process of its own so that its peak memory is its own; times are CPU seconds. The last line
is JSON; the exit status is 1 if a goal is missed. The full run takes about ten minutes, nearly all
of it elephant's; --quick takes one.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

BIN_WIDTH = 0.02
TIME_SCALES = (0.06, 0.12, 0.24)
CELLS = [  # trials, bins, neurons: the rows of the table of peers
    (50, 50, 50),
    (50, 100, 50),
    (50, 500, 50),
    (200, 50, 50),
    (200, 100, 50),
    (200, 500, 50),
    (50, 50, 100),
    (200, 100, 100),
]
QUICK_CELLS = [CELLS[0], CELLS[1], CELLS[6]]
GOALS = {
    "speed-up, median over cells": ("at least", 200.0),
    "speed-up, worst cell": ("at least", 100.0),
    "latent R2 below elephant's, worst cell": ("at most", 0.002),
    "co-smoothing bits/spike below elephant's, worst cell": ("at most", 0.002),
    "peak memory over elephant's, worst cell": ("at most", 1.0),
    "peak memory less libraries over elephant's, worst cell": ("at most", 1.0),
    "whole trials of 500 bins: speed-up per evaluation": ("at least", 100.0),
    "inference on ten lengths (410-500): time over ten equal lengths": ("at most", 2.0),
    "500 to 16,000 bins, q = 5: growth of time over growth of length": ("at most", 1.0),
}


def simulate(n_trials: int, n_bins: int, n_neurons: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return latents (trial, time, latent) and Poisson counts (trial, time, neuron)."""
    rng = np.random.default_rng(seed)
    lag = np.subtract.outer(np.arange(n_bins), np.arange(n_bins)) * BIN_WIDTH
    root = [np.linalg.cholesky(np.exp(-0.5 * (lag / s) ** 2) + 1e-6 * np.eye(n_bins)) for s in TIME_SCALES]
    z = np.stack([rng.standard_normal((n_trials, n_bins)) @ r.T for r in root], axis=-1)
    loading = 0.4 * rng.standard_normal((n_neurons, len(TIME_SCALES)))
    offset = np.log(0.12) + 0.5 * rng.standard_normal(n_neurons)
    return z, rng.poisson(np.exp(z @ loading.T + offset)).astype(float)


class Ours:
    """This package's GPFA."""

    def __init__(self) -> None:
        import torch

        from colatent.models.gpfa.gaussian import GPFA

        torch.set_num_threads(1)
        self.model = GPFA(n_latents=len(TIME_SCALES), bin_width=BIN_WIDTH)

    def fit(self, root_counts: np.ndarray) -> int:
        self.model.fit(root_counts)
        return len(self.model.history_)

    def transform(self, root_counts: np.ndarray) -> np.ndarray:
        return self.model.transform(root_counts)  # type: ignore[return-value]


class Elephant:
    """elephant's GPFA with its defaults, without its binning of spike trains."""

    def __init__(self) -> None:
        from elephant.gpfa import gpfa_core

        self.core = gpfa_core

    @staticmethod
    def sequences(root_counts: np.ndarray | list[np.ndarray]) -> np.recarray:
        rows = [(len(trial), trial.T.copy()) for trial in root_counts]
        return np.array(rows, dtype=[("T", int), ("y", "O")])  # type: ignore[return-value]

    def fit(self, root_counts: np.ndarray, max_iterations: int = 500) -> int:
        np.random.seed(0)  # noqa: NPY002 (elephant cuts its training pieces with the global generator)
        self.parameters, info = self.core.fit(
            self.sequences(root_counts), x_dim=len(TIME_SCALES), em_max_iters=max_iterations
        )
        return len(info["iteration_time"])

    def transform(self, root_counts: np.ndarray) -> np.ndarray:
        inferred, _ = self.core.exact_inference_with_ll(
            self.sequences(root_counts), self.parameters, get_ll=False
        )
        return np.stack([x.T for x in inferred["latent_variable"]])


def run_cell(package: str, n_trials: int, n_bins: int, n_neurons: int) -> dict[str, float]:
    """Fit one package to one cell, in this process."""
    n_test = n_trials // 5
    z, counts = simulate(n_trials + n_test, n_bins, n_neurons)
    held_out = np.arange(n_neurons) % 5 == 0
    root = np.sqrt(counts[:, :, ~held_out])
    model = Ours() if package == "ours" else Elephant()
    model.fit(root[:10, :20])  # libraries load parts of themselves at first use
    loaded_mb = peak_memory_mb()
    start = time.process_time()
    iterations = model.fit(root[:n_trials])
    fit_s = time.process_time() - start
    start = time.process_time()
    test_latents = model.transform(root[n_trials:])
    transform_s = time.process_time() - start
    peak_mb = peak_memory_mb()
    train_latents = model.transform(root[:n_trials])
    train, test = (x.reshape(-1, x.shape[-1]) for x in (train_latents, test_latents))
    return {
        "fit_s": fit_s,
        "transform_s": transform_s,
        "iterations": iterations,
        "peak_mb": peak_mb,
        "data_mb": peak_mb - loaded_mb,
        "r2": latent_r2(train, z[:n_trials], test, z[n_trials:]),
        "bits": co_smoothing(train, counts[:n_trials, :, held_out], test, counts[n_trials:, :, held_out]),
    }


def peak_memory_mb() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def latent_r2(train: np.ndarray, true_train: np.ndarray, test: np.ndarray, true_test: np.ndarray) -> float:
    """R2 of the true latents of test trials after an affine alignment fitted on training trials."""
    q = true_train.shape[-1]
    ones = [np.c_[x, np.ones(len(x))] for x in (train, test)]
    aligned = ones[1] @ np.linalg.lstsq(ones[0], true_train.reshape(-1, q))[0]
    truth = true_test.reshape(-1, q)
    return float(1 - ((truth - aligned) ** 2).sum() / ((truth - truth.mean(0)) ** 2).sum())


def co_smoothing(train: np.ndarray, y_train: np.ndarray, test: np.ndarray, y_test: np.ndarray) -> float:
    """Bits per spike of held-out neurons, read out by a Poisson regression on the latents."""
    from sklearn.linear_model import PoissonRegressor

    gained, spikes = 0.0, 0.0
    for y_tr, y_te in zip(y_train.reshape(len(train), -1).T, y_test.reshape(len(test), -1).T, strict=True):
        rate = PoissonRegressor(alpha=1e-4, max_iter=300).fit(train, y_tr).predict(test)
        null = max(float(y_te.mean()), 1e-9)
        gained += float((y_te * np.log(rate / null) - rate + null).sum())
        spikes += float(y_te.sum())
    return gained / (spikes * np.log(2))


def run_whole_trials() -> dict[str, float]:
    """One evaluation of value and gradient, or one exact EM iteration: 10 trials of 500 bins."""
    _, counts = simulate(10, 500, 50)
    root = np.sqrt(counts)
    elephant = Elephant()
    elephant.fit(root, max_iterations=2)
    seconds = []
    for iterations in (2, 5):  # elephant needs more than one iteration to report a likelihood
        start = time.process_time()
        elephant.core.em(elephant.parameters, elephant.sequences(root), max_iters=iterations)
        seconds.append(time.process_time() - start)
    return {"elephant_s": (seconds[1] - seconds[0]) / 3, "ours_s": evaluation_seconds(root, 3)}


def evaluation_seconds(trials: Any, n_latents: int, tolerance: float = 1e-4) -> float:
    """CPU seconds of one evaluation of the log marginal likelihood and its gradient (best of 5)."""
    import torch

    from colatent.models.gpfa.evidence import Parameters, Prior, evaluate, make_blocks
    from colatent.models.gpfa.padded_trials import as_padded_trials

    torch.set_num_threads(1)
    data = as_padded_trials(trials)
    n_channels = data.value.shape[2]
    rng = np.random.default_rng(0)
    time_scale = np.geomspace(3.0, 12.0, n_latents)
    arrays = (
        0.3 * rng.standard_normal((n_channels, n_latents)),
        *np.zeros((2, n_channels)),
        np.log(time_scale),
    )
    parameters = Parameters(*(torch.as_tensor(a) for a in arrays))
    prior = Prior("squared-exponential", tolerance)
    blocks = make_blocks(data, prior, time_scale, 12.0)
    evaluate(blocks, parameters)
    return best_of(lambda: evaluate(blocks, parameters))


def best_of(function: Any, repeats: int = 5) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds)


def run_ragged() -> dict[str, float]:
    """Inference and one evaluation on ten trials of ten lengths, and of equal lengths."""
    _, counts = simulate(10, 500, 50)
    root = np.sqrt(counts)
    ragged = [trial[: 500 - 10 * i] for i, trial in enumerate(root)]
    model = Ours()
    model.fit(root)
    result = {}
    for name, trials in (("equal", root), ("ragged", ragged)):
        result[f"{name}_transform_s"] = best_of(lambda t=trials: model.transform(t))
        result[f"{name}_evaluation_s"] = evaluation_seconds(trials, 3)
    return result


def run_growth() -> dict[str, float]:
    """One evaluation on one trial of growing length, q = 5."""
    rng = np.random.default_rng(0)
    lengths = (500, 1000, 2000, 4000, 8000, 16000)
    return {str(n): evaluation_seconds(rng.standard_normal((10, n, 50)), 5) for n in lengths}


def in_process(*arguments: object) -> dict[str, Any]:
    """Run one task of this script in a fresh process."""
    command = [sys.executable, __file__, "--task", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def run_task(task: str, *arguments: str) -> dict[str, float]:
    tasks = {"whole-trials": run_whole_trials, "ragged": run_ragged, "growth": run_growth}
    return tasks[task]() if task in tasks else run_cell(task, *map(int, arguments))


def measure(cells: list[tuple[int, int, int]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the measured value of every goal, and all figures."""
    rows = []
    for cell in cells:
        row = {package: in_process(package, *cell) for package in ("elephant", "ours")}
        rows.append(row)
        ours, theirs = row["ours"], row["elephant"]
        print(
            f"{cell[0]:4d} trials x {cell[1]:4d} bins, {cell[2]:4d} neurons: fit {theirs['fit_s']:7.2f} s "
            f"({theirs['iterations']:.0f} it) -> {ours['fit_s']:.3f} s ({ours['iterations']:.0f} it) = "
            f"{theirs['fit_s'] / ours['fit_s']:4.0f}x; transform {theirs['transform_s']:.3f} -> "
            f"{ours['transform_s']:.3f} s; R2 {theirs['r2']:.4f} -> {ours['r2']:.4f}; bits/spike "
            f"{theirs['bits']:.4f} -> {ours['bits']:.4f}; "
            f"peak {theirs['peak_mb']:.0f} -> {ours['peak_mb']:.0f} MB, "
            f"less libraries {theirs['data_mb']:.0f} -> {ours['data_mb']:.0f} MB",
            flush=True,
        )
    whole, ragged, growth = (in_process(task) for task in ("whole-trials", "ragged", "growth"))
    for name, figures in (("whole trials", whole), ("ragged", ragged), ("growth", growth)):
        print(name, {k: round(v, 5) for k, v in figures.items()})
    ratios = [row["elephant"]["fit_s"] / row["ours"]["fit_s"] for row in rows]
    values = (
        float(np.median(ratios)),
        min(ratios),
        max(row["elephant"]["r2"] - row["ours"]["r2"] for row in rows),
        max(row["elephant"]["bits"] - row["ours"]["bits"] for row in rows),
        max(row["ours"]["peak_mb"] / row["elephant"]["peak_mb"] for row in rows),
        max(row["ours"]["data_mb"] / row["elephant"]["data_mb"] for row in rows),
        whole["elephant_s"] / whole["ours_s"],
        ragged["ragged_transform_s"] / ragged["equal_transform_s"],
        growth["16000"] / growth["500"] / 32,
    )
    measured: dict[str, Any] = {"cells": rows, "whole_trials": whole, "ragged": ragged, "growth": growth}
    return dict(zip(GOALS, values, strict=True)), measured


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three small cells only")
    parser.add_argument("--task", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    if arguments.task:
        print(json.dumps(run_task(*arguments.task)))
        return 0
    values, figures = measure(QUICK_CELLS if arguments.quick else CELLS)
    missed = []
    for goal, (sense, limit) in GOALS.items():
        met = values[goal] >= limit if sense == "at least" else values[goal] <= limit
        print(f"{'met   ' if met else 'MISSED'} {goal}: {values[goal]:.4g} ({sense} {limit:g})")
        missed += [] if met else [goal]
    print(json.dumps({"goals": values, "missed": missed, **figures}))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
