"""MM-GPVAE on the simulation of its paper (neurons and a turning digit): python tests/benchmarks/mmgpvae.py

300 trials of 60 bins, 240 for training. Latents are compared with the truth after an affine map that
is fitted on the training trials; every figure is of the other trials. The images' ceiling is the mean
of the training frames nearest in true turn and zoom. The last line is JSON; the exit status is 1 if a
goal is missed. Arguments: the seeds (0 1 2).
"""

import json
import sys
import time
from typing import Any

import numpy as np

N_TRIALS, N_TRAINING, N_NEIGHBOURS = 300, 240, 20
N_UNITS, FEW_UNITS = 100, 10
BOTH = ("images", "spikes")
CROSS_WEIGHT = {"spikes": 1.0, "images": 0.025}
OPTIONS: dict[str, Any] = {
    "latents": {"spikes+images": 1, "spikes": 1, "images": 1},
    "decoder": {"images": "convolutional"},
    "image_shape": {"images": (36, 36)},
    "weight": {"images": 0.025},
    "cross_weight": {},
    "first_cross_weight": CROSS_WEIGHT,  # without it what is shared may begin as what moves images alone
    "time_scale": 0.3,  # the truth is 0.2 s
    "epochs": 75,
    "batch_size": 8,
    "learning_rate": 5e-3,
    "restarts": 3,  # as in the workflow
}
GOALS = {  # worst seed; what is to be small has the sign turned
    "neural": 0.99,
    "shared": 0.97,
    "zoom": 0.97,
    "rates": 0.96,
    "image, less the ceiling": -0.02,
    "time scales, worst error": -0.2,
    "training, CPU-s": -360.0,  # 180 s on 2 cores
    "GP algebra, share of a step": -0.25,
    "shared, both less spikes": 0.0,
    "shared, both less images": 0.0,
    "shared, both less averaged pair": 0.0,
    "shared of 10 neurons, both less spikes": 0.0,
}


def simulate(  # type: ignore[no-untyped-def]
    seed: int,
    n_trials: int = N_TRIALS,
    n_training: int = N_TRAINING,
    n_bins: int = 60,
    n_units: int = N_UNITS,
):
    """Return the simulation, and its trials of training and of test."""
    from colatent.data.trials import Trials
    from colatent.simulate.digits import simulate_digits

    simulation = simulate_digits(seed, n_trials, n_bins, n_units)
    values = dict(simulation.values)
    trials = Trials(
        values=values,
        observed={name: np.ones(v.shape, dtype=bool) for name, v in values.items()},
        channels={name: tuple(map(str, range(v.shape[2]))) for name, v in values.items()},
        kinds=dict(simulation.kinds),
        bin_width=simulation.bin_width,
    )
    training = np.arange(n_trials) < n_training
    return simulation, trials.select(training), trials.select(~training)


def r2(truth: np.ndarray, guess: np.ndarray, training_mean: np.ndarray) -> float:
    return float(1 - ((truth - guess) ** 2).sum() / ((truth - training_mean) ** 2).sum())


def recovery(model, simulation, train, test, given=BOTH) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """R2 of the true latents in the test trials, each from the latents of its own group."""
    from colatent.analyses.recovery import latent_recovery
    from colatent.data.splits import TEST, TRAINING

    truth = simulation.latents
    inferred = np.concatenate([model.latents(part, given)[0] for part in (train, test)])
    training = np.arange(len(truth)) < train.n_trials
    found = latent_recovery(
        inferred,
        tuple(group.name for group in model.latent_groups),
        truth,
        np.ones(truth.shape, dtype=bool),
        simulation.latent_groups,
        np.where(training, TRAINING, TEST),
    )
    return dict(zip(("shared", "neural", "zoom"), found["r2"], strict=True))


