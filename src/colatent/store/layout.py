"""A tree of results: what each stage leaves where, what it is made with and from, and what is there on disk.

This is the only place that knows paths below the results, and their order.
"""

import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from colatent.config import Config
from colatent.config.checks import CHECKS
from colatent.errors import InputError

MARKER = "complete.json"  # of a store, written last; what Snakemake tracks
RECORD = "provenance.json"  # written last
PLAN = "logs/fits.json"  # written when the workflow starts
MADE_WITH = "made_with"  # folder of what the stages are made with
CONFIG = f"{MADE_WITH}/config.yaml"  # the config of the record, as resolved


class Output(NamedTuple):
    """Something that a rule leaves below the results.

    Attributes:
        rule: which makes it.
        path: with wildcards; of a store, its folder.
        kind: store, table, page, figures (of a page, a folder), export (for other programs), record or log.
        with_: which other output of the rule Snakemake tracks in its place.
    """

    rule: str
    path: str
    kind: str
    with_: str = ""


_FIT = "fold-{fold}_seed-{seed}"
CHECKPOINT = f".checkpoints/{{session}}/{{model}}/{_FIT}"  # of a fit under way
_PAGE, _MODEL_PAGE = "report/sessions/{session}", "report/sessions/{session}/models/{model}"
# in the order in which they are made
OUTPUTS = (
    Output("ingest", "{session}/session", "store"),
    Output("split", "{session}/split", "store"),
    Output("fit", f"{{session}}/fit/{{model}}/{_FIT}", "store"),
    Output("score", "{session}/score/{model}", "store"),
    Output("score", "{session}/score/{model}.csv", "table"),
    Output("latent_choice", "{session}/latent_choice/{model}.csv", "table"),
    Output("latent_choice_figure", "{session}/latent_choice/{model}.png", "page"),
    Output("learning_curve", "{session}/learning_curve/{model}.csv", "table"),
    Output("learning_curve_figure", "{session}/learning_curve/{model}.png", "page"),
    Output("export", "{session}/latents/{model}", "store"),
    Output("export", "{session}/latents/{model}.nwb", "export"),
    Output("scores", "scores.csv", "table"),
    Output("scores", "paired_differences.csv", "table", "scores.csv"),
    Output("scores", "latent_recovery.csv", "table", "scores.csv"),
    Output("scores", "SHA256SUMS", "page", "scores.csv"),
    Output("model_page", f"{_MODEL_PAGE}/index.html", "page"),
    Output("model_page", f"{_MODEL_PAGE}/figures", "figures"),
    Output("model_page", f"{_MODEL_PAGE}/{{file}}", "page", f"{_MODEL_PAGE}/index.html"),
    Output("session_page", f"{_PAGE}/index.html", "page"),
    Output("session_page", f"{_PAGE}/figures", "figures"),
    Output("session_page", f"{_PAGE}/{{file}}", "page", f"{_PAGE}/index.html"),
    Output("report", "report/index.html", "page"),
    Output("report", "report/figures", "figures"),
    Output("report", "report/{file}", "page", "report/index.html"),
    Output("record", RECORD, "record"),
    Output("record", CONFIG, "record", RECORD),
    Output("fit", f"logs/{{session}}/fit/{{model}}_{_FIT}.log", "log"),
    *(
        Output(rule, f"logs/{{session}}/{rule}/{{model}}.log", "log")
        for rule in ("score", "export", "model_page", "latent_choice", "latent_choice_figure",
                     "learning_curve", "learning_curve_figure")
    ),
    *(Output(r, f"logs/{{session}}/{r}.log", "log") for r in ("ingest", "split", "session_page")),
    *(Output(r, f"logs/{r}.log", "log") for r in ("scores", "report", "record")),
)  # fmt: skip
_WILDCARDS = {"session": "[^/]+", "model": r"\w+", "fold": r"\d+", "seed": r"\d+", "file": ".+"}
# what the folder of results, or of its logs, holds besides sessions
RESERVED = {
    "data.zarr",
    MADE_WITH,
    *(top for o in OUTPUTS if "{" not in (top := o.path.removeprefix("logs/").split("/")[0])),
    "logs",
}


def output_of(rule: str, kind: str) -> str:
    """Return the path, with wildcards, of the first output of a rule that is of a kind."""
    return next(o.path for o in OUTPUTS if (o.rule, o.kind) == (rule, kind))


def where(results: str | Path, rule: str, kind: str, **wildcards: str | int) -> Path:
    """Return where the output of `output_of` lies below the results."""
    return Path(results) / output_of(rule, kind).format(**wildcards)


def what_lies_at(path: str) -> tuple[Output, dict[str, str]] | None:
    """Return the output that lies at a path below the results, and its wildcards; None of another file."""
    for output in OUTPUTS:
        if found := _pattern(output.path).fullmatch(path):
            return output, found.groupdict()
    return None


def tracked(path: str) -> str:
    """Return the file that Snakemake makes this one with: itself, the marker of its store, its page."""
    output, wildcards = what_lies_at(path) or (Output("", path, ""), {})
    if output.kind == "store":
        return f"{path}/{MARKER}"
    return output.with_.format(**wildcards) or path


@cache
def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", lambda m: f"(?P<{m[1]}>{_WILDCARDS[m[1]]})", re.escape(path)))


class Planned(NamedTuple):
    """A store that a config makes.

    Attributes:
        stage, settings: which writes it, and the part of the config that it is made with.
        made_from: stores that it is made from, by the name that its attributes give to them.
        inputs: what else its attributes are to say of its inputs.
    """

    stage: str
    settings: dict[str, Any]
    made_from: dict[str, str | list[str]]
    inputs: dict[str, Any]


