"""A model's latents for use elsewhere: as a Zarr store, and as a processing module of a new NWB file."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import xarray as xr
from numpy.typing import NDArray

from colatent.config.location import shown
from colatent.errors import InputError
from colatent.ingest.check import allows_external
from colatent.ingest.nwb.file import open_nwb, text
from colatent.simulate.nwb import name_objects, write_file
from colatent.store.provenance import provenance
from colatent.store.stores import (
    check_store,
    file_sha256,
    group_names,
    identity,
    read_attrs,
    read_group,
    write_store,
)

Array = NDArray[np.float64]
UNIT = "s.d. of the prior"
ROLES = np.array(["training", "test", "guard"])
MODULE = "latents"
# of the recording's general metadata, what a file of results repeats
_TEXTS = ("experiment_description", "institution", "lab", "protocol", "session_id")
_LISTS = ("experimenter", "keywords")
_SUBJECT = ("age", "description", "genotype", "sex", "species", "strain", "subject_id")


class LatentSeries(NamedTuple):
    """Latents of all trials one after the other.

    Attributes:
        time: seconds in the recording's clock, ascending, shape (bin,).
        mean, deviation: (bin, latent).
    """

    time: Array
    mean: Array
    deviation: Array


def write_latents_store(session: Path, score: Path, nwb: Path, output: Path) -> None:
    """Write the latents of every fit of a model as one store.

    Groups ``fold-{fold}_seed-{seed}``: ``mean`` and ``variance`` (trial, time, latent), ``role`` of each
    trial in that fold, ``start`` (s, in the recording's clock) where known; coordinates ``time`` (s, in
    trial), ``latent``, ``group`` and, if there are conditions, ``condition``.

    Args:
        session: store of the session.
        score: store of the model's scores.
        nwb: what `write_latents_nwb` wrote; the store keeps its checksum.
        output: store to write.

    Raises:
        InputError: a store is damaged, or the model has no latents.
    """
    fits = _fits(session, score)
    groups = {name: _described(session, read_group(score, f"latents/{name}")) for name in fits}
    inputs = {"session": identity(session), "score": identity(score)}
    write_store(output, groups, provenance("export", {}, inputs) | {"nwb": file_sha256(nwb)})


def write_latents_nwb(
    session: Path, score: Path, recording: str | Path, checks: Mapping[str, str], output: Path
) -> None:
    """Write the latents of a model's first fit as an NWB file of their own.

    ``processing/latents`` holds the TimeSeries ``posterior_mean`` and ``posterior_sd`` (bin, latent), with
    timestamps in the recording's clock, and a table of the latents. ``trials`` says which trials the fit was
    trained on (``role``). Metadata of the session and its subject are those of the recording. Bins past a
    trial's end are left out, and of windows that overlap those that an earlier one holds already.

    Args:
        session, score: stores of the session and of the model's scores.
        recording: the NWB file (or URL) of the session; its metadata are read.
        checks: actions of the checks at ingest.
        output: the NWB file; whole or absent.

    Raises:
        InputError: a store or the recording is damaged, or the model has no latents.
    """
    name = _fits(session, score)[0]
    latents = _described(session, read_group(score, f"latents/{name}"))
    with open_nwb(recording, allows_external(checks)) as file:
        nwbfile = _like(file, recording, score.name, name)
    _add_latents(nwbfile, latents, series(session, latents), score.name, name)
    _add_trials(nwbfile, session, latents)
    name_objects(nwbfile, f"colatent-latents/{nwbfile.identifier}")
    write_file(nwbfile, output)


def series(session: Path, latents: xr.Dataset) -> LatentSeries:
    """Put the bins of all trials one after the other, in the recording's clock."""
    trials = read_group(session, "trials")
    width = float(read_attrs(session)["bin_width"])
    time = latents["time"].values
    at = trials["start"].values[:, None] + (time - time[0] + width / 2)
    running = at < trials["stop"].values[:, None]
    order = np.argsort(trials["start"].values, kind="stable")
    at, running = at[order], running[order]
    flat = np.where(running, at, -np.inf).ravel()
    ahead = np.maximum.accumulate(np.concatenate([[-np.inf], flat[:-1]]))
    kept = running.ravel() & (flat > ahead)
    mean, variance = (latents[k].values[order].reshape(flat.size, -1)[kept] for k in ("mean", "variance"))
    return LatentSeries(flat[kept], mean, np.sqrt(variance))


def _fits(session: Path, score: Path) -> list[str]:
    for store in (session, score):
        check_store(store)
    fits = [n.removeprefix("latents/") for n in group_names(score) if n.startswith("latents/")]
    if not fits:
        raise InputError(f"{score}: this model has no latents to export")
    return sorted(fits, key=lambda n: [int(part.split("-")[1]) for part in n.split("_")])


