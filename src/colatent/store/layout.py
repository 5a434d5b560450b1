"""What a config makes: the stores and files of a tree of results, and what each store is made with."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from colatent.config import Config

_INGEST_SECTIONS = {"alignment", "modalities", "checks", "truth", "read_mb"}


class Planned(NamedTuple):
    """A store that a config makes.

    Attributes:
        stage: which writes it.
        settings: the part of the config that it is made with.
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


def ingest_settings(config: Config) -> dict[str, Any]:
    """Return what of the config a session depends on."""
    return config.model_dump(mode="json", include=_INGEST_SECTIONS)


def split_settings(config: Config) -> dict[str, Any]:
    """Return what of the config a split depends on: not how much of test trials is hidden at their end."""
    settings = config.model_dump(mode="json", include={"heldout", "alignment"})
    del settings["heldout"]["time"]
    return settings


def latent_models(config: Config) -> list[str]:
    """Return the names of the models that have latents, which are exported."""
    return [name for name, model in config.models.items() if model.record.has_latents]


def clip_percentiles(config: Config) -> dict[str, Any]:
    """Return the percentiles that modalities are clipped to: modality -> (low, high)."""
    clips = {name: getattr(modality, "clip", None) for name, modality in config.modalities.items()}
    return {name: clip for name, clip in clips.items() if clip}


def _of_session(config: Config, session: str) -> Iterator[tuple[str, Planned]]:
    data, split = f"{session}/session", f"{session}/split"
    yield data, Planned("ingest", ingest_settings(config), {}, {})
    yield split, Planned("split", split_settings(config), {"session": data}, {})
    clip = clip_percentiles(config)
    both: dict[str, str | list[str]] = {"session": data, "split": split}
    for model, settings in config.model_dump(mode="json")["models"].items():
        fits = []
        for fold in range(config.heldout.folds):
            for seed in config.heldout.seeds:
                fits.append(f"{session}/fit/{model}/fold-{fold}_seed-{seed}")
                yield (
                    fits[-1],
                    Planned("fit", {"model": settings, "seed": seed}, both, {"fold": fold, "clip": clip}),
                )
        score = f"{session}/score/{model}"
        scored = {"clip": clip, "time": config.heldout.time}
        yield score, Planned("score", scored, {**both, "fits": fits}, {})
        if model in latent_models(config):
            yield f"{session}/latents/{model}", Planned("export", {}, {"session": data, "score": score}, {})
