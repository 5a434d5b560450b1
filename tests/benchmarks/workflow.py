"""What the workflow costs over the functions that it calls, each as a ratio within one run.

    python tests/benchmarks/workflow.py demo    # against the same functions in one process, on one core
    python tests/benchmarks/workflow.py plan    # nothing to do, 100 sessions x 4 models x 5 folds
    python tests/benchmarks/workflow.py folds   # what fitting five folds in one batch could save at most

Goals: at most 1.25 times the functions alone; at most 10 s to see that there is nothing to do.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
N_SESSIONS, N_FOLDS = 100, 5
MODELS = {
    "gpfa": {"kind": "gpfa", "latents": {"spikes": 4}},
    "smoothed_fa": {"kind": "smoothed-fa", "latents": {"spikes": 4}},
    "condition_mean": {"kind": "condition-mean"},
    "ridge": {"kind": "ridge-lags"},
}


def write_config(folder: Path, change: dict[str, Any], sessions: dict[str, str]) -> Path:
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text()) | change
    config["sessions"] = str(folder / "sessions.tsv")
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    rows = "".join(f"{name}\t{nwb}\n" for name, nwb in sessions.items())
    (folder / "sessions.tsv").write_text("session\tnwb\n" + rows)
    return folder / "config.yaml"


def snakemake(folder: Path, *arguments: str) -> tuple[float, float, str]:
    """Run the workflow; return its seconds, the CPU seconds of it and its children, and what it said."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *arguments]
    run = subprocess.run(
        [*command, "--cores", "1", "--configfile", "config.yaml"],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    seconds = time.perf_counter() - begin
    if run.returncode:
        raise SystemExit(run.stderr[-3000:])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu, run.stdout + run.stderr


def in_one_process(config_file: Path) -> None:
    """Call what the jobs of the demo call, one after another."""
    from colatent.analyses import analyse
    from colatent.config.file import load_config
    from colatent.data.splits import make_split
    from colatent.ingest.groups import session_groups
    from colatent.ingest.session import ingest_session
    from colatent.models.fitting import FitJob, fit_fold
    from colatent.models.registry import model_class
    from colatent.report import write_model_page, write_session_page, write_start_page
    from colatent.report.export import write_latents_nwb, write_latents_store
    from colatent.results.manifest import write_record
    from colatent.scoring.session import ScoreJob, score_session
    from colatent.scoring.tables import join_scores
    from colatent.simulate import simulate_reach, write_reach_nwb
    from colatent.store.layout import ingest_settings, split_settings
    from colatent.store.provenance import provenance
    from colatent.store.session import read_fold, read_trials
    from colatent.store.stores import identity, write_store

    config = load_config(config_file)
    folder, results = config_file.parent, config_file.parent / config.results
    name, heldout, quiet = "demo", config.heldout, lambda line: None
    session, split = results / name / "session", results / name / "split"
    nwb = folder / f"{name}.simulated.nwb"
    of = config.simulate
    assert of is not None and config.truth is not None
    write_reach_nwb(simulate_reach(seed=of.seed, n_trials=of.trials, n_units=of.units), nwb)
    ingested = ingest_session(
        nwb, config.alignment, config.modalities, {}, truth=config.truth.source, progress=quiet
    )
    attrs = provenance("ingest", ingest_settings(config), {}) | {
        "session": name, "bin_width": config.alignment.bin_width, "alignment": "trials", "simulated": True,
        "modalities": list(ingested.trials.modalities), "findings": ingested.findings,
        "source": ingested.source,
    }  # fmt: skip
    write_store(session, session_groups(ingested, config.truth.groups), attrs)
    trials, _ = read_trials(session)
    groups = make_split(trials, heldout.folds, True, heldout.channels, heldout.seeds, heldout.guard)
    write_store(split, groups, provenance("split", split_settings(config), {"session": identity(session)}))
    (results / name / "score").mkdir()
    made_from = {"session": identity(session), "split": identity(split)}
    tables, stores = [], []
    for model, section in config.models.items():
        fits = [results / name / "fit" / model / f"fold-{fold}_seed-0" for fold in range(heldout.folds)]
        for fold, fit in enumerate(fits):
            inputs = made_from | {"fold": fold}
            job = FitJob(section, 0, "cpu", 1, inputs, results / ".checkpoints", fit, quiet)
            fit_fold(model_class(section), read_fold(trials, split, fold, 0), job)
        tables.append(results / name / "score" / f"{model}.csv")
        stores.append(results / name / "score" / model)
        head = {"session": name, "model": model}
        score_session(ScoreJob(session, split, fits, tables[-1], stores[-1], head), analyse, quiet)
    join_scores([str(table) for table in tables], stores, results)
    os.chdir(folder)
    report = results / "report"
    page = report / "sessions" / name
    for model, store in zip(config.models, stores, strict=True):
        own = page / "models" / model
        write_model_page(config, name, model, own / "index.html", own / "figures")
        if hasattr(config.models[model], "latents"):
            latents = results / name / "latents" / model
            exported = latents.with_suffix(".nwb")
            write_latents_nwb(session, store, nwb, {}, exported)
            write_latents_store(session, store, exported, latents)
    write_session_page(config, name, page / "index.html", page / "figures")
    write_start_page(config, [name], report / "index.html", report / "figures")
    write_record(results, config, [name])


def demo() -> None:
    with tempfile.TemporaryDirectory() as place:
        alone, whole = Path(place) / "alone", Path(place) / "whole"
        for folder in (alone, whole):
            folder.mkdir()
            write_config(folder, {"results": "out"}, {"demo": "demo.simulated.nwb"})
        begin, before = time.perf_counter(), time.process_time()
        in_one_process(alone / "config.yaml")
        seconds, cpu = time.perf_counter() - begin, time.process_time() - before
        print(f"functions in one process   {seconds:6.1f} s, {cpu:6.1f} s of CPU", flush=True)
        whole_seconds, whole_cpu, _ = snakemake(whole)
        print(f"workflow on one core       {whole_seconds:6.1f} s, {whole_cpu:6.1f} s of CPU")
        ratios = f"{whole_seconds / seconds:6.2f}    {whole_cpu / cpu:6.2f} of CPU"
        print(f"ratio                      {ratios} (goal 1.25)")


def pretend_results(folder: Path, sessions: list[str]) -> None:
    """Lay out a finished run: one ingested session copied, and of all else what Snakemake looks at."""
    from colatent.simulate import simulate_reach, write_reach_nwb

    write_reach_nwb(simulate_reach(seed=1, n_trials=20, n_units=20), folder / f"{sessions[0]}.nwb")
    for other in sessions[1:]:
        shutil.copy2(folder / f"{sessions[0]}.nwb", folder / f"{other}.nwb")
    results = folder / "out"
    snakemake(folder, f"out/{sessions[0]}/session/complete.json")
    for session in sessions:
        if session != sessions[0]:
            shutil.copytree(results / sessions[0] / "session", results / session / "session")
        fits = [f"fit/{model}/fold-{fold}_seed-0" for model in MODELS for fold in range(N_FOLDS)]
        for store in ["split", *fits, *(f"score/{model}" for model in MODELS)]:
            (results / session / store).mkdir(parents=True)
            (results / session / store / "complete.json").touch()
        for model in MODELS:
            (results / session / f"score/{model}.csv").touch()
    (results / "report/figures").mkdir(parents=True)
    for name in ("scores.csv", "report/index.html", "provenance.json"):
        (results / name).touch()


def plan() -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        sessions = [f"s{i}" for i in range(N_SESSIONS)]
        change = {"results": "out", "models": MODELS, "heldout": {"folds": N_FOLDS}, "truth": None}
        write_config(folder, change | {"simulate": None}, {name: f"{name}.nwb" for name in sessions})
        pretend_results(folder, sessions)
        snakemake(folder, "--touch", "--forceall")  # Snakemake's own record of them
        begin = time.perf_counter()
        said = snakemake(folder, "--dry-run")[2]
        seconds = time.perf_counter() - begin
        assert "Nothing to be done" in said, said[-2000:]
        n_fits = N_SESSIONS * len(MODELS) * N_FOLDS
        print(f"nothing to do, {n_fits} fits   {seconds:.1f} s (goal 10)")


def folds(device: str) -> None:
    """Time epochs of as many steps, each on one fold's trials or on those of five.

    Five folds fitted together, batched over a leading dimension, have at least the arithmetic of one fit to
    five times the trials a step; what that saves against five fits is the most that they could save.
    """
    import numpy as np
    import torch

    from colatent.config import MMGPVAESettings
    from colatent.config.file import load_config
    from colatent.ingest.session import ingest_session
    from colatent.models.base import FitRun
    from colatent.models.mmgpvae.model import MMGPVAE
    from colatent.simulate import simulate_reach, write_reach_nwb

    torch.set_num_threads(1)
    config = load_config(ROOT / "config/config.yaml")
    with tempfile.TemporaryDirectory() as place:
        nwb = Path(place) / "demo.simulated.nwb"
        write_reach_nwb(simulate_reach(seed=1, n_trials=53, n_units=60), nwb)  # one fold's training trials
        trials = ingest_session(nwb, config.alignment, config.modalities, {}, progress=lambda _: None).trials
    settings = config.models["mmgpvae"]
    assert isinstance(settings, MMGPVAESettings)

    def seconds_an_epoch(times: int) -> float:
        change = {"batch_size": times * settings.batch_size}
        data = trials.select(np.tile(np.arange(trials.n_trials), times))
        spent = []
        for epochs in (5, 25):
            one = settings.model_copy(update=change | {"epochs": epochs})
            model = MMGPVAE(one, data.layout)
            model.options = replace(model.options, patience=1000)
            begin = time.perf_counter()
            model.fit(data, FitRun(device=device))
            spent.append(time.perf_counter() - begin)
        return (spent[1] - spent[0]) / 20

    one, five = seconds_an_epoch(1), seconds_an_epoch(N_FOLDS)
    gain = N_FOLDS * one / five
    print(f"{N_FOLDS} folds one after another  {N_FOLDS * one:6.2f} s an epoch on {device}")
    print(f"together, at least         {five:6.2f} s: at most {gain:.2f} times faster")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["demo", "plan", "folds"], nargs="?")
    parser.add_argument("--device", default="cpu", help="of `folds`: cpu or cuda")
    options = parser.parse_args()
    for name, measure in {"demo": demo, "plan": plan, "folds": lambda: folds(options.device)}.items():
        if options.what in (None, name):
            measure()