def _described(session: Path, latents: xr.Dataset) -> xr.Dataset:
    trials = read_group(session, "trials")
    if "condition" in trials.coords:
        latents = latents.assign_coords(condition=("trial", trials["condition"].values))
    if "start" in trials:
        latents = latents.assign(start=("trial", trials["start"].values, {"units": "s"}))
    latents["mean"].attrs = {"units": UNIT, "description": "posterior mean"}
    latents["variance"].attrs = {"units": f"({UNIT})^2", "description": "posterior variance"}
    latents["role"].attrs = {"description": "0 training, 1 test (held out), 2 guard"}
    latents["time"].attrs = {"units": "s"}
    return latents


def _like(file: h5py.File, recording: str | Path, model: str, fit: str) -> Any:
    """Return an empty NWBFile with the metadata of a recording."""
    from pynwb import NWBFile
    from pynwb.file import Subject

    def texts(group: str, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: text(file[f"{group}/{name}"][()]) for name in names if f"{group}/{name}" in file}

    identifier = text(file["identifier"][()]) if "identifier" in file else shown(recording)
    notes = [f"Fit {fit}. Derived from the NWB file with the identifier {identifier}."]
    written = texts("/", ("session_start_time", "timestamps_reference_time"))
    dates = {name: date for name, value in written.items() if (date := _date(value))}
    start = next(iter(dates.values()), datetime(1970, 1, 1, tzinfo=UTC))
    general = file.get("general", {})
    lists = {k: [text(v) for v in np.atleast_1d(general[k][()])] for k in _LISTS if k in general}
    subject: dict[str, Any] = texts("general/subject", (*_SUBJECT, "date_of_birth"))
    if "date_of_birth" in subject:
        written["date_of_birth"] = subject.pop("date_of_birth")
        if born := _date(written["date_of_birth"]):
            dates["date_of_birth"] = subject["date_of_birth"] = born
    notes += [f"Its {name} is {written[name]!r}, which is no date." for name in written if name not in dates]
    return NWBFile(
        session_description=f"Latents of the model {model} (colatent), from {Path(shown(recording)).name}.",
        identifier=f"{identifier}/colatent/{model}/{fit}",
        session_start_time=start,
        file_create_date=start,  # the same input gives the same file
        notes=" ".join(notes),
        subject=Subject(**subject) if subject else None,
        **texts("general", _TEXTS),
        **lists,
    )


def _date(written: str) -> datetime | None:
    """Return a date of the ISO 8601 kind, in UTC where it names no time zone; None for anything else."""
    try:
        date = datetime.fromisoformat(written.strip())
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _add_latents(nwbfile: Any, latents: xr.Dataset, flat: LatentSeries, model: str, fit: str) -> None:
    from hdmf.common import DynamicTable, VectorData
    from pynwb import TimeSeries

    names = [str(n) for n in latents["latent"].values]
    groups = [str(g) for g in latents["group"].values]
    given = latents.attrs.get("given", "")
    module = nwbfile.create_processing_module(
        MODULE, f"Posterior of the latents of {model}, {fit}, given {given}."
    )
    columns = f"of each latent; columns: {', '.join(names)}. Sign and order in a group have no meaning."
    mean = TimeSeries(
        name="posterior_mean",
        data=flat.mean,
        unit=UNIT,
        timestamps=flat.time,
        description=f"Posterior mean {columns}",
    )
    deviation = TimeSeries(
        name="posterior_sd",
        data=flat.deviation,
        unit=UNIT,
        timestamps=mean,
        description=f"Posterior standard deviation {columns}",
    )
    name = VectorData(name="latent", description="group and number", data=names)
    group = VectorData(name="group", description="modalities that the latent drives", data=groups)
    table = DynamicTable(name="latent_groups", description="Columns of the series.", columns=[name, group])
    for part in (mean, deviation, table):
        module.add(part)


def _add_trials(nwbfile: Any, session: Path, latents: xr.Dataset) -> None:
    trials = read_group(session, "trials")
    nwbfile.add_trial_column("role", "role of the trial in the fit: training, test (held out) or guard")
    if condition := "condition" in trials.coords:
        nwbfile.add_trial_column("condition", "condition of the trial")
    for i in np.argsort(trials["start"].values, kind="stable"):
        extra = {"condition": str(trials["condition"].values[i])} if condition else {}
        nwbfile.add_trial(
            start_time=float(trials["start"].values[i]),
            stop_time=float(trials["stop"].values[i]),
            role=str(ROLES[latents["role"].values[i]]),
            **extra,
        )
