"""The page of a session: its data and split, and all models compared."""

from pathlib import Path

from colatent.config import Config
from colatent.report.figures.base import ReportFigure
from colatent.report.figures.reconstruction import reconstruction_figure
from colatent.report.figures.recovery import recovery_figure
from colatent.report.figures.scores import matrix_figure, scores_figure
from colatent.report.figures.split import split_figure
from colatent.report.pages.page import render, write_page
from colatent.report.pages.pairs import pairs
from colatent.report.pages.score_tables import (
    HELDOUT_ORDER,
    blocks,
    headlines,
)
from colatent.report.session_results import read_session


def write_session_page(config: Config, session: str, output: Path, figures: Path) -> None:
    """Write the comparison of all models of a session.

    Args:
        config: results are read below ``config.results``; its models are compared.
        output: the page, one file that needs no other.
        figures: folder for the figures as SVG, PNG and CSV.

    Raises:
        InputError: a store or table is missing or damaged; nothing is written then.
    """
    results = read_session(config, session)
    tables = blocks(results)
    reconstructions = [
        figure
        for heldout in HELDOUT_ORDER
        for predicted in results.modalities
        if (figure := reconstruction_figure(results, heldout, predicted)) is not None
    ]
    single = {
        "split": split_figure(results),
        "scores": scores_figure(results, tables),
        "matrix": matrix_figure(results),
        "recovery": recovery_figure(results),
    }
    html = render(
        "session.html.j2",
        config,
        r=results,
        headlines=headlines(results, tables),
        tables=tables,
        pairs=pairs(results),
        reconstructions=reconstructions,
        **single,
    )
    drawn: list[ReportFigure] = [f for f in single.values() if f is not None]
    write_page(output, figures, html, drawn + reconstructions)
