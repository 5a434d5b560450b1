"""Checks of config and files before anything runs."""

from collections.abc import Mapping

from colatent.config import Config
from colatent.errors import InputError
from colatent.ingest.check import check_source
from colatent.session_table import Session
from colatent.splits import check_enough

SIMULATED = ".simulated.nwb"


def check_inputs(config: Config, sessions: Mapping[str, Session]) -> None:
    """Raise InputError, one sentence a problem, unless every session's file holds what is asked for.

    Files that the workflow itself simulates need not be there yet.
    """
    problems = []
    truth = config.truth.source if config.truth else None
    for name, session in sessions.items():
        if str(session.nwb).endswith(SIMULATED):
            if config.simulate is None:
                problems.append(
                    f"session {name!r}: {session.nwb} is to be simulated, but the config has no section "
                    "`simulate`; add it, or name a recording"
                )
            continue
        if not session.nwb.is_file():
            problems.append(
                f"session {name!r}: there is no file {session.nwb}; correct the column nwb in the table "
                f"of sessions ({config.sessions})"
            )
            continue
        try:
            n_trials = check_source(session.nwb, config.alignment, config.modalities, truth, config.checks)
            if n_trials is not None:
                check_enough(n_trials, config.heldout.folds)
        except InputError as error:
            problems.append(f"session {name!r}: {error}")
    if problems:
        raise InputError("\n".join(problems))
