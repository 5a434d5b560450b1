"""What all rules share: the validated config, the sessions, and a few answers about them."""

import json
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path

from snakemake.io import IOFile
from snakemake.settings.types import RerunTrigger

from colatent.config import (
    ConditionMeanSettings,
    GPFASettings,
    MMGPVAESettings,
    RidgeLagsSettings,
    SmoothedFASettings,
)
from colatent.config.file import parse_config
from colatent.jobs.resources import (
    fit_and_score_mb,
    fit_mb,
    fit_minutes,
    ingest_mb,
    ingest_minutes,
    reading_mb,
    score_mb,
    score_minutes,
    session_size,
)
from colatent.jobs.device import fits_per_gpu
from colatent.errors import InputError
from colatent.jobs.locks import hold_results
from colatent.store.layout import (
    clip_percentiles,
    ingest_settings,
    latent_models,
    split_settings,
)
from colatent.store.provenance import code_fingerprint
from colatent.results.manifest import RUN_VARIABLE, other_than_recorded, outdated
from colatent.ingest.source import found_before, is_made_from, refuse_older
from colatent.config.session_table import is_simulated, load_sessions
from colatent.results.status import write_plan
from colatent.store.stores import MARKER
from colatent.store.tree import RECORD


def is_main_run():
    """Is this the Snakemake that the user started, not one that runs a single job?"""
    return workflow.is_main_process


def from_here(file):
    """Return a file's path, relative where it lies below this folder, so that both can be moved."""
    file, here = Path(file), Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


try:
    CONFIG_FILE = Path(from_here(workflow.configfiles[-1]))
    CONFIG = parse_config(config, str(CONFIG_FILE))
    SESSIONS = load_sessions(CONFIG_FILE.parent / CONFIG.sessions)
    if is_main_run():
        # not in jobs of a cluster, each of which reads this file: it takes a second
        from colatent.ingest.preflight import check_inputs

        check_inputs(
            CONFIG,
            SESSIONS,
            lambda name, session: (
                None
                if session.url
                else found_before(
                    f"{CONFIG.results}/{name}/session",
                    session.nwb,
                    ingest_settings(CONFIG),
                )
            ),
        )
        refuse_older(
            CONFIG.results,
            [(name, file) for name, s in SESSIONS.items() for file in s.files],
        )
    # as many fits at a time as share one GPU, unless --resources gpu=N (or a profile) says that there is more
    workflow.global_resources.setdefault("gpu", fits_per_gpu())
except InputError as error:
    print(f"colatent: {error}", file=sys.stderr)
    sys.exit(1)

RESULTS = CONFIG.results
STAGES = ("simulate", "ingest", "split", "fit", "score")  # others follow the last
LATENT_MODELS = latent_models(CONFIG)
FOLDS = range(CONFIG.heldout.folds)
SEEDS = CONFIG.heldout.seeds
N_FITS = len(FOLDS) * len(SEEDS)  # of a model of a session


def options_of_run():
    """Return the options that `snakemake` needs in this folder to see the same Snakefile and config."""
    options = {
        "--snakefile": [from_here(workflow.main_snakefile)],
        "--configfile": map(from_here, workflow.overwrite_configfiles),
        "--config": workflow.config_settings.config_args,
    }
    if options["--snakefile"] == ["Snakefile"]:
        del options["--snakefile"]
    return [
        argument
        for option, values in options.items()
        if (given := list(values))
        for argument in [option, *given]
    ]


if is_main_run():
    os.environ[RUN_VARIABLE] = json.dumps(
        {
            "command": shlex.join(["snakemake", *sys.argv[1:]]),
            "folder": os.getcwd(),
            "options": options_of_run(),
        }
    )


def begin_or_stop():
    """Leave the plan, or stop: another Snakemake, of another folder, is at work, or nothing can be written."""
    try:
        if workflow.execution_settings.lock:  # not --nolock
            hold_results(RESULTS)
        write_plan(RESULTS, SESSIONS, CONFIG.models, FOLDS, SEEDS)
    except InputError as error:
        sys.exit(f"colatent: {error}")


def remembers(output):
    """Does Snakemake know in this folder how this very file was made, not one in its place?"""
    memory, written = workflow.persistence.metadata(IOFile(output)), Path(output)
    if memory is None or memory.endtime is None or not written.is_file():
        return False
    # the end of a job is the time of its output; some file systems count in seconds
    return abs(written.stat().st_mtime - memory.endtime) <= 2


def code_of_run(wildcards):
    """Return the code that stores are to be made with (stage -> fingerprint); nothing where any is kept."""
    if RerunTrigger.PARAMS not in workflow.rerun_triggers:
        return {}
    return {stage: code_fingerprint(stage) for stage in (*STAGES, "export")}