def coverage(model, simulation, train, test) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """Share of true latents inside the posterior's 95 % band, after the affine map of each latent."""
    truth = simulation.latents
    inside = {}
    for k, name in enumerate(("shared", "neural", "zoom")):
        (fit, _), (mean, variance) = (
            [x[..., k] for x in model.latents(part, BOTH)] for part in (train, test)
        )
        slope, offset = np.polyfit(fit.ravel(), truth[: train.n_trials, :, k].ravel(), 1)
        error = truth[train.n_trials :, :, k] - slope * mean - offset
        inside[name] = float((np.abs(error) < 1.96 * np.abs(slope) * np.sqrt(variance)).mean())
    return inside


def image_mean(model, trials) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Reconstructed images, a few trials at a time: samples of images are large."""
    parts = [
        model.predict(trials.select(part), BOTH, "images").mean
        for part in np.array_split(np.arange(trials.n_trials), trials.n_trials // 4)
    ]
    return np.concatenate(parts)


def image_ceiling(simulation, train, test) -> float:  # type: ignore[no-untyped-def]
    """R2 of the mean of the nearest training frames in true turn and zoom."""
    from sklearn.neighbors import KNeighborsRegressor

    place = simulation.latents[..., [0, 2]]
    frames = train.values["images"].reshape(-1, train.values["images"].shape[2]).astype(np.float32)
    nearest = KNeighborsRegressor(N_NEIGHBOURS).fit(place[: train.n_trials].reshape(-1, 2), frames)
    guess = nearest.predict(place[train.n_trials :].reshape(-1, 2)).reshape(test.values["images"].shape)
    return r2(test.values["images"], guess, frames.mean(axis=0))


def zoom_of_a_gaussian_process(simulation) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """What the goals for zoom would be with |z_b| known, as a latent that is a Gaussian process.

    |z_b| is not Gaussian, and has kinks where z_b changes sign. Returned are the affine R2 of |z_b| from
    itself made Gaussian by a monotone map, and the most likely time scale (in true ones) of |z_b| with 3 %
    of noise, by dense algebra.
    """
    from scipy.optimize import minimize
    from scipy.stats import norm, rankdata

    zoom = simulation.latents[..., 2]
    normal = norm.ppf(rankdata(zoom).reshape(zoom.shape) / (zoom.size + 1))
    slope, offset = np.polyfit(normal[:N_TRAINING].ravel(), zoom[:N_TRAINING].ravel(), 1)
    train, test = zoom[:N_TRAINING], zoom[N_TRAINING:]
    values = train - train.mean()
    values = values + np.sqrt(0.03) * values.std() * np.random.default_rng(0).standard_normal(values.shape)
    squared = np.subtract.outer(np.arange(zoom.shape[1]), np.arange(zoom.shape[1])) ** 2

    def cost(log: np.ndarray) -> float:
        scale, variance, noise = np.exp(log)
        covariance = variance * np.exp(-squared / (2 * scale**2)) + noise * np.eye(len(squared))
        factor = np.linalg.cholesky(covariance)
        white = np.linalg.solve(factor, values.T)
        return float(0.5 * (white**2).sum() + len(values) * np.log(np.diag(factor)).sum())

    start = np.log([10.0, values.var(), 0.03 * values.var()])
    scale = np.exp(minimize(cost, start, method="Nelder-Mead").x[0]) * simulation.bin_width
    return {
        "zoom made Gaussian": r2(test, slope * normal[N_TRAINING:] + offset, train.mean()),
        "time scale of the true zoom": float(scale / simulation.time_scale),
    }


def monotone_r2(model, simulation, train, test) -> float:  # type: ignore[no-untyped-def]
    """R2 of the true zoom in the test trials after a monotone map, fitted on the training trials."""
    from sklearn.isotonic import IsotonicRegression

    zoom = simulation.latents[..., 2]
    fit, held = (model.latents(part, BOTH)[0][..., 2].ravel() for part in (train, test))
    curve = IsotonicRegression(increasing="auto", out_of_bounds="clip").fit(fit, zoom[:N_TRAINING].ravel())
    return r2(zoom[N_TRAINING:].ravel(), curve.predict(held), zoom[:N_TRAINING].mean())


def fitted(trials, seed: int, **changes: Any):  # type: ignore[no-untyped-def]
    from colatent.config import MMGPVAESettings
    from colatent.models.base import FitRun
    from colatent.models.mmgpvae.model import MMGPVAE

    settings = MMGPVAESettings(kind="mm-gpvae", **OPTIONS | changes)
    return MMGPVAE(settings, trials.layout).fit(trials, FitRun(seed, progress=progress))


def run(seed: int, **changes: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Train on one seed and return its figures, and how the shared latent compares (`compare`)."""
    simulation, train, test = simulate(seed)
    start = time.process_time()
    model = fitted(train, seed, **changes)
    seconds = time.process_time() - start
    rate = simulation.expected["spikes"]
    row = recovery(model, simulation, train, test)
    row["zoom after a monotone map"] = monotone_r2(model, simulation, train, test)
    row |= zoom_of_a_gaussian_process(simulation)
    row["rates"] = r2(
        rate[N_TRAINING:], model.predict(test, BOTH, "spikes").mean, rate[:N_TRAINING].mean(axis=(0, 1))
    )
    pixels = train.values["images"].mean(axis=(0, 1))
    row["image"] = r2(test.values["images"], image_mean(model, test), pixels)
    row["ceiling"] = image_ceiling(simulation, train, test)
    row["image, less the ceiling"] = row["image"] - row["ceiling"]
    scales = model.time_scales() / simulation.time_scale
    row |= {
        f"time scale {name}": float(s) for name, s in zip(("shared", "neural", "zoom"), scales, strict=True)
    }
    row["time scales, worst error"] = -float(np.abs(scales - 1).max())
    row |= {f"coverage {name}": share for name, share in coverage(model, simulation, train, test).items()}
    for given in BOTH:
        row[f"shared given {given}"] = recovery(model, simulation, train, test, (given,))["shared"]
    row["training, CPU-s"] = -seconds
    row["epochs"] = len(model.history)
    return row, compare(model, simulation, train, test, seed)


