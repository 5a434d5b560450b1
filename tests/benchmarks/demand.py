"""Peak memory and time of a fit and of its scoring, for `colatent.jobs.resources`: one process, one size.

    python tests/benchmarks/demand.py trials bins units fits '{"kind": "gpfa", "latents": {"spikes": 6}}'

prints a line a job; without arguments, of that model and 200 trials of 50 bins and 100 units. Beside these
are 16 channels of EMG. Each stage is a process of its own, as in the workflow; peaks are those of whole
processes, libraries included.
"""

import json
import multiprocessing
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

N_EMG, N_FOLDS = 16, 5
DEFAULT = ("200", "50", "100", "1", '{"kind": "gpfa", "latents": {"spikes": 6}}')


def write_inputs(folder: Path, n_trials: int, n_bins: int, n_units: int) -> None:
    """Write the session and its split: counts and EMG that follow six smooth latents."""
    import xarray as xr

    from colatent.data.splits import make_split
    from colatent.data.trials import Trials
    from colatent.simulate.binned import gaussian_process
    from colatent.store.provenance import provenance
    from colatent.store.stores import identity, write_store

    rng = np.random.default_rng(0)
    latents = gaussian_process(rng, n_trials, n_bins, 5.0, 6)
    rate = np.exp(-1 + 0.4 * latents @ rng.standard_normal((6, n_units)) / np.sqrt(6))
    emg = latents @ rng.standard_normal((6, N_EMG))
    values = {"spikes": rng.poisson(rate).astype(float), "emg": emg + rng.standard_normal(emg.shape)}
    trials = Trials(
        values=values,
        observed={m: np.ones(v.shape, bool) for m, v in values.items()},
        channels={m: tuple(f"{m}{i}" for i in range(v.shape[2])) for m, v in values.items()},
        kinds={"spikes": "spikes", "emg": "continuous"},
        bin_width=0.02,
        condition=np.array([f"c{i % 8}" for i in range(n_trials)]),
    )
    dims, at = ("trial", "time", "channel"), 0.02 * np.arange(n_bins)
    groups = {
        f"modality/{m}": xr.Dataset(
            {"value": (dims, v), "observed": (dims, trials.observed[m])},
            coords={"time": at, "channel": list(trials.channels[m])},
            attrs={"kind": trials.kinds[m]},
        )
        for m, v in values.items()
    }
    groups["trials"] = xr.Dataset(coords={"condition": ("trial", trials.condition)})
    attrs = {"bin_width": 0.02, "alignment": "trials", "modalities": list(values)}
    write_store(folder / "session", groups, provenance("ingest", {}, {}) | attrs)
    split = make_split(trials, N_FOLDS, stratify=True, channels={"spikes": 0.25}, seeds=[0], guard=1)
    settings, inputs = {"heldout": {"time": 0.2}, "clip": {}}, {"session": identity(folder / "session")}
    write_store(folder / "split", split, provenance("split", settings, inputs))


def fit(folder: Path, model: dict[str, Any], fold: int) -> None:
    from pydantic import TypeAdapter

    from colatent.config import Model
    from colatent.models.fitting import FitJob, fit_fold
    from colatent.models.registry import model_class
    from colatent.store.session import read_fold, read_trials
    from colatent.store.stores import identity

    trials, _ = read_trials(folder / "session")
    settings = TypeAdapter(Model).validate_python(model)
    job = FitJob(
        settings=settings,
        seed=0,
        device="cpu",
        threads=1,
        inputs={name: identity(folder / name) for name in ("session", "split")} | {"fold": fold},
        checkpoint=folder / "checkpoint",
        output=folder / f"fold-{fold}_seed-0",
        progress=lambda line: None,
    )
    fit_fold(model_class(settings), read_fold(trials, folder / "split", fold, 0), job)


def score(folder: Path) -> None:
    from colatent.analyses import analyse
    from colatent.scoring.session import ScoreJob, score_session

    job = ScoreJob(
        session=folder / "session",
        split=folder / "split",
        fits=sorted(folder.glob("fold-*")),
        table=folder / "scores.csv",
        store=folder / "score",
        head={"session": "s", "model": "m"},
    )
    score_session(job, analyse, lambda line: None)


def cost(job: Callable[..., None], *arguments: Any) -> dict[str, int]:
    """Return seconds of one core and peak memory (MB) of a job in a fresh process."""
    context = multiprocessing.get_context("spawn")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measured, args=(send, job, *arguments))
    process.start()
    send.close()
    found = receive.recv()
    process.join()
    return found


def _measured(send: Any, job: Callable[..., None], *arguments: Any) -> None:
    job(*arguments)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime  # not those in which others had the core
    send.send({"cpu_s": round(seconds, 1), "peak_mb": round(used.ru_maxrss * 1024 / 1e6)})


if __name__ == "__main__":
    *size, n_fits, options = sys.argv[1:] or DEFAULT
    n_trials, n_bins, n_units = map(int, size)
    model = json.loads(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder, n_trials, n_bins, n_units)
        decoded = n_trials * n_bins * (n_units + N_EMG) * 9 / 1e6
        print(f"{n_trials} x {n_bins} x {n_units}, {decoded:.0f} MB decoded: {options}")
        for fold in range(int(n_fits)):
            print(f"fit of fold {fold}:", cost(fit, folder, model, fold), flush=True)
        print(f"score of {n_fits}:", cost(score, folder))
