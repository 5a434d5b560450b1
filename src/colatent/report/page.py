"""The page: sections of all sessions, put into the template and written whole."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from colatent.config import Config
from colatent.provenance import code_fingerprint, git_revision
from colatent.report import data_card, methods, words
from colatent.report.figure_latents import latents_figure
from colatent.report.figure_reconstruction import reconstruction_figure
from colatent.report.figure_recovery import recovery_figure
from colatent.report.figure_scores import matrix_figure, scores_figure
from colatent.report.figure_split import split_figure
from colatent.report.figure_training import training_figure
from colatent.report.results import SessionResults, read_session
from colatent.report.style import ReportFigure
from colatent.report.tables import HELDOUT_ORDER, Block, Headline, blocks, headlines


@dataclass(frozen=True)
class SessionSection:
    """All that the template needs of one session."""

    results: SessionResults
    headlines: list[Headline]
    tables: list[Block]
    split: ReportFigure
    training: list[ReportFigure]
    latents: list[ReportFigure]
    reconstructions: list[ReportFigure]
    scores: ReportFigure | None
    matrix: ReportFigure | None
    recovery: ReportFigure | None

    @property
    def figures(self) -> list[ReportFigure]:
        single = [f for f in (self.split, self.scores, self.matrix, self.recovery) if f is not None]
        return [*single, *self.training, *self.latents, *self.reconstructions]


def write_report(config: Config, sessions: list[str], output: Path, figures: Path) -> None:
    """Write the page of all sessions, and its figures as PNG.

    Args:
        config: results are read below ``config.results``.
        sessions: names, in the order of the page.
        output: the page, one file that needs no other.
        figures: folder for the PNG files; what is in it is replaced.

    Raises:
        InputError: a store or table is missing or damaged; nothing is written then.
    """
    sections = [_section(read_session(config, name)) for name in sessions]
    page = _render(config, sections)
    _write_figures(figures, [f for section in sections for f in section.figures])
    output.parent.mkdir(parents=True, exist_ok=True)
    building = output.with_name(f".{output.name}.building-{os.getpid()}")
    try:
        building.write_text(page, encoding="utf-8")
        building.replace(output)
    finally:
        building.unlink(missing_ok=True)


def _section(results: SessionResults) -> SessionSection:
    tables = blocks(results)
    asked = [
        reconstruction_figure(results, heldout, predicted)
        for heldout in HELDOUT_ORDER
        for predicted in results.modalities
    ]
    return SessionSection(
        results=results,
        headlines=headlines(results, tables),
        tables=tables,
        split=split_figure(results),
        training=_present(training_figure(results, m) for m in results.latent_models),
        latents=_present(latents_figure(results, m) for m in results.latent_models),
        reconstructions=_present(asked),
        scores=scores_figure(results, tables),
        matrix=matrix_figure(results),
        recovery=recovery_figure(results),
    )


def _present(figures: Iterable[ReportFigure | None]) -> list[ReportFigure]:
    return [f for f in figures if f is not None]


def _render(config: Config, sections: list[SessionSection]) -> str:
    environment = Environment(
        loader=PackageLoader("colatent.report", "templates"),
        autoescape=True,  # names and texts come from users' files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        number=words.number,
        signed=words.signed,
        plus_minus=words.plus_minus,
        given_text=words.given_text,
        heldout_words=words.heldout_words,
        metric_words=words.METRICS,
        source_rows=data_card.source_rows,
        trial_rows=data_card.trial_rows,
        modality_rows=data_card.modality_rows,
        finding_rows=data_card.finding_rows,
        duration_rows=data_card.duration_rows,
        model_texts=methods.model_texts,
        transform_texts=methods.transform_texts,
        metric_texts=methods.metric_texts,
        statistics_text=methods.statistics_text,
    )
    return environment.get_template("page.html.j2").render(
        sections=sections,
        config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        report_code=code_fingerprint("report"),
        git=git_revision(),
    )


def _write_figures(folder: Path, figures: list[ReportFigure]) -> None:
    building = folder.with_name(f".{folder.name}.building-{os.getpid()}")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        for figure in figures:
            (building / f"{figure.name}.png").write_bytes(figure.png)
        shutil.rmtree(folder, ignore_errors=True)
        building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
