"""Helpers of the tests: recordings, sessions and projects made small, and a browser run."""

import hashlib
import io
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, get_args

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from filelock import FileLock
from pydantic import TypeAdapter
from pynwb import NWBHDF5IO, NWBFile, TimeSeries
from pynwb.behavior import Position, SpatialSeries
from pynwb.image import ImageSeries

from colatent.config import Config, ContinuousModality, MMGPVAESettings, Model, SpikesModality, TrialAlignment
from colatent.data.tasks import NOTHING_WITHHELD, Withheld
from colatent.data.trials import Layout, Trials
from colatent.ingest import ingest_session
from colatent.jobs.checkpoint import STATE, Checkpoint
from colatent.models import gp
from colatent.models.base import FitRun
from colatent.models.fitting import FittedModel, fit_model
from colatent.models.mmgpvae.model import MMGPVAE
from colatent.models.mmgpvae.options import Options
from colatent.models.registry import model_class
from colatent.scoring.tables import SCORE_COLUMNS
from colatent.store.provenance import provenance
from colatent.store.stores import write_store

_QUICK: dict[str, dict[str, Any]] = {
    "mm-gpvae": {"latents": {"spikes+emg": 1, "spikes": 1}, "epochs": 2},
    "gpfa": {"latents": {"spikes": 2}},
    "smoothed-fa": {"latents": {"spikes": 2}},
    "ridge-lags": {"lags": 3},
    "mlp-lags": {"lags": 3, "epochs": 2},
    "gru": {"units": 8, "epochs": 2},
}
# each kind that a config can name, new ones too: what all models must pass is tested with these
QUICK_MODELS = {
    kind: _QUICK.get(kind, {})
    for settings in get_args(get_args(Model)[0])
    for kind in get_args(settings.model_fields["kind"].annotation)
}

ONE_FIGURE = "MODEL_FIGURES, SESSION_FIGURES = MODEL_FIGURES[:1], SESSION_FIGURES[:1]"
ONE_QUESTION = "HELDOUT = dict([*HELDOUT.items()][:1])"


def copy_package(folder: Path, figures: str = ONE_FIGURE) -> Path:
    """Copy the package, with fewer figures to a page (all take 15 s); return what is to be on the path."""
    source = Path(__file__).parents[1] / "src"
    ignored = shutil.ignore_patterns("*.pyc*", ".*")
    copy = Path(shutil.copytree(source, folder / "src", ignore=ignored))
    with (copy / "colatent/report/figures/catalogue.py").open("a") as catalogue:
        catalogue.write(f"\n{figures}\n")
    return copy


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder that one worker makes, and all workers read."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (made := folder / "made").exists():
            folder.mkdir()
            make(folder)
            made.touch()
    return folder


CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


BROWSER_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
    "--disable-component-update",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
]


class Opened(NamedTuple):
    """The document after its script has run, what the console said, and what was asked of the network."""

    document: str
    console: list[str]
    requests: str


def open_page(page: Path) -> Opened:
    """Open a page; every host name is unknown."""
    with tempfile.TemporaryDirectory() as folder:
        net_log = Path(folder, "net.json")
        run = subprocess.run(
            [
                str(CHROMIUM), *BROWSER_OPTIONS, f"--user-data-dir={folder}/profile",
                f"--log-net-log={net_log}",
                "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom", page.resolve().as_uri(),
            ],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        console = [line for line in run.stderr.splitlines() if "CONSOLE" in line]
        return Opened(run.stdout, console, net_log.read_text(errors="replace"))


FILES = ("Snakefile", "README.md", "workflow/rules/fit.smk", "src/colatent/__init__.py")


def make_clone(folder: Path, monkeypatch: pytest.MonkeyPatch, tracked: bool = True) -> Path:
    """Write a project, which is then the one around the package."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old\n")
    if tracked:
        git(folder.parent, "init", "--quiet", folder.name)
        commit(folder)
    for module in ("store.provenance", "results.archive", "results.repair"):
        monkeypatch.setattr(f"colatent.{module}.PACKAGE", folder / "src/colatent")
    return folder


def commit(folder: Path) -> None:
    """Commit all that is there."""
    git(folder, "add", ".")
    git(folder, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "all")


def git(folder: Path, *arguments: str) -> None:
    """Run git in a folder; without git, skip the test."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True)


TRIALS = TrialAlignment(bin_width=0.1, condition="target")


SPIKES = SpikesModality(kind="spikes")


FORCE = ContinuousModality(kind="continuous", source="processing/behavior/force")


def write_recording(path: Path) -> Path:
    """Twelve seconds: three units, force at 10 Hz, a cell series each, ragged trials, pictures."""
    rng = np.random.default_rng(0)
    file = NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC), session_id="s1")
    file.add_unit_column("quality", "by eye")
    for rate, quality in ((20, "good"), (5, "good"), (50, "mua")):
        file.add_unit(
            spike_times=np.sort(rng.uniform(0, 12, 12 * rate)),
            obs_intervals=[[0.0, 5.0], [6.0, 12.0]],
            quality=quality,
        )
    file.add_trial_column("target", "which")
    for k, stop in enumerate((2.0, 3.5, 5.5, 8.0)):
        file.add_trial(start_time=stop - 1.0 - 0.25 * (k == 1), stop_time=stop, target=float(k % 2))
    behavior = file.create_processing_module("behavior", "b")
    force = np.stack([np.arange(120.0), np.sin(np.arange(120))], axis=1)
    behavior.add(
        TimeSeries(
            name="force", data=force, unit="N", rate=10.0, starting_time=0.05, conversion=2.0, offset=1.0
        )
    )
    cursor = SpatialSeries(
        name="cursor", data=force, timestamps=np.arange(120) * 0.1, reference_frame="screen"
    )
    behavior.add(Position(spatial_series=cursor))
    for i in range(2):
        behavior.add(TimeSeries(name=f"cell{i}", data=force[:, 1] * i, unit="a.u.", rate=10.0))
    file.add_acquisition(
        ImageSeries(name="film", data=np.zeros((120, 2, 3)), unit="n.a.", rate=10.0, format="raw")
    )
    with NWBHDF5IO(path, "w") as nwb:
        nwb.write(file)
    return path


