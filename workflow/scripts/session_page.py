"""Write the page that compares the models of a session."""

from pathlib import Path

from colatent.config import Config
from colatent.jobs.progress import job
from colatent.report import write_session_page
from colatent.store.made_with import read_made_with

with job(snakemake.log[0], f"session_page {snakemake.wildcards.session}") as progress:
    settings = read_made_with(snakemake.input.made_with)
    write_session_page(
        Config.model_validate(settings["config"]),
        snakemake.wildcards.session,
        output=Path(snakemake.output.page),
        figures=Path(snakemake.output.figures),
    )
    progress(f"written to {snakemake.output.page}")
