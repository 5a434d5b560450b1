"""Checks of config and files before anything runs."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from colatent.config import Config, OneModalitySettings
from colatent.config.location import is_url
from colatent.config.session_table import Session, is_simulated
from colatent.data.splits import check_enough_trials
from colatent.errors import InputError
from colatent.ingest.check import Found, check_source
from colatent.ingest.source import found_before, refuse_older
from colatent.store.layout import RESERVED, ingest_settings, where


def check_before_run(config: Config, sessions: Mapping[str, Session]) -> None:
    """Do `check_inputs`, skipping files that were already ingested with the same settings and code.

    Raises:
        InputError: also if a file was replaced by one older than the session ingested before.
    """

    def known(name: str, session: Session) -> Found | None:
        if session.url:
            return None
        store = where(config.results, "ingest", "store", session=name)
        return found_before(store, session.nwb, ingest_settings(config))

    check_inputs(config, sessions, known)
    refuse_older(config.results, [(name, file) for name, s in sessions.items() for file in s.files])


def check_inputs(
    config: Config,
    sessions: Mapping[str, Session],
    found_before: Callable[[str, Session], Found | None] = lambda name, session: None,
) -> None:
    """Raise InputError, one sentence per problem, unless every file holds what the config asks for.

    Files that the workflow simulates need not exist yet.

    Args:
        found_before: returns what is known about a session's file, or None if it must be opened.
    """
    problems = []
    if Path(config.results).exists() and not Path(config.results).is_dir():
        problems.append(f"results: {config.results} is a file; name a folder")
    elif not os.access(_nearest_folder(Path(config.results)), os.W_OK):
        problems.append(f"results: the folder {config.results} cannot be written; choose another")
    problems += [
        f"session {name!r}: the results folder uses this name itself; choose another"
        for name in sessions
        if name.lower() in RESERVED
    ]
    simulated = [name for name, s in sessions.items() if is_simulated(s.nwb)]
    if len(simulated) > 1:
        problems.append(f"sessions {', '.join(simulated)} would be the same simulation; keep one")
    truth = config.truth.source if config.truth else None
    for name, session in sessions.items():
        if is_simulated(session.nwb):
            if config.simulate is None:
                problems.append(
                    f"session {name!r}: {session.nwb} is to be simulated, but the config has no section "
                    "`simulate`; add it, or name a recording"
                )
            continue
        if not is_url(session.nwb) and not Path(session.nwb).is_file():
            problems.append(
                f"session {name!r}: there is no file {session.nwb}; correct the column nwb in the table "
                f"of sessions ({config.sessions})"
            )
            continue
        try:
            found = found_before(name, session) or check_source(
                session.nwb, config.alignment, config.modalities, truth, config.checks
            )
            if found.n_trials is not None:
                check_enough_trials(found.n_trials, config.heldout.folds)
            _check_latents(config, found.n_channels)
        except InputError as error:
            problems.append(f"session {name!r}: {error}")
    if problems:
        raise InputError("\n".join(problems))


def _nearest_folder(path: Path) -> Path:
    """Return the folder itself, or its nearest parent that exists."""
    return next(folder for folder in (path, *path.absolute().parents) if folder.exists())


def _check_latents(config: Config, n_channels: Mapping[str, int]) -> None:
    for name, model in config.models.items():
        if (
            isinstance(model, OneModalitySettings)
            and model.latents[model.modality] > n_channels[model.modality]
        ):
            raise InputError(
                f"models.{name}: {model.latents[model.modality]} latents, but {model.modality} has "
                f"{n_channels[model.modality]} channels; lower it"
            )
