"""The page of one model of one session: training, latents, held-out reconstructions."""

from pathlib import Path

from colatent.config import Config
from colatent.report.figures.catalogue import MODEL_FIGURES, drawn
from colatent.report.model_results import read_model
from colatent.report.pages.headlines import headlines
from colatent.report.pages.page import render, write_page
from colatent.report.score_tables import score_tables
from colatent.report.text.found_groups import found_groups
from colatent.report.worst_trials import worst_trials


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
    tables = score_tables(results.session)
    sections = drawn(MODEL_FIGURES, results, results.session)
    html = render(
        "model.html.j2",
        results.session.config,
        r=results.session,
        model=model,
        headlines=headlines(results.session, tables),
        tables=tables,
        sections=sections,
        worst=worst_trials(results),
        found=found_groups(
            results.groups_found, results.shown, getattr(config.models[model], "finds_groups", False)
        ),
    )
    write_page(output, figures, html, [f for found in sections.values() for f in found])
