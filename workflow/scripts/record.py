"""Record what made the results."""

from pathlib import Path

from colatent.config import Config
from colatent.jobs.progress import job
from colatent.results.manifest import write_record
from colatent.store.made_with import read_made_with

with job(snakemake.log[0], "record") as progress:
    settings = read_made_with(snakemake.input.made_with)
    results = Path(snakemake.output.record).parent
    write_record(results, Config.model_validate(settings["config"]), settings["sessions"])
    progress(f"written to {snakemake.output.record}")
