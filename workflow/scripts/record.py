"""Record what made the results."""

from pathlib import Path

from colatent.config import Config
from colatent.jobs.progress import job
from colatent.results.manifest import write_record

with job(snakemake.log[0], "record") as progress:
    output, params = Path(snakemake.output.record), snakemake.params
    config = Config.model_validate(params.config)
    write_record(output.parent, config, params.sessions, params.code, params.config_file, output)
    progress(f"written to {output}")
