"""Stores and tables of a session, as the workflow leaves them, for tests of the report."""

import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr
from support import FOLDS, SEEDS

from colatent.config import Config
from colatent.report import write_model_page, write_session_page, write_start_page
from colatent.scoring.calibration import N_BINS as N_BINS_PIT
from colatent.scoring.calibration import Histogram, as_dataset
from colatent.scoring.tables import RECOVERY_COLUMNS, TEXT_COLUMNS
from colatent.store.provenance import provenance
from colatent.store.stores import file_sha256, write_store

N_TRIALS, N_BINS = 18, 30
NASTY = "<script>alert('$x')</script>"
DIMS = ("trial", "time", "channel")
TIME = (np.arange(N_BINS) + 0.5) * 0.02
CHANNELS = {"spikes": [NASTY, "NA", "7", "u3"], "emg": ["biceps", "01", "triceps"]}
ROLE = np.stack([(np.arange(N_TRIALS) % FOLDS == f) for f in range(FOLDS)]).astype(np.int8)


def write_session(config: Config, name: str, simulated: bool, rng: np.random.Generator) -> None:
    continuous = not hasattr(config.alignment, "intervals")
    shape = (N_TRIALS, N_BINS)
    groups = {}
    for m in config.modalities:
        value = rng.poisson(0.5, (*shape, 4)) if m == "spikes" else rng.normal(size=(*shape, 3))
        observed = np.ones(value.shape, dtype=bool)
        observed[0, 20:] = False  # a trial that ends early
        groups[f"modality/{m}"] = xr.Dataset(
            {"value": (DIMS, value.astype(float)), "observed": (DIMS, observed)},
            coords={"time": TIME, "channel": CHANNELS[m]},
            attrs={"kind": "spikes" if m == "spikes" else "continuous", "unit": "mV", "source": NASTY},
        )
    condition = {} if continuous else {"condition": ("trial", np.array([NASTY, "left"])[np.arange(18) % 2])}
    start = np.arange(N_TRIALS) * 1.0
    groups["trials"] = xr.Dataset(
        {"start": ("trial", start), "stop": ("trial", start + 0.6)}, coords=condition
    )
    if simulated:
        groups["truth"] = truth_of(latents_of())
    attrs = provenance("ingest", {}, {}) | {
        "session": name,
        "bin_width": 0.02,
        "alignment": "continuous" if continuous else "trials",
        "modalities": list(config.modalities),
        "simulated": simulated,
        "findings": [
            {"check": "saturated-channel", "severity": "warning", "modality": "emg", "channel": NASTY,
             "action": "mask", "message": "9 bins at 5 & more", "count": 9}
        ],
        "source": {"file": f"{name}.nwb", "size": 12_300_000, "sha256": "ab" * 32, "nwb_version": "2.8.0"},
    }  # fmt: skip
    write_store(Path(config.results) / name / "session", groups, attrs)


def latents_of() -> xr.Dataset:
    rng = np.random.default_rng(5)
    dims = ("trial", "time", "latent")
    return xr.Dataset(
        {
            "mean": (dims, rng.normal(size=(N_TRIALS, N_BINS, 2)).cumsum(axis=1) / 4),
            "variance": (dims, np.full((N_TRIALS, N_BINS, 2), 0.04)),
        },
        coords={"time": TIME, "latent": ["a 1", "a 2"], "group": ("latent", ["spikes+emg"] * 2)},
        attrs={"given": "spikes+emg"},
    )


def time_scales_of(fold: int) -> xr.Dataset:
    """Time scales and delays with intervals, of which the second ones have no upper end."""
    attrs = {"units": "s", "level": 0.95, "drop": 1.92, "likelihood": "marginal"}
    scale = np.array([0.05, 0.2]) * (1 + 0.1 * fold)
    values = {"low": scale / 1.3, "high": np.array([1.4 * scale[0], np.inf]), "maximum": 1.05 * scale}
    delay = np.array([[0.0, 0.0], [0.118 + 0.001 * fold, -0.02]])
    dims = ("modality", "latent")
    of_delays = {"low": delay - 0.01, "high": delay + np.array([0.02, np.inf]), "maximum": delay}
    return xr.Dataset(
        {
            "time_scale": ("latent", scale, {"units": "s"}),
            "delay": (dims, delay, {"longest": 0.119}),
        }
        | {f"delay_{k}": (dims, v, attrs) for k, v in of_delays.items()}
        | {f"time_scale_{k}": ("latent", v, attrs) for k, v in values.items()},
        coords={"modality": ["spikes", "emg"]},
    )


