"""One recording, from its file to trials on common bins."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.config import ModalitySettings
from colatent.config.location import is_url, shown
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.ingest.alignment import Windows, continuous_windows, trial_windows, without_invalid_times
from colatent.ingest.check import allows_external, check_source
from colatent.ingest.findings import Findings, check_overlap, in_words
from colatent.ingest.modalities.base import BinnedModality, ModalitySource, reader_of
from colatent.ingest.nwb.file import external_part, find, nwb_version, open_nwb, readable, text
from colatent.ingest.nwb.inspector import check_best_practice
from colatent.ingest.nwb.remote import identity as remote_identity
from colatent.ingest.signals.clocks import ALWAYS, NANOSECONDS
from colatent.ingest.signals.resample import SMALL_BLOCKS, Reading, onto_bins
from colatent.ingest.signals.series import open_series
from colatent.store.stores import file_sha256

_MOST_VALUES = 10**9  # of all modalities; 8 bytes each, and several times that during ingest
# A recording this many times as long as all its trials, or the reverse, is more likely in other units.
_OTHER_UNITS = 300.0


class Truth(NamedTuple):
    """The true latents of a simulation on the bins: values and observed are (trial, time, latent)."""

    values: NDArray[np.float64]
    observed: NDArray[np.bool_]
    names: tuple[str, ...]


@dataclass(frozen=True)
class IngestedSession:
    """A session on common bins, and how it got there.

    Attributes:
        trials: the observations.
        trial_table: one row per trial: `start`, `stop` (s), `condition`, and the file's own columns.
        time: bin centres relative to the alignment event (s), shape (time,).
        units_of: modality -> physical unit.
        truth: true latents of a simulation, or None.
        findings: what the checks found: check, severity, modality, channel, action, message, count.
        source: identity of the file.
        attrs: modality -> what was done to it.
    """

    trials: Trials
    trial_table: pd.DataFrame
    time: NDArray[np.float64]
    units_of: dict[str, str]
    truth: Truth | None
    findings: list[dict[str, Any]]
    source: dict[str, Any]
    attrs: dict[str, dict[str, Any]] = field(default_factory=dict)


def ingest_session(
    nwb: str | Path,
    alignment: Any,
    modalities: Mapping[str, ModalitySettings],
    checks: Mapping[str, str],
    truth: str | None = None,
    reading: Reading = SMALL_BLOCKS,
    progress: Callable[[str], None] = print,
) -> IngestedSession:
    """Read the modalities of a recording and put them on the bins of its trials.

    Args:
        nwb: the file, or a URL (text such as https://…), which is streamed.
        alignment: trials of a table, or windows of a continuous recording.
        modalities: name -> its section of the config.
        checks: check -> "refuse", "mask" or "warn", where not the default of `colatent.config.checks.CHECKS`.
        truth: path of a series with true latents, or None.
        reading: bounds of memory and threads.
        progress: receives a line about each step.

    Raises:
        InputError: the file cannot be read as the config asks, or a check set to `refuse` found something.
    """
    read = _stamp(nwb)
    used = check_source(nwb, alignment, modalities, truth, checks).paths
    findings = Findings(shown(nwb), checks)
    check_best_practice(nwb, findings, used, allows_external(checks))
    with readable(nwb), open_nwb(nwb, allow_external=allows_external(checks)) as file:
        if allows_external(checks) and (found := external_part(file)):
            findings.add("external-link", f"{found}, of which a change goes unnoticed")
        sources = {n: reader_of(m).open(file, n, m, findings, reading) for n, m in modalities.items()}
        windows, table, condition = _windows(file, alignment, sources, findings)
        windows = without_invalid_times(file, windows, findings)
        _require_room(file, sources, windows)
        progress(f"{windows.n_trials} trials of up to {windows.longest} bins of {alignment.bin_width} s")
        observations = {}
        for name, source in sources.items():
            _find_wrong_units(name, source, windows, findings)
            _find_unrecorded(name, source, windows, findings)
            observations[name] = source.observe(windows, findings)
            share = observations[name].observed.mean()
            if share == 0:
                raise InputError(
                    f"{findings.file}: {name}: no bin of any trial is observed: all its samples are missing, "
                    "or masked by a check; correct its source, or leave it out of `modalities`"
                )
            progress(f"{name}: {len(observations[name].channels)} channels, {share:.1%} of bins observed")
        check_overlap({n: o.observed for n, o in observations.items()}, findings)
        for line in in_words(findings.rows):
            progress(line)
        true_latents = None if truth is None else _read_truth(file, truth, windows, reading)
        identity = _identity(file, nwb)
        if _stamp(nwb) != read:
            raise InputError(
                f"{findings.file}: it was changed or replaced while it was read; run the same command again"
            )
    return IngestedSession(
        _trials(observations, modalities, alignment.bin_width, condition),
        table,
        windows.time,
        {name: o.unit for name, o in observations.items()},
        true_latents,
        findings.rows,
        identity,
        {name: o.attrs for name, o in observations.items()},
    )


def _windows(
    file: h5py.File, alignment: Any, sources: Mapping[str, ModalitySource], findings: Findings
) -> tuple[Windows, pd.DataFrame, NDArray[np.str_] | None]:
    if alignment.has_trials:
        return trial_windows(file, alignment, findings)
    common = max(s.extent[0] for s in sources.values()), min(s.extent[1] for s in sources.values())
    if common == ALWAYS:
        raise InputError(
            f"{file.filename}: {', '.join(sources)}: intervals do not say when the recording began and "
            "ended; add another modality, or cut trials from a table"
        )
    if common[0] >= common[1]:
        raise InputError(
            f"{file.filename}: the modalities {', '.join(sources)} were never recorded at the same time; "
            "check their clocks"
        )
    return (*continuous_windows(common, alignment), None)


def _require_room(file: h5py.File, sources: Mapping[str, ModalitySource], windows: Windows) -> None:
    channels = sum(len(s.channels) for s in sources.values())
    if (values := windows.n_trials * windows.longest * channels) > _MOST_VALUES:
        raise InputError(
            f"{file.filename}: {windows.n_trials} trials of up to {windows.longest} bins and {channels} "
            f"channels are {values:.2g} values, more than fit in memory; widen bin_width, shorten the "
            "trials, or select channels with `where` or `columns`"
        )


def _find_wrong_units(name: str, source: ModalitySource, windows: Windows, findings: Findings) -> None:
    """Find trials and a recording one of which is hundreds of times as long as the other."""
    if windows.n_trials < 2 or source.extent == ALWAYS:
        return
    recorded = (source.extent[1] - source.extent[0]) / NANOSECONDS
    trials = (windows.stops.max() - windows.starts.min()) / NANOSECONDS
    if max(recorded / trials, trials / recorded) > _OTHER_UNITS:
        findings.add(
            "time-units",
            f"it lasts {recorded:.3g} s and the trials together {trials:.3g} s: are the times of one of "
            "them in milliseconds or samples, where NWB has seconds?",
            name,
        )


def _find_unrecorded(name: str, source: ModalitySource, windows: Windows, findings: Findings) -> None:
    outside = (windows.starts >= source.extent[1]) | (windows.stops <= source.extent[0])
    if outside.any():
        begin, end = (edge / NANOSECONDS for edge in source.extent)
        findings.add(
            "outside-recording",
            f"{outside.sum()} of {windows.n_trials} trials lie outside its recording "
            f"({begin:g} to {end:g} s)",
            name,
            count=int(outside.sum()),
        )
    if outside.all():
        raise InputError(
            f"{findings.file}: {name}: no trial lies within its recording; check that the clocks agree"
        )


def _read_truth(file: h5py.File, path: str, windows: Windows, reading: Reading) -> Truth:
    series = open_series(find(file, path), None, 3.0)
    values, observed = onto_bins(series, windows, 3.0, reading)
    return Truth(values, observed, series.channels)


def _trials(
    observations: Mapping[str, BinnedModality],
    modalities: Mapping[str, ModalitySettings],
    bin_width: float,
    condition: NDArray[np.str_] | None,
) -> Trials:
    return Trials(
        values={n: o.values for n, o in observations.items()},
        observed={n: o.observed for n, o in observations.items()},
        channels={n: _not_pooled(o.channels) for n, o in observations.items()},
        kinds={n: modalities[n].record.values for n in observations},
        bin_width=bin_width,
        condition=condition,
    )


def _not_pooled(channels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the channel names, renaming any called "pooled", which tables of scores use themselves."""
    name = "pooled_"
    while name in channels:
        name += "_"
    return tuple(name if c == "pooled" else c for c in channels)


def _stamp(nwb: str | Path) -> tuple[int, ...]:
    """Return what differs once a file was replaced or written to; of a URL nothing."""
    if is_url(nwb) or not (path := Path(nwb)).is_file():
        return ()
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _identity(file: h5py.File, nwb: str | Path) -> dict[str, Any]:
    return {
        **(remote_identity(str(nwb)) if is_url(nwb) else _file_identity(Path(nwb))),
        "nwb_version": nwb_version(file),
        "session_id": text(file["general/session_id"][()]) if "general/session_id" in file else "",
        "identifier": text(file["identifier"][()]) if "identifier" in file else "",
    }


def _file_identity(path: Path) -> dict[str, Any]:
    return {"file": path.name, "size": path.stat().st_size, "sha256": file_sha256(path)}
