"""Pages: a template filled with results and figures, written whole with the files behind the figures."""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from colatent.config import Config
from colatent.data.metrics import METRICS
from colatent.report.figures.base import ReportFigure
from colatent.report.pages import data_card, pairs
from colatent.report.text import heldout, methods, numbers
from colatent.store.atomic import atomically
from colatent.store.checksums import write_checksums
from colatent.store.provenance import code_fingerprint, git_revision

# the pages' addresses relative to the folder `report`; each page has its figures beside it
START_PAGE = "index.html"
SESSION_PAGE = "sessions/{session}/index.html"
MODEL_PAGE = "sessions/{session}/models/{model}/index.html"


def render(template: str, config: Config, **content: Any) -> str:
    """Return a page as HTML; all that comes from users' files is escaped."""
    environment = Environment(
        loader=PackageLoader("colatent.report", "templates"),
        autoescape=True,  # names and texts come from users' files
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (files("colatent.report") / "templates" / "script.js").read_text(encoding="utf-8").strip()
    environment.globals.update(
        number=numbers.number,
        signed=numbers.signed,
        plus_minus=numbers.plus_minus,
        p_value_text=pairs.p_value_text,
        heldout_words=heldout.heldout_words,
        metrics=METRICS,
        source_rows=data_card.source_rows,
        trial_rows=data_card.trial_rows,
        modality_rows=data_card.modality_rows,
        finding_rows=data_card.finding_rows,
        duration_rows=data_card.duration_rows,
        model_texts=methods.model_texts,
        transform_texts=methods.transform_texts,
        decoding_text=methods.decoding_text,
        metric_texts=methods.metric_texts,
        statistics_text=methods.statistics_text,
        start_page=START_PAGE,
        session_page=SESSION_PAGE.format,
        model_page=MODEL_PAGE.format,
        script=script,
        # only the page's own script runs, and nothing that a name in a file might inject
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        config_yaml=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        report_code=code_fingerprint("report"),
        git=git_revision(),
    )
    return environment.get_template(template).render(**content)


def write_page(output: Path, folder: Path, html: str, figures: list[ReportFigure]) -> None:
    """Write a page, and its figures as SVG, PNG and CSV into a folder, replacing what was there.

    Checksums of all of them are written beside the page.

    Args:
        output: the page.
        folder: of the figures, below the folder of the page.

    Raises:
        OSError: something cannot be written; an old page, or the figures' old folder, is kept then.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomically(folder) as made:
        made.mkdir()
        for figure in figures:
            (made / f"{figure.name}.png").write_bytes(figure.png)
            (made / f"{figure.name}.svg").write_text(figure.svg, encoding="utf-8")
            (made / f"{figure.name}.csv").write_text(figure.csv, encoding="utf-8")
    with atomically(output) as made:
        made.write_text(html, encoding="utf-8")
    write_checksums(output.parent, [output, *folder.iterdir()])
