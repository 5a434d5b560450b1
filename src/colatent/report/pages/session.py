"""The page of a session: its data and split, and all models compared."""

from pathlib import Path

from colatent.config import Config
from colatent.report.figures.catalogue import DATA, MATRIX, SCORES, SESSION_FIGURES, drawn
from colatent.report.pages.headlines import headlines
from colatent.report.pages.page import render, write_page
from colatent.report.pages.pairs import pairs
from colatent.report.score_tables import score_tables
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
    tables = score_tables(results)
    sections = drawn(SESSION_FIGURES, results, results)
    html = render(
        "session.html.j2",
        config,
        r=results,
        headlines=headlines(results, tables),
        tables=tables,
        pairs=pairs(results),
        of_data=sections.get(DATA, []),
        of_scores=sections.get(SCORES, []),
        sections={title: found for title, found in sections.items() if title not in (DATA, SCORES)},
        has_matrix=MATRIX in sections,
    )
    write_page(output, figures, html, [f for found in sections.values() for f in found])
