"""Write the page that compares the models of a session."""

from pathlib import Path

from colatent.config import Config
from colatent.jobs.progress import job
from colatent.report import write_session_page

with job(snakemake.log[0], f"session_page {snakemake.wildcards.session}") as progress:
    write_session_page(
        Config.model_validate(snakemake.params.config),
        snakemake.wildcards.session,
        output=Path(snakemake.output.page),
        figures=Path(snakemake.output.figures),
    )
    progress(f"written to {snakemake.output.page}")
