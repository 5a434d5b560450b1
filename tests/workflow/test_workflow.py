"""The workflow as a user runs it: Snakemake in a folder of its own, on a small recording."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from support import CHROMIUM, open_page
from warm_python import run_snakemake

from colatent.store.stores import MARKER, check_store, group_names, read_attrs, read_group

ROOT = Path(__file__).parents[2]
SMALL = {
    "sessions": "config/sessions.tsv",
    "results": "out",
    "simulate": {"seed": 5, "trials": 16, "units": 14},
    "models": {
        "mmgpvae": {
            "kind": "mm-gpvae", "latents": {"spikes+emg": 2, "spikes": 1}, "cross_weight": {"emg": 1.0},
            "epochs": 3,
        },
        "gpfa": {"kind": "gpfa", "latents": {"spikes": 2}},
        "condition_mean": {"kind": "condition-mean"},
    },
    "heldout": {"folds": 2, "channels": {"spikes": 0.25}, "time": 0.25, "seeds": [1]},
}  # fmt: skip
CURVE = {"trials": [0.5, 1.0], "channels": {"spikes": [0.5, 1.0]}, "folds": 1}

pytestmark = [pytest.mark.workflow, pytest.mark.usefixtures("one_question")]


def snakemake(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the project's Snakefile with ``folder`` as the working directory."""
    project = ("--snakefile", str(ROOT / "Snakefile"), "--cores", "2")
    return run_snakemake(folder, *project, *arguments, "--configfile", "config/config.yaml", **environment)


def write_config(folder: Path, change: dict | None = None) -> Path:
    (folder / "config").mkdir(parents=True, exist_ok=True)
    (folder / "config/sessions.tsv").write_text("session\tnwb\nsmall\t../sim/small.simulated.nwb\n")
    demo = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    (folder / "config/config.yaml").write_text(yaml.safe_dump(demo | SMALL | (change or {})))
    return folder