def shared_of(fold: int) -> xr.Dataset:
    """A shared group that predicts emg beyond permuted trials, and not spikes."""
    permuted = np.full((5, 1, 2), 0.1) + 0.01 * np.arange(5)[:, None, None]
    return xr.Dataset(
        {
            "r2": (("group", "modality"), [[0.05, 0.4 + 0.1 * fold]]),
            "permuted": (("permutation", "group", "modality"), permuted),
        },
        coords={"group": ["spikes+emg"], "modality": ["spikes", "emg"]},
    )


def truth_of(latents: xr.Dataset) -> xr.Dataset:
    """Truth that is an affine map of the latents in training trials of fold 0, and nothing else in test."""
    value = 2.0 * latents["mean"].values[..., :1] - latents["mean"].values[..., 1:] + 3.0
    value[ROLE[0] == 1] = 50.0
    dims = ("trial", "time", "latent")
    coords = {"time": TIME, "latent": ["shared 1"], "group": ("latent", ["emg+spikes"])}
    return xr.Dataset({"value": (dims, value), "observed": (dims, np.ones(value.shape, bool))}, coords=coords)


def write_split(config: Config, name: str) -> None:
    role = ROLE.copy()
    if not hasattr(config.alignment, "intervals"):
        role[:, -1] = 2
    hidden = np.zeros((len(SEEDS), FOLDS, 4), dtype=bool)
    hidden[..., 1] = True
    groups = {
        "split": xr.Dataset({"role": (("fold", "trial"), role)}),
        "hidden/spikes": xr.Dataset(
            {"hidden": (("seed", "fold", "channel"), hidden)},
            coords={"seed": SEEDS, "channel": CHANNELS["spikes"]},
        ),
    }
    write_store(Path(config.results) / name / "split", groups, provenance("split", {}, {}))


def write_fits(config: Config, name: str, history: bool) -> None:
    steps = np.arange(20.0)
    curve = xr.Dataset({k: ("step", 10 + np.exp(-steps / s)) for k, s in (("loss", 4), ("held_out_loss", 6))})
    for model in config.models:
        for fold in range(FOLDS):
            for seed in SEEDS:
                groups = {}
                if history and model == "vae":
                    groups["history"] = curve.assign(epoch=("step", steps))
                store = Path(config.results) / name / "fit" / model / f"fold-{fold}_seed-{seed}"
                attrs = provenance("fit", {}, {}) | {"volatile": {"duration_s": 2.0 + fold}}
                write_store(store, groups, attrs, {"state": {"weight": np.ones(2)}})


def questions(config: Config, model: str) -> list[tuple[str, str, str]]:
    """Heldout, given, predicted that a model was asked."""
    names = list(config.modalities)
    if model == "mean":
        return [("trials", "none", m) for m in names]
    if model == "ridge":
        return [("modality", o, m) for m in names for o in names if o != m]
    asked = [("trials", "+".join(names), m) for m in names] + [("channels", "+".join(names), "spikes")]
    asked += [("time", "+".join(names), m) for m in names]
    if len(names) > 1:
        asked += [("trials", m, m) for m in names]
        asked += [("modality", o, m) for m in names for o in names if o != m]
        asked += [("decoding", "spikes", "emg")]
    return asked


