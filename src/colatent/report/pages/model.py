"""The page of one model of one session: training, latents, held-out reconstructions."""

from pathlib import Path

from colatent.config import Config
from colatent.report.figures.agreement import agreement_figure
from colatent.report.figures.base import ReportFigure
from colatent.report.figures.calibration import calibration_figure
from colatent.report.figures.explained import explained_figure
from colatent.report.figures.latents import latents_figure
from colatent.report.figures.loadings import loadings_figure
from colatent.report.figures.pit import pit_figure
from colatent.report.figures.rasters import rasters_figure
from colatent.report.figures.reconstruction import reconstruction_figure
from colatent.report.figures.residuals import residuals_figure
from colatent.report.figures.scores import matrix_figure
from colatent.report.figures.time_scales import time_scales_figure
from colatent.report.figures.training import training_figure
from colatent.report.figures.trajectories import trajectories_figure
from colatent.report.model_results import ModelResults, read_model
from colatent.report.pages.page import render, write_page
from colatent.report.pages.score_tables import (
    HELDOUT_ORDER,
    blocks,
    headlines,
)
from colatent.report.pages.worst_trials import ranked_trials, worst_trials


def write_model_page(config: Config, session: str, model: str, output: Path, figures: Path) -> None:
    """Write the page of one model of a session.

    Only the stores of that session and model are read.

    Args:
        config: results are read below ``config.results``.
        output: the page, one file that needs no other.
        figures: folder for the figures as SVG, PNG and CSV.

    Raises:
        InputError: a store or table is missing or damaged; nothing is written then.
    """
    results = read_model(config, session, model)
    tables = blocks(results.session)
    sections = {
        "Training": _present(training_figure(results.session, model)),
        "Latents": latent_figures(results),
        "Held-out reconstructions": reconstruction_figures(results),
    }
    html = render(
        "model.html.j2",
        results.session.config,
        r=results.session,
        model=model,
        headlines=headlines(results.session, tables),
        tables=tables,
        sections={title: drawn for title, drawn in sections.items() if drawn},
        worst=worst_trials(results),
    )
    write_page(output, figures, html, [f for drawn in sections.values() for f in drawn])


def latent_figures(results: ModelResults) -> list[ReportFigure]:
    """Return the figures that summarise the latents of a model, as far as it has them."""
    return _present(
        latents_figure(results),
        trajectories_figure(results),
        time_scales_figure(results),
        explained_figure(results),
        loadings_figure(results),
        agreement_figure(results),
    )


def reconstruction_figures(results: ModelResults) -> list[ReportFigure]:
    """Return the figures of what a model predicted of its test trials."""
    asked = [(heldout, predicted) for heldout in HELDOUT_ORDER for predicted in results.session.modalities]
    return _present(
        matrix_figure(results.session),
        *(
            reconstruction_figure(results.session, *question, ranked_trials(results, *question))
            for question in asked
        ),
        *(rasters_figure(results, *question) for question in asked),
        calibration_figure(results.session, results.model),
        pit_figure(results),
        residuals_figure(results),
    )


def _present(*figures: ReportFigure | None) -> list[ReportFigure]:
    return [f for f in figures if f is not None]
