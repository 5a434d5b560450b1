"""The report: what stands on its pages, computed a second way from the stores they were made of."""

import io
import re
import xml.etree.ElementTree as ElementTree
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from PIL import Image

from colatent.config import Config
from colatent.errors import InputError
from colatent.provenance import provenance
from colatent.report import write_model_page, write_session_page, write_start_page
from colatent.report.figure_latents import shown_conditions
from colatent.report.figure_reconstruction import choose_channels
from colatent.report.figure_recovery import _aligned
from colatent.report.pairs import pairs
from colatent.report.results import read_session
from colatent.report.style import spread
from colatent.report.tables import blocks, summarise
from colatent.scoring.tables import RECOVERY_COLUMNS, TEXT_COLUMNS, read_scores
from colatent.store import file_sha256, write_store

NASTY = "<script>alert('$x')</script>"
N_TRIALS, N_BINS, FOLDS = 18, 30, 3
SEEDS = [0, 1]
DIMS = ("trial", "time", "channel")
TIME = (np.arange(N_BINS) + 0.5) * 0.02
CHANNELS = {"spikes": [NASTY, "NA", "7", "u3"], "emg": ["biceps", "01", "triceps"]}
ROLE = np.stack([(np.arange(N_TRIALS) % FOLDS == f) for f in range(FOLDS)]).astype(np.int8)


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
            "heldout": {"folds": FOLDS, "seeds": SEEDS, "channels": {"spikes": 0.25}},
        }
    )


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
                groups = {"state": xr.Dataset({"weight": ("x", np.ones(2))})}
                if history and model == "vae":
                    groups["history"] = curve.assign(epoch=("step", steps))
                store = Path(config.results) / name / "fit" / model / f"fold-{fold}_seed-{seed}"
                write_store(
                    store, groups, provenance("fit", {}, {}) | {"volatile": {"duration_s": 2.0 + fold}}
                )


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
        if model == "vae" and latents:
            groups["latents/fold-0_seed-0"] = latents_of()
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


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """A simulated session of two modalities, with everything there can be, and its report."""
    folder = tmp_path_factory.mktemp("report")
    config = make_config(folder, ["spikes", "emg"])
    write_session(config, "sim", True, np.random.default_rng(0))
    write_split(config, "sim")
    write_fits(config, "sim", history=True)
    write_scores(config, "sim", latents=True)
    write_pages(config, ["sim"], folder / "report")
    return config, folder


