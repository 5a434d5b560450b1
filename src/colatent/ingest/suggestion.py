"""A config suggested for a file: everything usable in it, ready to paste and edit."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml
from pydantic import ValidationError

from colatent.config import ModalitySettings, TrialAlignment
from colatent.config.location import is_url
from colatent.errors import InputError
from colatent.ingest.alignment import INVALID_TIMES, trial_windows
from colatent.ingest.findings import Findings
from colatent.ingest.modalities.base import Candidate, reader_of
from colatent.ingest.nwb.file import find, find_all, same_object, wrong
from colatent.ingest.nwb.tables import column
from colatent.ingest.signals.clocks import NANOSECONDS
from colatent.jobs.terminal import escaped

BIN_WIDTH = 0.02  # s, where no signal is slower
MOST_CHANNELS = 1000  # more are the pixels of a film, not channels to model
_FOLDS = 5
_BINS_OF_TRIAL = 10
_WINDOWS = 25


def suggest_config(
    nwb: str | Path, file: h5py.File, items: Sequence[Candidate], tables: Iterable[str]
) -> str:
    """Return a config as YAML that `colatent check` accepts, with comments on what it needs.

    Args:
        nwb: path or URL of the file.
        file: the open file.
        items: candidates for modalities in it.
        tables: paths of its tables of intervals.
    """
    usable = _without_links(file, [i for i in items if not i.problem and not _unusable(i)])
    usable = _with_globs(file, usable)
    if not usable:
        return "# nothing in this file can be used as a modality\n"
    slowest = min((i.rate for i in usable if not np.isnan(i.rate)), default=1 / BIN_WIDTH)
    bin_width = max(BIN_WIDTH, _rounded(1 / slowest))
    modalities: dict[str, Any] = {}
    channels: dict[str, int] = {}
    for item in usable:
        name = _modality_name(item.path, modalities)
        modalities[name] = item.settings.model_dump(mode="json", exclude_unset=True)
        channels[name] = item.channels
    alignment, reasons = _trials(file, tables, bin_width)
    models: dict[str, Any] = {"condition_mean": {"kind": "condition-mean"}}
    name, most = max(channels.items(), key=lambda pair: min(pair[1], 3))
    models["gpfa"] = {"kind": "gpfa", "latents": {name: min(most, 3)}}
    reasons += [f"Left out: {i.path}, {why}" for i in items if (why := _unusable(i))]
    sections = {
        "sessions": "sessions.tsv",
        "results": "results/my_recording",
        "alignment": alignment or _continuous(file, usable, bin_width),
        "modalities": modalities,
        "models": models,
        "heldout": {"folds": _FOLDS},
    }
    return _comments(nwb, reasons) + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)


def _comments(nwb: str | Path, reasons: Sequence[str]) -> str:
    where = nwb if is_url(nwb) else Path(nwb).resolve()  # paths in the table are relative to the table
    lines = [
        "Save as config.yaml and remove what you do not analyse. In the folder where you run snakemake,",
        "write a file sessions.tsv of two lines, with a tab between the two values of each:",
        "  session\tnwb",
        f"  my_recording\t{where}",
        *reasons,
    ]
    tab = "\t"  # separates the values of the table
    return "".join(f"# {tab.join(map(escaped, line.split(tab)))}\n" for line in lines)


def _unusable(item: Candidate) -> str:
    if item.channels > MOST_CHANNELS:
        return f"which has {item.channels} channels"
    return "which has no samples" if item.missing.startswith("100.0%") else ""


def _without_links(file: h5py.File, items: Iterable[Candidate]) -> list[Candidate]:
    """Leave out objects already listed under another path."""
    once: dict[tuple[int, int], Candidate] = {}
    for item in items:
        once.setdefault(same_object(find(file, item.path)), item)
    return list(once.values())


def _with_globs(file: h5py.File, items: list[Candidate]) -> list[Candidate]:
    """Join single-channel series whose names differ only in a number, such as one per cell."""
    alike: dict[Any, list[Candidate]] = {}
    for item in items:
        alike.setdefault((_glob(item), item.unit) if item.joins else item.path, []).append(item)
    found = []
    for same in alike.values():
        pattern = _glob(same[0]).source
        whole = len(same) > 1 and {str(n.name).strip("/") for n in find_all(file, pattern)} == {
            i.path for i in same
        }
        found += [_joined(same)] if whole else same
    return found


def _glob(item: Candidate) -> ModalitySettings:
    """Return the settings of a series with the numbers in its name replaced by ``*``."""
    parent, _, name = item.path.rpartition("/")
    return item.settings.model_copy(update={"source": f"{parent}/{re.sub('[0-9]+', '*', name)}"})


def _joined(items: Sequence[Candidate]) -> Candidate:
    extents = [i.extent for i in items if i.extent is not None]
    common = max(e[0] for e in extents), min(e[1] for e in extents)
    rate = min(i.rate for i in items)
    return replace(items[0], settings=_glob(items[0]), channels=len(items), rate=rate, extent=common)


def _trials(
    file: h5py.File, tables: Iterable[str], bin_width: float
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the alignment to the first table that yields trials, and why earlier ones do not.

    The table `trials` comes first, then the longest.
    """
    size = {path: int(find(file, path)["id"].shape[0]) for path in tables if path != INVALID_TIMES}
    reasons = []
    for path in sorted(size, key=lambda p: (p != "intervals/trials", -size[p])):
        section = {"intervals": path, "start": "start_time", "stop": "stop_time", "bin_width": bin_width}
        try:
            section["bin_width"] = min(bin_width, _rounded(_duration(file, path) / _BINS_OF_TRIAL))
            windows = trial_windows(file, TrialAlignment(**section), Findings(file.filename))[0]
        except ValidationError:
            reasons.append(f"Not used as trials: {path}, whose bins would be {section['bin_width']} s wide")
            continue
        except InputError as error:  # overlaps, or no times
            reasons.append(f"Not used as trials: {str(error).removeprefix(f'{file.filename}: ')}")
            continue
        if windows.n_trials >= _FOLDS:
            return section, reasons
        reasons.append(f"Not used as trials: {path}, which has only {windows.n_trials} usable rows")
    return None, reasons