def planned_stores(config: Config, sessions: Iterable[str]) -> dict[str, Planned]:
    """Return the stores of all sessions: path below the results -> what is to lie there."""
    return {name: planned for session in sessions for name, planned in _of_session(config, session)}


def planned_pages(config: Config, sessions: Iterable[str]) -> list[str]:
    """Return the folders of the pages, below the results."""
    of_session = [f"report/sessions/{session}" for session in sessions]
    return ["report", *of_session, *(f"{s}/models/{model}" for s in of_session for model in config.models)]


def latent_models(config: Config) -> list[str]:
    """Return the names of the models that have latents, which are exported."""
    return [name for name, model in config.models.items() if model.record.has_latents]


def ingest_settings(config: Config) -> dict[str, Any]:
    """Return what of the config a session depends on, defaults of the checks included."""
    settings = config.model_dump(mode="json", include={"alignment", "modalities", "truth", "read_mb"})
    checks = {name: check.default for name, check in CHECKS.items()} | config.checks
    counts = [name for name, modality in config.modalities.items() if modality.record.counts]
    return settings | {"checks": checks, "counts": counts}


def split_settings(config: Config) -> dict[str, Any]:
    """Return what of the config a split depends on: what is held out, and how training trials are clipped."""
    clips = {name: getattr(modality, "clip", None) for name, modality in config.modalities.items()}
    settings = config.model_dump(mode="json", include={"heldout", "alignment"})
    return settings | {"clip": {name: list(clip) for name, clip in clips.items() if clip}}


def made_with(config: Config, sessions: Iterable[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return what each rule is made with besides its input: rule, or rule-model -> stage and settings."""
    whole = config.model_dump(mode="json")
    sessions = list(sessions)
    of_all = {
        "simulate": ("simulate", {"simulation": whole["simulate"]}),
        "ingest": ("ingest", ingest_settings(config)),
        "split": ("split", split_settings(config)),
        "score": ("score", {}),
        "export": ("export", {"checks": whole["checks"]}),
        "scores": ("scores", {"order": [*sessions, *config.models]}),
        "session_page": ("report", {"config": whole}),
        "report": ("report", {"config": whole, "sessions": sessions}),
        "record": ("record", {"config": whole, "sessions": sessions}),
        "latent_choice_figure": ("report", {}),
        "learning_curve_figure": ("report", {}),
    }
    return of_all | {
        f"{rule}-{model}": made
        for model in config.models
        for rule, made in _of_model(config, whole, model).items()
    }


def _of_model(config: Config, whole: dict[str, Any], name: str) -> dict[str, tuple[str, dict[str, Any]]]:
    model, heldout = {"model": whole["models"][name]}, config.heldout
    device = {"device": config.device if config.models[name].record.uses_gpu else "cpu"}
    shares = config.learning_curve.shares_of_channels(heldout.channels)
    curve = whole["learning_curve"] | {"channels": shares}
    split = {"folds": heldout.folds, "stratify": heldout.stratify is not None, "seed": heldout.seeds[0]}
    return {
        "fit": ("fit", model | device),
        "latent_choice": ("latent_choice", model | {"folds": heldout.folds}),
        "learning_curve": ("learning_curve", model | device | split | {"curve": curve}),
        "model_page": ("report", {"config": whole | {"models": {name: model["model"]}}}),
    }


def _of_session(config: Config, session: str) -> Iterator[tuple[str, Planned]]:
    data, split = f"{session}/session", f"{session}/split"
    yield data, Planned("ingest", ingest_settings(config), {}, {})
    yield split, Planned("split", split_settings(config), {"session": data}, {})
    both: dict[str, str | list[str]] = {"session": data, "split": split}
    for model, settings in config.model_dump(mode="json")["models"].items():
        fits = []
        for fold in range(config.heldout.folds):
            for seed in config.heldout.seeds:
                fits.append(f"{session}/fit/{model}/fold-{fold}_seed-{seed}")
                yield fits[-1], Planned("fit", {"model": settings, "seed": seed}, both, {"fold": fold})
        score = f"{session}/score/{model}"
        yield score, Planned("score", {}, {**both, "fits": fits}, {})
        if model in latent_models(config):
            yield f"{session}/latents/{model}", Planned("export", {}, {"session": data, "score": score}, {})


class Place(NamedTuple):
    """A folder below a tree of results; of a store, no files are listed, else those that are not hidden."""

    path: Path
    is_store: bool
    files: tuple[str, ...]


def walk_results(root: str | Path, above: frozenset[str] = frozenset()) -> Iterator[Place]:
    """Yield the folders of a tree of results, links to folders followed.

    Left out are hidden folders (checkpoints, what is being made), and trees of results inside this one, which
    have a plan or a record of their own.

    Raises:
        InputError: a folder cannot be read.
    """
    root, real = Path(root), os.path.realpath(root)
    # a link to a folder above it would be followed for ever
    if real in above or (above and any((root / name).is_file() for name in (RECORD, PLAN))):
        return
    try:
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{root}: cannot be read ({error.strerror})") from None
    folders = [entry.name for entry in entries if entry.is_dir()]
    files = tuple(e.name for e in entries if e.is_file() and not e.name.startswith("."))
    is_store = "data.zarr" in folders or MARKER in files
    yield Place(root, is_store, () if is_store else files)
    for name in () if is_store else folders:
        if not name.startswith("."):
            yield from walk_results(root / name, above | {real})