def score_rows(config: Config, name: str, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for model in config.models:
        for heldout, given, predicted in questions(config, model):
            main = "bits_per_spike" if predicted == "spikes" else "r2"
            for fold in range(FOLDS):
                for seed in SEEDS:
                    for metric in (main, "log_density", "coverage_50", "coverage_95"):
                        for i, channel in enumerate([*CHANNELS[predicted], "pooled"]):
                            value = rng.uniform(0.2, 0.8)
                            # one unit is silent in the test trials of one fold
                            silent = metric == "bits_per_spike" and i == 2 and fold == 1
                            rows.append((name, model, fold, seed, heldout, given, predicted, channel, metric,
                                         np.nan if silent else value, 100 + fold))  # fmt: skip
    columns = [*TEXT_COLUMNS[:2], "fold", "seed", *TEXT_COLUMNS[2:], "value", "n"]
    return pd.DataFrame(rows, columns=columns)


def pit_of(question: int, fold: int) -> tuple[np.ndarray, int]:
    """PIT of one question: predictions of one fold are far too sure."""
    ends = np.r_[0.4, np.full(N_BINS_PIT - 2, 0.2 / (N_BINS_PIT - 2)), 0.4]
    return (ends if fold == 1 else np.full(N_BINS_PIT, 1 / N_BINS_PIT)), 100 + 10 * fold + question


def write_scores(config: Config, name: str, latents: bool) -> None:
    """Write the tables and the stores of scores, and the joined table."""
    rng = np.random.default_rng(3)
    root = Path(config.results)
    rows = score_rows(config, name, np.random.default_rng(1))
    joined = root / "scores.csv"
    before = [pd.read_csv(joined, keep_default_na=False, dtype=str)] if joined.exists() else []
    pd.concat([*before, rows]).to_csv(joined, index=False)
    for model in config.models:
        groups = {}
        for heldout, given, predicted in questions(config, model):
            n_test = int((ROLE[0] == 1).sum())
            mean = rng.uniform(0.2, 1.0, (n_test, N_BINS, len(CHANNELS[predicted])))
            arrays = {"mean": mean, "low_50": mean - 0.1, "high_50": mean + 0.1, "low_95": mean - 0.3,
                      "high_95": mean + 0.3, "observation": np.round(mean)}  # fmt: skip
            recorded = np.ones(mean.shape, dtype=bool)
            scored = recorded & ((np.arange(N_BINS)[:, None] >= N_BINS - 6) | (heldout != "time"))
            groups[f"reconstruction/fold-0_seed-0/{heldout}/{predicted}"] = xr.Dataset(
                {k: (DIMS, v) for k, v in arrays.items()}
                | {"recorded": (DIMS, recorded), "observed": (DIMS, scored)},
                coords={
                    "trial": np.flatnonzero(ROLE[0] == 1),
                    "time": TIME,
                    "channel": CHANNELS[predicted],
                },
                attrs={"given": given, "predicted": predicted, "heldout": heldout},
            )
        if model == "vae":
            for fold in range(FOLDS):
                asked = [Histogram(*q, *pit_of(i, fold)) for i, q in enumerate(questions(config, model))]
                groups |= {f"calibration/fold-{fold}_seed-{seed}": as_dataset(asked) for seed in SEEDS}
        if model == "vae" and latents:
            groups["latents/fold-0_seed-0"] = latents_of()
            for fold in range(FOLDS):
                for seed in SEEDS:
                    groups[f"summary/fold-{fold}_seed-{seed}/latent"] = time_scales_of(fold)
                    groups[f"summary/fold-{fold}_seed-{seed}/shared"] = shared_of(fold)
            recovery = [
                (name, "vae", f, s, "emg+spikes", "shared 1", 0.9 - 0.1 * f) for f in range(3) for s in SEEDS
            ]
            if len(config.modalities) > 1:
                table = pd.DataFrame(recovery, columns=RECOVERY_COLUMNS).rename_axis("row")
                groups["recovery"] = xr.Dataset.from_dataframe(table).set_coords(RECOVERY_COLUMNS[:-1])
        store = root / name / "score" / model
        table_file = store.with_suffix(".csv")
        table_file.parent.mkdir(parents=True, exist_ok=True)
        rows[rows["model"] == model].to_csv(table_file, index=False)
        write_store(store, groups, provenance("score", {}, {}) | {"table": file_sha256(table_file)})


def write_pages(config: Config, sessions: list[str], folder: Path) -> None:
    """Write all pages where the workflow does, below ``folder``."""
    for name in sessions:
        place = folder / "sessions" / name
        for model in config.models:
            own = place / "models" / model
            write_model_page(config, name, model, own / "index.html", own / "figures")
        write_session_page(config, name, place / "index.html", place / "figures")
    write_start_page(config, sessions, folder / "index.html", folder / "figures")


def text_of(html: str) -> str:
    """Return what a reader sees, blanks folded."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())