def new_nwb() -> NWBFile:
    return NWBFile("made for a test", "id", datetime(2020, 1, 1, tzinfo=UTC))


def written(file: NWBFile, path: Path) -> Path:
    with NWBHDF5IO(path, "w") as nwb:
        nwb.write(file)
    return path


def add_column(table: h5py.Group, name: str, values: np.ndarray, **attrs: Any) -> h5py.Dataset:
    """Add a column to a table of a file."""
    table[name] = values
    table[name].attrs.update(table["start_time" if "start_time" in table else "quality"].attrs)
    table[name].attrs.update(attrs)
    table.attrs["colnames"] = np.array([*table.attrs["colnames"], name], dtype=object)
    return table[name]


def quietly(path: Any, alignment: Any, modalities: Any, checks: Any = None, **more: Any) -> Any:
    return ingest_session(path, alignment, modalities, checks or {}, progress=lambda _: None, **more)


def write_session(folder: Path, trials: Trials, time: np.ndarray) -> None:
    dims = ("trial", "time", "channel")
    groups = {
        f"modality/{m}": xr.Dataset(
            {"value": (dims, trials.with_nan(m)), "observed": (dims, trials.observed[m])},
            coords={"time": time, "channel": list(trials.channels[m])},
            attrs={"kind": trials.kinds[m]},
        )
        for m in trials.modalities
    }
    groups["trials"] = xr.Dataset(coords={"condition": ("trial", trials.condition)})
    attrs = {"bin_width": trials.bin_width, "alignment": "trials", "modalities": list(trials.modalities)}
    write_store(folder, groups, provenance("ingest", {}, {}) | attrs)


N_BINS, BIN_WIDTH = 25, 0.02


BOTH = ("emg", "spikes")


OPTIONS = dict(
    latents={"spikes+emg": 1, "spikes": 1},
    cross_weight={"emg": 1.0},
    time_scale=0.06,
    hidden=32,
)


def quiet(_: str) -> None: ...


def smooth(rng: np.random.Generator, n_trials: int, time_scale: float) -> np.ndarray:
    t = torch.arange(N_BINS).double()
    prior = gp.correlation("squared-exponential", t[:, None] - t, torch.tensor(time_scale)).numpy()
    return rng.multivariate_normal(np.zeros(N_BINS), prior, size=n_trials)