@pytest.fixture(scope="module")
def finished(one_question: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_config(tmp_path_factory.mktemp("workflow"))
    run = snakemake(folder)
    assert run.returncode == 0, run.stderr[-4000:]
    assert "out/report/index.html" in run.stdout
    return folder


def test_all_that_was_promised_is_there(finished):
    scores = pd.read_csv(finished / "out/scores.csv", keep_default_na=False, na_values={"value": [""]})
    columns = "session model fold seed heldout given predicted channel metric value n"
    assert list(scores) == columns.split()
    assert set(scores["heldout"]) == {"trials", "channels", "time", "modality", "decoding"}
    assert set(scores["metric"]) == {
        "r2", "bits_per_spike", "psth_r2", "nrmse", "log_density", "coverage_50", "coverage_95",
    }  # fmt: skip
    assert set(scores["model"]) == set(SMALL["models"])
    runs = scores.groupby("model")[["fold", "seed"]].apply(lambda r: len(r.drop_duplicates()))
    assert (runs == 2).all()
    key = ["session", "model", "fold", "seed", "heldout", "given", "predicted", "channel", "metric"]
    assert not scores.duplicated(key).any()
    pooled = scores.query("channel == 'pooled'")
    assert np.isfinite(pooled["value"]).all()
    recovery = pd.read_csv(finished / "out/latent_recovery.csv")
    assert set(recovery["model"]) == {"mmgpvae", "gpfa"}
    paired = pd.read_csv(finished / "out/paired_differences.csv")
    assert set(paired["model"]) | set(paired["other"]) == set(SMALL["models"])
    assert (paired["n_folds"] == 2).all()
    calibration = read_group(finished / "out/small/score/mmgpvae", "calibration/fold-1_seed-1")
    assert (calibration["n"] > 0).all()
    page = (finished / "out/report/index.html").read_text()
    assert "SIMULATION" in page.upper()
    assert not re.search(
        r"""(src|href)=["']?(https?:)?//|url\(["']?https?:|@import|<link [^>]*stylesheet""", page
    )


def test_every_store_is_complete_and_says_where_it_comes_from(finished):
    folders = sorted({p.parent for p in (finished / "out").rglob(MARKER)})
    n_latent_models = 2
    assert len(folders) == 2 + 3 * 2 + 3 + n_latent_models
    for folder in folders:
        check_store(folder)
        attrs = read_attrs(folder)
        assert {"stage", "settings", "inputs", "code", "versions", "device", "volatile"} <= set(attrs)
    assert read_attrs(finished / "out/small/session")["simulated"] is True
    assert "latents/fold-1_seed-1" in group_names(finished / "out/small/score/mmgpvae")
    leftovers = [p for p in (finished / "out").rglob("*") if ".making" in p.name]
    assert leftovers == []


def test_stores_are_read_as_the_readme_says(finished):
    (example,) = re.findall(
        r"```python\n(from colatent.store .*?)```", (ROOT / "README.md").read_text(), re.DOTALL
    )
    names: dict = {}
    here = example.replace("results/simulated_reach/", f"{finished}/out/small/").replace("seed-0", "seed-1")
    exec(here, names)
    assert "modality/emg" in names["group_names"](names["store"])
    assert names["emg"]["value"].dims == ("trial", "time", "channel")
    pose = names["read_group"](names["store"], "modality/pose")
    np.testing.assert_array_equal(np.isnan(pose["value"]), ~pose["observed"])
    n_latents = SMALL["models"]["gpfa"]["latents"]["spikes"]
    assert names["read_tensors"](names["fit"], "state")["loading"].shape[1] == n_latents


def test_a_second_run_has_nothing_to_do(finished):
    run = snakemake(finished)
    assert run.returncode == 0
    assert "Nothing to be done" in run.stdout + run.stderr


def test_another_simulation_redoes_everything_in_the_same_run(finished):
    """And no learning curve, which nobody asked for: each has a target of its own."""
    seeds = {"heldout": SMALL["heldout"] | {"seeds": [0, 1]}}
    write_config(finished, {"simulate": SMALL["simulate"] | {"seed": 6}, "learning_curve": CURVE} | seeds)
    run = snakemake(finished, "--dry-run")
    write_config(finished)
    plan = run.stdout + run.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", plan, re.MULTILINE))
    assert jobs["simulate"] == jobs["ingest"] == jobs["split"] == jobs["scores"] == "1"
    assert jobs["fit"] == "12" and jobs["score"] == jobs["model_page"] == "3"
    assert not {"learning_curve", "learning_curve_figure", "learning_curves"} & jobs.keys()


def test_the_same_seed_gives_the_same_bytes(finished):
    name = "out/small/fit/mmgpvae/fold-0_seed-1"
    fit = finished / name
    before = (fit / "state.safetensors").read_bytes()
    shutil.rmtree(fit)
    run = snakemake(finished, f"{name}/{MARKER}", "--nolock")
    assert run.returncode == 0, run.stderr[-3000:]
    assert (fit / "state.safetensors").read_bytes() == before


def test_a_damaged_store_stops_the_job_that_reads_it(finished):
    split = finished / "out/small/split/data.zarr/split/role"
    chunk = next(p for p in split.rglob("*") if p.is_file() and p.name != "zarr.json")
    content, times = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(content + b"x")
    target = f"out/small/fit/condition_mean/fold-0_seed-1/{MARKER}"
    run = snakemake(finished, target, "--force", "--nolock")
    chunk.write_bytes(content)
    os.utime(chunk, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run.returncode != 0
    advice = "make it anew: your snakemake command with --force out/small/split/complete.json"
    assert f"not as it was written; {advice}" in run.stderr
    assert not (finished / target).exists()
    assert snakemake(finished, target, "--nolock").returncode == 0


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"modalitis": {}}, "unknown key 'modalitis'"),
        ({"models": {"m": {"kind": "mm-gpvae", "latents": {"spikes+leg": 1}}}}, "unknown modality 'leg'"),
        ({"sessions": "none.tsv"}, "there is no such table of sessions"),
        ({"simulate": None}, "to be simulated, but the config has no section `simulate`"),
    ],
)
def test_a_wrong_config_is_said_before_any_job(tmp_path, change, sentence):
    write_config(tmp_path, change)
    run = snakemake(tmp_path)
    assert run.returncode != 0
    assert [line for line in run.stderr.splitlines() if sentence in line]
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()


def test_a_key_that_snakemake_would_lose_is_said_before_any_job(tmp_path):
    config = write_config(tmp_path) / "config/config.yaml"
    config.write_text(config.read_text() + "models: {}\n")
    run = snakemake(tmp_path, "--dry-run")
    assert run.returncode != 0 and "the key 'models' is in line" in run.stdout + run.stderr


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("logs", "colatent: out/logs: the list of fits cannot be written (File exists); make room"),
        ("made_with", "the settings of these results cannot be written (File exists); make room"),
    ],
)
def test_results_that_cannot_be_written_are_said_before_any_job(tmp_path, name, sentence):
    write_config(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).touch()
    run = snakemake(tmp_path)
    assert run.returncode != 0 and "Traceback" not in run.stderr
    assert sentence in run.stderr
    assert not (tmp_path / "sim").exists()


def test_a_config_of_ones_own_is_never_filled_up_with_the_demo(tmp_path):
    write_config(tmp_path)
    (tmp_path / "config/config.yaml").write_text("models: {mean: {kind: condition-mean}}\n")
    run = snakemake(tmp_path, "--dry-run")
    assert run.returncode != 0
    assert "the config: the key 'modalities' is missing" in run.stdout + run.stderr