def with_few_neurons(seed: int) -> dict[str, float]:
    """Return how the shared latent compares (`compare`) where neurons leave much to be told by images.

    With few neurons pixels outweigh them in the plain ELBO, and what is shared becomes what moves images
    alone: the cross weights stay to the end.
    """
    simulation, train, test = simulate(seed, n_units=FEW_UNITS)
    return compare(fitted(train, seed, cross_weight=CROSS_WEIGHT), simulation, train, test, seed)


def compare(both, simulation, train, test, seed: int) -> dict[str, float]:  # type: ignore[no-untyped-def]
    """R2 of the shared latent: both modalities, each alone, and the mean of the two alone.

    A model of one modality has as many latents as drive it, and no word for which is shared: all of
    them are aligned with the shared latent. The pair's mean is that of the two aligned estimates.
    """
    from sklearn.linear_model import LinearRegression

    truth = simulation.latents[..., 0]
    models = {"both": both}
    for name in BOTH:
        kept = {
            key: {m: v for m, v in OPTIONS[key].items() if m == name}
            for key in ("decoder", "weight", "first_cross_weight", "image_shape")
        }
        models[name] = fitted(train, seed, **kept, latents={name: 2})
    estimates = {}
    for name, model in models.items():
        given = BOTH if name == "both" else (name,)
        own = [k for k, group in enumerate(model.latent_groups) if name != "both" or group.shared]
        fit, held = (model.latents(part, given)[0][..., own].reshape(-1, len(own)) for part in (train, test))
        affine = LinearRegression().fit(fit, truth[:N_TRAINING].ravel())
        estimates[name] = affine.predict(held).reshape(test.n_trials, -1)
    estimates["averaged pair"] = (estimates["spikes"] + estimates["images"]) / 2
    return {k: r2(truth[N_TRAINING:], guess, truth[:N_TRAINING].mean()) for k, guess in estimates.items()}


