"""The report: pages of each model of a session, of their comparison and of all sessions.

Figures are functions of the results that `read_session` and `read_model` gather from the stores, listed in
`colatent.report.figures.catalogue`; each returns a `ReportFigure`, which a notebook displays:

    >>> from colatent.report import read_model
    >>> from colatent.report.figures.latents import latents_figure
    >>> latents_figure(read_model(config, "session_1", "mmgpvae"))
"""

import pkgutil
from typing import Any

_PLACES = {
    "ModelResults": "colatent.report.model_results:ModelResults",
    "ReportFigure": "colatent.report.figures.base:ReportFigure",
    "SessionResults": "colatent.report.session_results:SessionResults",
    "latent_figures": "colatent.report.figures.catalogue:latent_figures",
    "read_model": "colatent.report.model_results:read_model",
    "read_session": "colatent.report.session_results:read_session",
    "reconstruction_figures": "colatent.report.figures.catalogue:reconstruction_figures",
    "write_model_page": "colatent.report.pages.model:write_model_page",
    "write_session_page": "colatent.report.pages.session:write_session_page",
    "write_start_page": "colatent.report.pages.start:write_start_page",
}


def __getattr__(name: str) -> Any:
    # Resolved when asked for: importing the package does not load matplotlib.
    if name in _PLACES:
        return pkgutil.resolve_name(_PLACES[name])
    raise AttributeError(f"module 'colatent.report' has no attribute {name!r}")