def test_what_is_not_in_the_file_is_said_before_any_job(tmp_path, simulated_nwb):
    write_config(tmp_path)
    nwb = tmp_path / "recording.nwb"
    table = tmp_path / "config/sessions.tsv"
    table.write_text("session\tnwb\nsmall\t../recording.nwb\n")
    missing = snakemake(tmp_path)
    assert missing.returncode != 0
    assert "there is no file" in missing.stderr
    shutil.copy(simulated_nwb, nwb)
    change = {"modalities": {"emg": {"kind": "continuous", "source": "processing/behavior/emg_envelop"}}}
    models = {"m": {"kind": "condition-mean"}}
    write_config(tmp_path, change | {"models": models, "truth": None, "heldout": {"folds": 2}})
    table.write_text("session\tnwb\nsmall\t../recording.nwb\n")
    wrong = snakemake(tmp_path)
    assert wrong.returncode != 0
    said = [line for line in wrong.stderr.splitlines() if "emg_envelop" in line]
    assert len(said) == 1
    assert "processing/behavior/emg_envelope" in said[0]
    assert not (tmp_path / "out").exists()


def test_learning_curves_are_planned_when_asked_for(tmp_path):
    write_config(tmp_path, {"learning_curve": CURVE, "device": "auto"})
    run = snakemake(tmp_path, "learning_curves", "--dry-run")
    assert run.returncode == 0, run.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", run.stdout + run.stderr, re.MULTILINE))
    assert jobs == {
        "simulate": "1", "ingest": "1", "split": "1", "learning_curve": "3", "learning_curve_figure": "3",
        "learning_curves": "1", "total": "10",
    }  # fmt: skip


def test_latents_are_exported_for_other_programs(finished):
    """The inspector passes the NWB file, pynapple reads it, its numbers are those of the scores' store."""
    import pynapple
    from nwbinspector import Importance, inspect_nwbfile

    for model in ("mmgpvae", "gpfa"):
        file = finished / f"out/small/latents/{model}.nwb"
        found = list(inspect_nwbfile(nwbfile_path=file))
        assert not [m for m in found if m.importance.value > Importance.BEST_PRACTICE_VIOLATION.value]
        latents = read_group(finished / "out/small/score" / model, "latents/fold-0_seed-1")
        mean = pynapple.load_file(str(file))["posterior_mean"]
        assert isinstance(mean, pynapple.TsdFrame)
        start = read_group(finished / "out/small/session", "trials")["start"].values
        for trial in (0, 7):
            values = latents["mean"].values[trial]
            at = np.searchsorted(mean.t, start[trial] - 1e-9)
            np.testing.assert_allclose(mean.values[at : at + len(values)], values, rtol=1e-6)
    check_store(finished / "out/small/latents/mmgpvae")


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the pages in")
def test_pages_work_in_a_browser_without_a_network(finished, tmp_path):
    report = finished / "out/report"
    pages = sorted(report.rglob("*.html"))
    assert len(pages) == 2 + len(SMALL["models"])
    for page in (report / "index.html", report / "sessions/small/models/mmgpvae/index.html"):
        opened = open_page(page)
        assert not opened.console
        asked = set(re.findall(r'"url":"(?:https?|wss?)://([^/"]*)', opened.requests))
        # Chromium calls home by itself
        assert not [host for host in asked if not host.endswith((".google.com", ".googleapis.com"))]
        figures = re.findall(r"<figure .*?</figure>", opened.document, flags=re.S)
        assert figures and all("<path" in figure for figure in figures)
    # the page's own script, driven by one more that its security policy would not let in
    drive = """<script>
      const box = document.querySelector("input[data-toggle]");
      const drawn = [...document.querySelectorAll(`[data-series="${box.dataset.toggle}"]`)];
      const hidden = () => drawn.filter((d) => getComputedStyle(d).display === "none"
        || getComputedStyle(d).visibility === "hidden").length;
      const before = hidden();
      box.click();
      const after = hidden();
      box.click();
      document.title = `${drawn.length} drawn, hidden ${before} ${after} ${hidden()}`;
    </script></body>"""
    html = re.sub(r"<meta http-equiv[^>]*>", "", pages_text := page.read_text())
    assert html != pages_text
    (tmp_path / "driven.html").write_text(html.replace("</body>", drive))
    title = re.search(r"<title>(\d+) drawn, hidden 0 (\d+) 0<", open_page(tmp_path / "driven.html").document)
    assert title and int(title[1]) == int(title[2]) > 0