class StepTimer:
    """CPU seconds of one step of training (loss and gradient), and of the GP algebra in it.

    Attributes:
        model, data: of ``n_trials`` trials.
    """

    def __init__(self, n_trials: int = 8, n_bins: int = 60, n_latents: int = 1) -> None:
        _, trials, _ = simulate(0, n_trials + 1, n_trials, n_bins)
        latents = {group: n_latents for group in OPTIONS["latents"]}
        self.model = fitted(trials, 0, latents=latents, epochs=1, time_scale=0.2)
        self.data = self.model.network.inputs(trials, BOTH)
        self.n_bins = n_bins

    def step(self) -> float:
        import torch

        from colatent.models.mmgpvae.objective import Objective

        objective = Objective(self.model.network, {})
        self.model.network.train()
        return _least_seconds(lambda: objective.loss(self.data, torch.Generator())[0].backward())

    def algebra(self) -> float:
        """Bases, posterior, its marginals and KL, and their gradients; sites are given."""
        network = self.model.network
        sites = [
            type(s)(*(x.detach().requires_grad_() for x in s)) for s in network.sites(self.data).values()
        ]

        def run() -> None:
            bases = network.bases(self.n_bins)
            q = network.inference.posterior(bases, network.inference.combine(sites))
            marginals = q.marginals
            (marginals.mean.sum() + marginals.variance.sum() + q.kl().sum()).backward()

        return _least_seconds(run)


def _least_seconds(run, n_repeats: int = 5) -> float:  # type: ignore[no-untyped-def]
    seconds = []
    for _ in range(n_repeats):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return min(seconds)


def growth() -> dict[str, float]:
    """Milliseconds of CPU of one step, larger in one respect each; and the algebra's share."""
    base = StepTimer()
    row = {"GP algebra, share of a step": -base.algebra() / base.step()}
    sizes: dict[str, dict[str, int]] = {"8 trials of 60 bins, 3 latents": {}}
    sizes |= {f"{n} trials": {"n_trials": n} for n in (16, 32)}
    sizes |= {f"{n} bins": {"n_bins": n} for n in (120, 240)}
    sizes |= {f"{3 * n} latents": {"n_latents": n} for n in (2, 4)}
    for name, size in sizes.items():
        timer = StepTimer(**size)
        step, algebra = timer.step(), timer.algebra()
        row[f"step, {name}"] = 1e3 * step
        print(f"a step of {name}: {1e3 * step:.0f} ms, GP algebra {1e3 * algebra:.1f} ms", flush=True)
    return row


def progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(seeds: list[int]) -> int:
    import torch

    torch.set_num_threads(1)
    cost = growth()
    rows, pairs, few = [], [], []
    for seed in seeds:
        row, pair = run(seed)
        rows.append(row | {"GP algebra, share of a step": cost["GP algebra, share of a step"]})
        pairs.append(pair)
        print(f"seed {seed}: " + ", ".join(f"{k} {v:.3f}" for k, v in rows[-1].items()), flush=True)
        compared = ", ".join(f"{k} {v:.4f}" for k, v in pair.items())
        print(f"shared latent, seed {seed}: {compared}", flush=True)
        few.append(with_few_neurons(seed))
        compared = ", ".join(f"{k} {v:.4f}" for k, v in few[-1].items())
        print(f"shared latent, seed {seed}, {FEW_UNITS} neurons: {compared}", flush=True)
    values = {goal: min(row[goal] for row in rows) for goal in GOALS if goal in rows[0]}
    for other in ("spikes", "images", "averaged pair"):
        values[f"shared, both less {other}"] = min(pair["both"] - pair[other] for pair in pairs)
    values[f"shared of {FEW_UNITS} neurons, both less spikes"] = min(p["both"] - p["spikes"] for p in few)
    missed = [goal for goal, limit in GOALS.items() if not values[goal] >= limit]
    for goal, limit in GOALS.items():
        print(f"{'MISSED' if goal in missed else 'met   '} {goal}: {values[goal]:.4f} (at least {limit:g})")
    print(
        json.dumps(
            {"goals": values, "missed": missed, "seeds": rows, "pairs": pairs, "few": few, "cost": cost}
        )
    )
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main([int(seed) for seed in sys.argv[1:]] or [0, 1, 2]))