def _duration(file: h5py.File, path: str) -> float:
    """Median duration (s) of the intervals of a table."""
    table = find(file, path)
    begin, end = column(table, "start_time"), column(table, "stop_time")
    if {begin.dtype.kind, end.dtype.kind} - set("iuf") or begin.ndim != 1 or begin.shape != end.shape:
        raise wrong(table, "its start_time and stop_time are not lists of times", "repair the table")
    lengths = end[:] - begin[:]
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    if lengths.size == 0:
        raise wrong(table, "all of its intervals have zero length", "align to it with a `window`")
    return float(np.median(lengths))


def _continuous(file: h5py.File, items: Iterable[Candidate], bin_width: float) -> dict[str, Any]:
    """Return windows of about a 25th of the time that all items have in common, at most 100 bins."""
    extents = [_extent(file, item) for item in items]
    common = (min(e[1] for e in extents) - max(e[0] for e in extents)) / NANOSECONDS
    bins = int(min(max(common / (1.1 * _WINDOWS) / bin_width, 1), 100))
    gap = max(bins // 10, 1)
    return {
        "window": _rounded(bins * bin_width),
        "gap": _rounded(gap * bin_width),
        "bin_width": bin_width,
    }


def _extent(file: h5py.File, item: Candidate) -> tuple[int, int]:
    if item.extent is not None:
        return item.extent
    from colatent.ingest.signals.resample import SMALL_BLOCKS

    source = reader_of(item.settings).open(file, "", item.settings, Findings(file.filename), SMALL_BLOCKS)
    return source.extent


def _rounded(value: float) -> float:
    """Round up to three digits, so that a bin is never shorter than the step between samples."""
    scale = 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(f"{np.ceil(value / scale - 1e-6) * scale:.3g}")


def _modality_name(path: str, taken: Mapping[str, Any]) -> str:
    name = re.sub(r"\W+", "_", path.rsplit("/", 1)[-1], flags=re.ASCII).strip("_")
    name = name if name[:1].isalpha() else f"m_{name}"
    return name if name not in taken else f"{name}_{len(taken)}"
