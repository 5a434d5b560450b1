"""Write the page of one model of a session."""

from pathlib import Path

from colatent.config import Config
from colatent.jobs.progress import job
from colatent.report import write_model_page
from colatent.store.made_with import read_made_with

w = snakemake.wildcards
with job(snakemake.log[0], f"model_page {w.session} {w.model}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    write_model_page(
        Config.model_validate(settings["config"]),
        w.session,
        w.model,
        output=Path(snakemake.output.page),
        figures=Path(snakemake.output.figures),
    )
    progress(f"written to {snakemake.output.page}")
