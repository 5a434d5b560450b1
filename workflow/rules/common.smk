"""What all rules share: the validated config, the sessions, and functions of them."""

import re
from contextlib import contextmanager
from pathlib import Path

from snakemake.exceptions import WorkflowError

from colatent.config.file import check_keys, parse_config
from colatent.config.session_table import is_simulated, load_sessions
from colatent.errors import InputError
from colatent.ingest.source import is_made_from
from colatent.jobs.locks import hold_results
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
from colatent.results.status import write_plan
from colatent.store.layout import (
    CHECKPOINT,
    MARKER,
    latent_models,
    made_with,
    output_of,
    where,
)
from colatent.store.made_with import current_run, write_made_with


@contextmanager
def one_sentence():
    """Let Snakemake report what is wrong with a config or a file, one sentence per problem."""
    try:
        yield
    except InputError as error:
        lines = [f"colatent: {line}" for line in str(error).splitlines()]
        raise WorkflowError("\n".join(lines)) from None


with one_sentence():
    for file in workflow.configfiles:
        check_keys(file)
    CONFIG = parse_config(config, "the config")
    SESSIONS = load_sessions(CONFIG.sessions)
    if current_run().is_mine:
        # not in cluster jobs, which also parse this file: opening recordings takes a second
        from colatent.ingest.preflight import check_before_run

        check_before_run(CONFIG, SESSIONS)
    MADE_WITH = write_made_with(
        CONFIG.results, made_with(CONFIG, SESSIONS), current_run().code
    )

RESULTS = CONFIG.results
LATENT_MODELS = latent_models(CONFIG)
FOLDS = range(CONFIG.heldout.folds)
SEEDS = CONFIG.heldout.seeds
N_FITS = len(FOLDS) * len(SEEDS)  # per session and model


def one_of(names):
    """Return a pattern that only these names match, so that a typo fails before any job."""
    return "|".join(re.escape(name) for name in names)


def place(rule, kind):
    """Return the path of a rule's store (its marker file), table, page or log."""
    path = f"{RESULTS}/{output_of(rule, kind)}"
    return f"{path}/{MARKER}" if kind == "store" else path


def settings_of_model(rule):
    """Return a function of wildcards: the file with a rule's settings and code for a model."""
    return lambda wildcards: MADE_WITH[f"{rule}-{wildcards.model}"]


def recording(wildcards):
    """Return a session's file, ancient (its time is ignored) while its content is what was ingested.

    A simulated file is never ancient: when its rule reruns, what depends on it must follow.
    """
    store = where(RESULTS, "ingest", "store", session=wildcards.session)
    return [
        ancient(file) if not is_simulated(file) and is_made_from(store, file) else file
        for file in SESSIONS[wildcards.session].files
    ]


def recording_mb(wildcards):
    """Return the size of a session's file (MB); 0 if it is remote or does not exist yet."""
    files = [Path(file) for file in SESSIONS[wildcards.session].files]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6


def size_of(wildcards):
    """Return the size of a session once it is ingested; Snakemake asks again before the job."""
    return session_size(where(RESULTS, "ingest", "store", session=wildcards.session))


def model_of(wildcards):
    """Return the section of the config on a model."""
    return CONFIG.models[wildcards.model]


def growing(amount):
    """Return a request that grows with each attempt, for jobs whose size does not depend on the data."""
    return lambda wildcards, attempt: attempt * amount


def page_mb(wildcards):
    """Return the memory (MB) that a page or an export requests at its first attempt."""
    return max(4000, reading_mb(size_of(wildcards)))


def needs_gpu(wildcards):
    """Return how many GPUs a fit asks for."""
    return int(CONFIG.device != "cpu" and model_of(wildcards).record.uses_gpu)


def group_of_fit(wildcards):
    """Return the group of fits that take less time than a cluster job takes to start."""
    return "baselines" if model_of(wildcards).record.is_quick else None


def fits_of(wildcards):
    """Return the fits of one model of one session, all folds and seeds."""
    return expand(rules.fit.output.fit, **wildcards, fold=FOLDS, seed=SEEDS)


def n_points_of_curve():
    """Return the number of fits behind a learning curve."""
    curve, heldout = CONFIG.learning_curve, CONFIG.heldout
    shares = curve.shares_of_channels(heldout.channels)
    n_points = len(curve.trials) + sum(map(len, shares.values()))
    return (curve.folds or heldout.folds) * n_points
