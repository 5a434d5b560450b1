"""Record what made the results."""

from pathlib import Path

from colatent.progress import job
from colatent.results import write_record

with job(snakemake.log[0], "record") as progress:
    output = Path(snakemake.output.record)
    write_record(output.parent, snakemake.params.config, snakemake.params.config_file, output)
    progress(f"written to {output}")
