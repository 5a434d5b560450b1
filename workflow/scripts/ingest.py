"""Read an NWB file onto common bins and write the session's store."""

from pathlib import Path

from pydantic import TypeAdapter

from colatent.config import Alignment, Distributed, Modality
from colatent.config.session_table import is_simulated
from colatent.ingest.cluster import Job, reading_processes
from colatent.ingest.groups import session_groups
from colatent.ingest.session import ingest_session
from colatent.ingest.signals.resample import Reading
from colatent.jobs.progress import job
from colatent.store.made_with import read_made_with
from colatent.store.provenance import provenance
from colatent.store.stores import write_store


def main() -> None:
    session = snakemake.wildcards.session
    nwb = snakemake.params.url or snakemake.input.nwb[0]
    modified = None if snakemake.params.url else Path(nwb).stat().st_mtime_ns
    distributed = TypeAdapter(Distributed | None).validate_python(snakemake.config.get("distributed"))
    log, resources = snakemake.log[0], snakemake.resources
    own = Job(snakemake.threads, resources.mem_mb, resources.runtime, Path(log).with_suffix(""))
    with (
        job(log, f"ingest {session}") as progress,
        reading_processes(distributed, nwb, own, progress) as client,
    ):
        settings = read_made_with(snakemake.input.made_with)
        truth = settings["truth"]
        alignment = TypeAdapter(Alignment).validate_python(settings["alignment"])
        ingested = ingest_session(
            nwb,
            alignment,
            TypeAdapter(dict[str, Modality]).validate_python(settings["modalities"]),
            settings["checks"],
            truth=truth["source"] if truth else None,
            reading=Reading(snakemake.threads, settings["read_mb"] * 2**20, client or "threads"),
            progress=progress,
        )
        attrs = provenance("ingest", settings, {"nwb": ingested.source}) | {
            "session": session,
            "bin_width": alignment.bin_width,
            "alignment": "trials" if "intervals" in settings["alignment"] else "continuous",
            "modalities": list(ingested.trials.modalities),
            "simulated": is_simulated(nwb),
            "findings": ingested.findings,
            "source": ingested.source,
        }
        attrs["volatile"]["nwb_modified_ns"] = modified
        groups = session_groups(ingested, truth["groups"] if truth else [])
        write_store(Path(snakemake.output.session).parent, groups, attrs)


if __name__ == "__main__":  # not in the processes that `distributed` starts
    main()