@cache
def forgotten():
    """Return outputs that were made otherwise than now, unknown to Snakemake; and what would redo them."""
    found = [
        (f"{RESULTS}/{name}", stage)
        for name, stage in outdated(RESULTS, CONFIG, SESSIONS)
        if not remembers(f"{RESULTS}/{name}/{MARKER}")
    ]
    rules = other_than_recorded(RESULTS, CONFIG, SESSIONS)
    if rules and not remembers(f"{RESULTS}/{RECORD}"):
        found += [(f"{RESULTS}/{RECORD}", rule) for rule in rules]
    forced = workflow.dag_settings.forcerun
    # what is forced redoes what follows it
    return [
        (output, rule)
        for output, rule in found
        if not forced
        & {rule, *(STAGES[: STAGES.index(rule)] if rule in STAGES else STAGES)}
    ]


def refuse_forgotten(wildcards):
    """Stop where results were made otherwise than now, and Snakemake has no memory of it here; no input.

    It knows only what was made by a run in this folder, and would take them for what the config asks for.
    """
    by_params = RerunTrigger.PARAMS in workflow.rerun_triggers
    if is_main_run() and by_params and not workflow.dag_settings.forceall:
        if found := forgotten():
            rules = " ".join(dict.fromkeys(rule for _, rule in found))
            sys.exit(
                f"colatent: {found[0][0]}: made with other settings or code than now, which "
                "Snakemake does not know in this folder; run it where these results were "
                f"made, or with --forcerun {rules} to make them anew"
            )
    return []


def one_of(names):
    """Return a pattern that only these names match, so that a typo fails before any job."""
    return "|".join(re.escape(name) for name in names)


def settings(*keys):
    """Return the sections of the config that a stage depends on; a change of one reruns it."""
    return CONFIG.model_dump(mode="json", include=set(keys))


def recording(wildcards):
    """Return a session's file; its time does not count while its content is what was ingested.

    That of a simulation counts: what depends on an ancient file is not redone when its rule is.
    """
    store = f"{RESULTS}/{wildcards.session}/session"
    return [
        ancient(file) if not is_simulated(file) and is_made_from(store, file) else file
        for file in SESSIONS[wildcards.session].files
    ]


def recording_mb(wildcards):
    """Return the size of a session's file (MB); nothing is known of one on a server, or not yet made."""
    files = [Path(file) for file in SESSIONS[wildcards.session].files]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def size_of(wildcards):
    """Return the size of a session, once it is ingested; Snakemake asks again before a job."""
    return session_size(f"{RESULTS}/{wildcards.session}/session")


def model_of(wildcards):
    """Return the section of the config on a model."""
    return CONFIG.models[wildcards.model]


def growing(amount):
    """Return a request that grows with each attempt, for jobs whose size does not depend on the data."""
    return lambda wildcards, attempt: attempt * amount


def page_mb(wildcards):
    """Return the memory that a page of a session, or an export, asks for at first."""
    return max(4000, reading_mb(size_of(wildcards)))


def needs_gpu(wildcards):
    """Return how many GPUs a fit asks for."""
    return int(
        CONFIG.device != "cpu"
        and isinstance(CONFIG.models[wildcards.model], MMGPVAESettings)
    )


QUICK_FITS = "baselines"  # a group of jobs


def group_of_fit(wildcards):
    """Return the group of fits that take less time than a job of a cluster to start."""
    quick = isinstance(
        CONFIG.models[wildcards.model], (ConditionMeanSettings, SmoothedFASettings, RidgeLagsSettings)
    )
    # a dry run would show groups that a run on one machine does not make
    return QUICK_FITS if quick and not workflow.dryrun else None


def fits_of(wildcards):
    """Return the fits of one model of one session, all folds and seeds."""
    return expand(
        rules.fit.output.fit,
        session=wildcards.session,
        model=wildcards.model,
        fold=FOLDS,
        seed=SEEDS,
    )


def shares_of_channels():
    """Return the shares of each modality's channels in learning curves, the config's or the default."""
    return CONFIG.learning_curve.shares_of_channels(CONFIG.heldout.channels)


def n_points_of_curve():
    """Return how many fits a learning curve is made of."""
    curve, heldout = CONFIG.learning_curve, CONFIG.heldout
    return (curve.folds or heldout.folds) * (
        len(curve.trials) + sum(map(len, shares_of_channels().values()))
    )


def config_of_model(wildcards):
    """Return the config with one model alone, so that a change of another does not count."""
    own = CONFIG.model_copy(
        update={"models": {wildcards.model: CONFIG.models[wildcards.model]}}
    )
    return own.model_dump(mode="json")