def simulate(n_trials: int, seed: int = 0) -> tuple[Trials, np.ndarray]:
    """24 Poisson units on a shared and a private latent, 5 muscles on the shared one."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(99)
    z = np.stack([smooth(rng, n_trials, 5.0), smooth(rng, n_trials, 5.0)], axis=-1)
    rate = np.exp(z @ weights.normal(0, 0.7, (2, 24)) - 0.5)
    emg = 5 + 2 * z[..., :1] * weights.normal(0, 1, 5) + 0.5 * rng.standard_normal((n_trials, N_BINS, 5))
    values = {"spikes": rng.poisson(rate).astype(float), "emg": emg}
    observed = {name: np.ones(v.shape, dtype=bool) for name, v in values.items()}
    observed["emg"][0, 5:9] = False
    observed["spikes"][1, 18:] = observed["emg"][1, 18:] = False
    return make_trials(values, observed), z


def make_trials(values: dict[str, np.ndarray], observed: dict[str, np.ndarray]) -> Trials:
    return Trials(
        values={name: np.where(observed[name], v, 0.0) for name, v in values.items()},
        observed=observed,
        channels={name: tuple(map(str, range(v.shape[2]))) for name, v in values.items()},
        kinds={name: "spikes" if name == "spikes" else "continuous" for name in values},
        bin_width=BIN_WIDTH,
    )


class Killed(BaseException):
    """As abrupt as a test can be without dying itself."""


def plant(folder: Path, content: object) -> None:
    """Write a checkpoint whose checksum fits, whatever is in it."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    checksum = hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / STATE).write_bytes(checksum.encode() + b"\n" + buffer.getvalue())


def scores(model: str, names: list[str]) -> pd.DataFrame:
    value = np.random.default_rng(len(model)).normal(size=len(names))
    value[:3] = np.nan, np.inf, -np.inf
    rows = {"session": "01", "model": model, "fold": 0, "seed": 0, "heldout": "trials", "given": "none"}
    return pd.DataFrame(
        rows | {"predicted": "emg", "channel": names, "metric": "r2", "value": value, "n": range(len(names))}
    )[SCORE_COLUMNS]


FOLDS = 3


SEEDS = [0, 1]


def make_config(results: Path, modalities: list[str], continuous: bool = False) -> Config:
    kinds = {
        "spikes": {"kind": "spikes"},
        "emg": {"kind": "continuous", "source": "processing/emg", "clip": [0.5, 99.5]},
    }
    models = {
        "vae": {
            "kind": "mm-gpvae",
            "latents": {"+".join(modalities): 2},
            "cross_weight": {modalities[-1]: 5.0},
        },
        "mean": {"kind": "condition-mean"},
    }
    if len(modalities) > 1:
        models["ridge"] = {"kind": "ridge-lags"}
    window = {"window": 0.6, "gap": 0.0, "bin_width": 0.02}
    trials = {"intervals": "trials", "bin_width": 0.02, "condition": "target"}
    return Config.model_validate(
        {
            "sessions": "sessions.tsv",
            "results": str(results),
            "alignment": window if continuous else trials,
            "modalities": {m: kinds[m] for m in modalities},
            "models": models,
            "heldout": {"folds": FOLDS, "seeds": SEEDS, "channels": {"spikes": 0.25}, "time": 0.2},
        }
    )


QUICK = dict(epochs=60, restarts=1, learning_rate=1e-2, cross_weight={}, time_scale=0.2)


def vae_options(layout: Layout, **options: Any) -> Options:
    """Options of a small MM-GPVAE: keys of the config's section, and attributes of `Options`."""
    own = {key: options.pop(key) for key in tuple(options) if key in Options.__dataclass_fields__}
    return Options(MMGPVAESettings(kind="mm-gpvae", **QUICK | options), layout, **own)


def unfitted_vae(layout: Layout, **options: Any) -> MMGPVAE:
    """An MM-GPVAE of `vae_options`."""
    chosen = vae_options(layout, **options)
    model = MMGPVAE(chosen.settings, layout)
    model.options = chosen
    return model


def fit_vae(
    trials: Trials,
    seed: int = 0,
    progress: Any = quiet,
    checkpoint: Checkpoint | None = None,
    device: str = "cpu",
    **options: Any,
) -> MMGPVAE:
    """An MM-GPVAE of `vae_options`, fitted to these trials."""
    run = FitRun(seed, device=device, progress=progress, checkpoint=checkpoint)
    return unfitted_vae(trials.layout, **options).fit(trials, run)


def settings_of(kind: str, **options: Any) -> Model:
    """Return a section on a model."""
    return TypeAdapter(Model).validate_python({"kind": kind, **options})


def fit_to(
    settings: Model, training: Trials, withheld: Withheld = NOTHING_WITHHELD, seed: int = 0
) -> FittedModel:
    """Fit a model to all of these trials."""
    return fit_model(model_class(settings), settings, training, FitRun(seed, withheld))


def write_split(
    folder: Path, groups: dict[str, xr.Dataset], clip: Any = None, time: float | None = None
) -> None:
    """Write the store of a split with percentiles to clip to and a share of time to withhold."""
    settings = {"heldout": {"time": time}, "clip": clip or {}}
    write_store(folder, groups, provenance("split", settings, {}))
