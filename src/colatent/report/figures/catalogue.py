"""All figures of a session's pages, in their order: to add one, write its function and its entry here."""

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any, NamedTuple

from colatent.report.figures.agreement import agreement_figure
from colatent.report.figures.base import ReportFigure
from colatent.report.figures.calibration import calibration_figure
from colatent.report.figures.delays import delays_figure
from colatent.report.figures.explained import explained_figure
from colatent.report.figures.latents import latents_figure
from colatent.report.figures.loadings import loadings_figure
from colatent.report.figures.pit import pit_figure
from colatent.report.figures.rasters import rasters_figure
from colatent.report.figures.reconstruction import own_reconstruction_figure, reconstruction_figure
from colatent.report.figures.recovery import recovery_figure
from colatent.report.figures.residuals import residuals_figure
from colatent.report.figures.scores import matrix_figure, scores_figure
from colatent.report.figures.shared_signal import shared_signal_figure
from colatent.report.figures.split import split_figure
from colatent.report.figures.time_scales import time_scales_figure
from colatent.report.figures.training import training_figure
from colatent.report.figures.trajectories import trajectories_figure
from colatent.report.model_results import ModelResults
from colatent.report.session_results import SessionResults
from colatent.report.text.heldout import HELDOUT


class PageFigure(NamedTuple):
    """A figure of a page.

    Attributes:
        section: heading under which it stands; sections come in the order of their first figures.
        draw: draws it from the page's results, or returns None if they have nothing for it.
        each_question: whether it is drawn for every kind of held-out question and predicted modality, which
            ``draw`` is then also given: ``draw(results, heldout, predicted)``.
    """

    section: str
    draw: Callable[..., ReportFigure | None]
    each_question: bool = False


TRAINING, LATENTS, RECONSTRUCTIONS = "Training", "Latents", "Held-out reconstructions"
DATA, SCORES, MATRIX, RECOVERY = "Data", "Models and baselines", "Given × predicted", "Latent recovery"

# of `ModelResults`
LATENT_FIGURES = [
    PageFigure(LATENTS, latents_figure),
    PageFigure(LATENTS, trajectories_figure),
    PageFigure(LATENTS, time_scales_figure),
    PageFigure(LATENTS, delays_figure),
    PageFigure(LATENTS, explained_figure),
    PageFigure(LATENTS, shared_signal_figure),
    PageFigure(LATENTS, loadings_figure),
    PageFigure(LATENTS, agreement_figure),
]
RECONSTRUCTION_FIGURES = [
    PageFigure(RECONSTRUCTIONS, lambda model: matrix_figure(model.session)),
    PageFigure(RECONSTRUCTIONS, own_reconstruction_figure, each_question=True),
    PageFigure(RECONSTRUCTIONS, rasters_figure, each_question=True),
    PageFigure(RECONSTRUCTIONS, calibration_figure),
    PageFigure(RECONSTRUCTIONS, pit_figure),
    PageFigure(RECONSTRUCTIONS, residuals_figure),
]
MODEL_FIGURES = [PageFigure(TRAINING, training_figure), *LATENT_FIGURES, *RECONSTRUCTION_FIGURES]

# of `SessionResults`
SESSION_FIGURES = [
    PageFigure(DATA, split_figure),
    PageFigure(SCORES, scores_figure),
    PageFigure(MATRIX, matrix_figure),
    PageFigure(RECONSTRUCTIONS, reconstruction_figure, each_question=True),
    PageFigure(RECOVERY, recovery_figure),
]


def latent_figures(results: ModelResults) -> list[ReportFigure]:
    """Return the figures that summarise the latents of a model, if it has any."""
    return drawn(LATENT_FIGURES, results, results.session).get(LATENTS, [])


def reconstruction_figures(results: ModelResults) -> list[ReportFigure]:
    """Return the figures of what a model predicted of its test trials."""
    return drawn(RECONSTRUCTION_FIGURES, results, results.session).get(RECONSTRUCTIONS, [])


def drawn(
    figures: Iterable[PageFigure], results: Any, session: SessionResults
) -> dict[str, list[ReportFigure]]:
    """Draw a page's figures, section by section; sections without any are left out."""
    sections: dict[str, list[ReportFigure]] = {}
    for entry in figures:
        asked = list(product(HELDOUT, session.modalities)) if entry.each_question else [()]
        for question in asked:
            if (figure := entry.draw(results, *question)) is not None:
                sections.setdefault(entry.section, []).append(figure)
    return sections
