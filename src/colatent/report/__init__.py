"""The report: pages of each model of a session, of their comparison and of all sessions.

Figures are functions of the results that `read_session` and `read_model` gather from the stores, listed in
`colatent.report.figures.catalogue`; each returns a `ReportFigure`, which a notebook displays:

    >>> from colatent.report import read_model
    >>> from colatent.report.figures.latents import latents_figure
    >>> latents_figure(read_model(config, "session_1", "mmgpvae"))
"""

from colatent.report.figures.base import ReportFigure
from colatent.report.figures.catalogue import latent_figures, reconstruction_figures
from colatent.report.model_results import ModelResults, read_model
from colatent.report.pages.model import write_model_page
from colatent.report.pages.session import write_session_page
from colatent.report.pages.start import write_start_page
from colatent.report.session_results import SessionResults, read_session

__all__ = [
    "ModelResults",
    "ReportFigure",
    "SessionResults",
    "latent_figures",
    "read_model",
    "read_session",
    "reconstruction_figures",
    "write_model_page",
    "write_session_page",
    "write_start_page",
]
