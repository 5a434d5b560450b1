"""Write the start page."""

from pathlib import Path

from colatent.config import Config
from colatent.jobs.progress import job
from colatent.report import write_start_page
from colatent.store.made_with import read_made_with

with job(snakemake.log[0], "report") as progress:
    settings = read_made_with(snakemake.input.made_with)
    write_start_page(
        Config.model_validate(settings["config"]),
        settings["sessions"],
        output=Path(snakemake.output.page),
        figures=Path(snakemake.output.figures),
    )
    progress(f"written to {snakemake.output.page}")