@pytest.fixture(scope="module")
def pages(demo: tuple[Config, Path]) -> dict[str, str]:
    """Place of each page below the report's folder -> its HTML."""
    folder = demo[1] / "report"
    return {p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*.html")}


@pytest.fixture(scope="module")
def page(pages: dict[str, str]) -> str:
    """The page on which the models of the session are compared."""
    return pages["sessions/sim/index.html"]


def text_of(html: str) -> str:
    """Return what a reader sees, blanks folded."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", html, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_pages_load_nothing_and_link_only_to_what_is_there(demo: tuple[Config, Path], pages: dict) -> None:
    assert len(pages) == 1 + 1 + 3
    for place, html in pages.items():
        assert "default-src 'none'" in html and "@import" not in html and "url(http" not in html
        assert all(source.startswith("data:") for source in re.findall(r' src="([^"]*)"', html))
        ids = set(re.findall(r' id="([^"]+)"', html))
        links = [unescape(link) for link in re.findall(r' href="([^"]*)"', html) if link != "data:,"]
        assert {link[1:] for link in links if link.startswith("#")} <= ids
        here = (demo[1] / "report" / place).parent
        assert all((here / link).is_file() for link in links if not link.startswith("#"))
        assert len(html) < 8e6


def test_names_from_files_are_escaped(pages: dict[str, str]) -> None:
    for html in pages.values():
        assert NASTY not in html
        assert html.count("<script") == 1  # the page's own
    assert NASTY in unescape(pages["sessions/sim/index.html"])
    assert "5 &amp; more" in pages["sessions/sim/index.html"]


def test_each_figure_is_on_its_page_and_in_its_folder_and_not_blank(
    demo: tuple[Config, Path], pages: dict[str, str]
) -> None:
    found = {}
    for place, html in pages.items():
        folder = (demo[1] / "report" / place).with_name("figures")
        names = re.findall(r'<figure id="figure-([^"]+)"', html)
        assert sorted(f.name for f in folder.iterdir()) == sorted(
            f"{name}.{suffix}" for name in names for suffix in ("csv", "png", "svg")
        )
        found[place] = set(names)
        for name in names:
            image = np.asarray(Image.open(io.BytesIO((folder / f"{name}.png").read_bytes())).convert("L"))
            assert image.shape[1] >= 250
            assert 0.002 < (image < 250).mean() < 0.9
            # constrained layout: no label runs into the border
            assert (image[[0, -1]] > 250).all() and (image[:, [0, -1]] > 250).all()
            assert ElementTree.parse(folder / f"{name}.svg").getroot().tag.endswith("svg")
            assert len(pd.read_csv(folder / f"{name}.csv")) > 0
    assert {"split", "scores", "matrix", "recovery"} <= found["sessions/sim/index.html"]
    assert {"reconstruction_trials_spikes", "reconstruction_modality_emg"} <= found["sessions/sim/index.html"]
    vae = found["sessions/sim/models/vae/index.html"]
    assert {"training", "latents", "calibration"} <= vae
    assert found["index.html"] == {"overview"}


def test_each_title_says_what_was_seen(demo: tuple[Config, Path], pages: dict[str, str]) -> None:
    for html in pages.values():
        for title in re.findall(r'<svg role="img" aria-label="([^"]*)"', html):
            assert re.search(r"training|held-out|held out|test", title), title


def test_table_agrees_with_the_scores(demo: tuple[Config, Path], page: str) -> None:
    scores = read_scores(demo[1] / "scores.csv")
    wanted = scores[(scores.channel == "pooled") & (scores.metric == "r2") & (scores.predicted == "emg")]
    cross = wanted[(wanted.heldout == "modality") & (wanted.given == "spikes")]
    fold = cross.pivot_table(index="fold", columns="model", values="value", aggfunc="mean")
    mean = wanted[wanted.model == "mean"].groupby("fold").value.mean()
    rival = fold["ridge"] if fold["ridge"].mean() > mean.mean() else mean
    seen = text_of(page)
    for values in (fold["vae"], fold["ridge"], mean):
        sem = np.std(values, ddof=1) / np.sqrt(FOLDS)
        assert f"{values.mean():.3f} ± {sem:.3f}" in seen
    difference = fold["vae"] - rival
    sem = np.std(difference, ddof=1) / np.sqrt(FOLDS)
    assert f"{difference.mean():+.3f} ± {sem:.3f}".replace("-", "−") in seen
    rows = pairs(read_session(demo[0], "sim"))["modality", "emg"]
    (pair,) = (r for r in rows if r.given == "spikes" and {r.model, r.other} == {"vae", "ridge"})
    sign, between = 1 if pair.model == "vae" else -1, fold["vae"] - fold["ridge"]
    sem = np.std(between, ddof=1) / np.sqrt(FOLDS)
    assert pair.difference == f"{sign * between.mean():+.3f} ± {sem:.3f}".replace("-", "−")
    assert pair.folds == FOLDS and f"Every two models, paired by fold ({len(rows)})" in seen


def test_silent_units_are_counted(demo: tuple[Config, Path]) -> None:
    table = next(b for b in blocks(read_session(demo[0], "sim")) if b.predicted == "spikes")
    row = next(r for r in table.rows if r.model == "vae")
    assert (row.channels_without_score, row.n_channels) == (1, 4)
    assert row.n == 100 + 101 + 102  # folds add up, seeds do not


def test_page_says_what_was_held_out_and_which_objective(page: str) -> None:
    seen = text_of(page)
    assert "SIMULATION" in seen
    assert "Objective: ELBO + 5 × cross-modal prediction of emg." in seen
    assert "clipped to the 0.5th and 99.5th percentile" in seen
    assert "emg predicted from spikes" in seen
    assert "held out: trials, and in them all of emg" in seen
    assert "ab" * 32 in seen and "12.3 MB" in seen
    assert "1 of 4 channels of spikes" in seen
    assert "6 fits 3.0 s (longest 4.0 s)" in seen
    assert ": 5.0" in seen
    assert "0.800 ± 0.058 R²" in seen  # recovery: 0.9, 0.8, 0.7 in three folds


def test_same_stores_same_bytes(demo: tuple[Config, Path], page: str, tmp_path: Path) -> None:
    write_session_page(demo[0], "sim", tmp_path / "index.html", tmp_path / "figures")
    assert (tmp_path / "index.html").read_text() == page


def test_one_modality_without_truth_history_or_conditions(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["spikes"], continuous=True)
    for name in ("worm_1", "worm_2"):
        write_session(config, name, False, np.random.default_rng(0))
        write_split(config, name)
        write_fits(config, name, history=False)
        write_scores(config, name, latents=True)
    stale = tmp_path / "report" / "figures" / "stale.png"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"old")
    write_pages(config, ["worm_1", "worm_2"], tmp_path / "report")
    session = (tmp_path / "report" / "sessions" / "worm_1" / "index.html").read_text()
    headings = re.findall(r"<h2[^>]*>([^<]+)</h2>", session)
    assert headings == [
        "Data",
        "Models and baselines",
        "Held-out reconstructions",
        "Methods",
        "Provenance",
        "Configuration",
    ]
    assert "SIMULATION" not in session
    assert "Objective: the ELBO." in session
    assert "1 to 1 windows a fold, beside the test block" in text_of(session)
    start = (tmp_path / "report" / "index.html").read_text()
    assert all(f'href="sessions/{name}/index.html"' in start for name in ("worm_1", "worm_2"))
    assert not stale.exists()
    assert not [p for p in (tmp_path / "report").rglob("*") if p.name.startswith(".")]


def test_damaged_store_leaves_the_old_page(tmp_path: Path) -> None:
    config = make_config(tmp_path, ["spikes"])
    write_session(config, "a", False, np.random.default_rng(0))
    (tmp_path / "index.html").write_text("old")
    with pytest.raises(InputError, match="split: not a complete store"):
        write_session_page(config, "a", tmp_path / "index.html", tmp_path / "figures")
    assert (tmp_path / "index.html").read_text() == "old"
    assert not (tmp_path / "figures").exists()


def test_alignment_is_fitted_on_training_trials(demo: tuple[Config, Path]) -> None:
    results = read_session(demo[0], "sim")
    aligned = _aligned(results)
    assert aligned is not None
    z = latents_of()["mean"].values
    np.testing.assert_allclose(aligned[1][..., 0], 2 * z[..., 0] - z[..., 1] + 3.0, atol=1e-9)


def test_names_stay_text(demo: tuple[Config, Path]) -> None:
    scores = read_scores(demo[1] / "scores.csv")
    assert set(scores.channel) == {*CHANNELS["spikes"], *CHANNELS["emg"], "pooled"}


def test_folds_without_a_value_are_left_out_of_the_mean() -> None:
    summary = summarise(np.array([1.0, np.nan, 2.0]))
    assert summary.mean == 1.5
    assert summary.sem == pytest.approx(np.std([1, 2], ddof=1) / np.sqrt(2))
    assert np.isnan(summarise(np.array([1.0, np.nan])).sem)


def test_channels_are_best_median_worst_of_those_scored() -> None:
    observed = np.ones((2, 3, 6), dtype=bool)
    observed[..., 5] = False
    data = xr.Dataset({"observed": (DIMS, observed)}, coords={"channel": list("abcdef")})
    values = {"a": 0.1, "b": 0.9, "c": np.nan, "d": 0.5, "e": -2.0, "f": 5.0}
    chosen = choose_channels(values, data)
    assert [(c.name, c.rank) for c in chosen] == [("b", "best"), ("a", "median"), ("e", "worst")]


def test_trial_ends_where_nothing_more_was_observed(demo: tuple[Config, Path]) -> None:
    reached = read_session(demo[0], "sim").reached()
    assert reached[0].sum() == 20 and reached[1:].all()


def test_conditions_in_the_order_of_their_numbers() -> None:
    labels = np.repeat([str(i) for i in range(1, 13)], [3] * 8 + [1] * 3 + [9])
    assert list(shown_conditions(labels)) == ["1", "2", "3", "4", "5", "6", "7", "8", "12"]
    assert spread(2, 3) == [0, 1] and spread(9, 3) == [0, 4, 8] and spread(0, 3) == []
