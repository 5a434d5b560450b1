"""Write the start page."""

from pathlib import Path

from colatent.config import Config
from colatent.jobs.progress import job
from colatent.report import write_start_page

with job(snakemake.log[0], "report") as progress:
    write_start_page(
        Config.model_validate(snakemake.params.config),
        list(snakemake.params.sessions),
        output=Path(snakemake.output.page),
        figures=Path(snakemake.output.figures),
    )
    progress(f"written to {snakemake.output.page}")
