"""A config for a file that was looked at: everything usable in it, ready to paste and edit."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import yaml

from colatent.config.location import is_url
from colatent.errors import InputError
from colatent.ingest.alignment import trial_windows
from colatent.ingest.clocks import NANOSECONDS
from colatent.ingest.findings import Findings
from colatent.ingest.grid import on_regular_grid
from colatent.ingest.nwb import (
    find,
    find_all,
    same_object,
    wrong,
)
from colatent.ingest.series import keypoints, open_series
from colatent.ingest.spikes import open_spikes
from colatent.ingest.tables import column
from colatent.jobs.terminal import escaped

BIN_WIDTH = 0.02  # s, where no signal is slower
MOST_CHANNELS = 1000  # more are a film's pixels, not channels to model
RAW_RATE = 500.0  # Hz
_FOLDS = 5
_BINS_OF_TRIAL = 10
_WINDOWS = 25


@dataclass(frozen=True)
class Item:
    """One thing in a file that a modality could be made of; `problem` says why not.

    `extent` is when a series begins and ends (ns): to open thousands once more takes as long as to list them.
    """

    kind: str
    path: str
    shape: str = ""
    channels: int = 0
    rate: float = np.nan
    unit: str = ""
    gaps: int = 0
    missing: str = ""
    problem: str = ""
    extent: tuple[int, int] | None = None


def suggest_config(nwb: str | Path, file: h5py.File, items: Sequence[Item], tables: Iterable[str]) -> str:
    """Return a config as YAML that `colatent check` accepts, with comments on what it needs.

    Args:
        nwb: place of the file.
        file: the open file.
        items: what lies in it.
        tables: paths of its tables of intervals.
    """
    usable = _without_links(file, [i for i in items if not i.problem and not _unusable(i)])
    usable = _with_globs(file, usable)
    if not usable:
        return "# nothing in this file can be made a modality\n"
    slowest = min((i.rate for i in usable if i.kind != "spikes"), default=1 / BIN_WIDTH)
    bin_width = max(BIN_WIDTH, _rounded(1 / slowest))
    modalities: dict[str, Any] = {}
    channels: dict[str, int] = {}
    for item in usable:
        name = _modality_name(item.path, modalities)
        modalities[name] = {"kind": item.kind, "source": item.path}
        channels[name] = item.channels
        if _is_raw_emg(file, item):
            modalities[name]["envelope"] = {"highpass": 40.0, "lowpass": 10.0}
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
        "Save as config.yaml, remove what is not to be analysed, and write beside it a file sessions.tsv",
        "of two lines, their two values separated by a tab:",
        "  session\tnwb",
        f"  my_recording\t{where}",
        *reasons,
    ]
    tab = "\t"  # parts the values of the table
    return "".join(f"# {tab.join(map(escaped, line.split(tab)))}\n" for line in lines)


def _is_raw_emg(file: h5py.File, item: Item) -> bool:
    """Whether a series is called EMG, is too fast for an envelope, and has the clock that one needs."""
    if item.kind != "continuous" or item.rate < RAW_RATE or not re.search("emg|muscle", item.path, re.I):
        return False
    return all(
        on_regular_grid(open_series(node, None, 3.0)) is not None for node in find_all(file, item.path)
    )


def _unusable(item: Item) -> str:
    if item.channels > MOST_CHANNELS:
        return f"which has {item.channels} channels"
    return "of which no sample is there" if item.missing.startswith("100.0%") else ""


def _without_links(file: h5py.File, items: Iterable[Item]) -> list[Item]:
    """Leave out what is there a second time under another path."""
    once: dict[tuple[int, int], Item] = {}
    for item in items:
        once.setdefault(same_object(find(file, item.path)), item)
    return list(once.values())


def _with_globs(file: h5py.File, items: list[Item]) -> list[Item]:
    """Make one item of series that hold a channel each and differ in a number, such as a cell's."""
    alike: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        single = item.kind == "continuous" and item.channels == 1 and not set("*?[") & set(item.path)
        parent, _, name = item.path.rpartition("/")
        pattern = f"{parent}/{re.sub(r'[0-9]+', '*', name)}" if single else item.path
        alike.setdefault((pattern, item.unit if single else ""), []).append(item)
    found = []
    for (pattern, _), same in alike.items():
        whole = len(same) > 1 and {str(n.name).strip("/") for n in find_all(file, pattern)} == {
            i.path for i in same
        }
        found += [_joined(pattern, same)] if whole else same
    return found


def _joined(pattern: str, items: Sequence[Item]) -> Item:
    extents = [i.extent for i in items if i.extent is not None]
    common = max(e[0] for e in extents), min(e[1] for e in extents)
    rate = min(i.rate for i in items)
    return replace(items[0], path=pattern, channels=len(items), rate=rate, extent=common)


def _trials(
    file: h5py.File, tables: Iterable[str], bin_width: float
) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the alignment to the first table that makes trials, and why those before it do not.

    The table `trials` comes first, then the longest.
    """
    size = {path: int(find(file, path)["id"].shape[0]) for path in tables}
    reasons = []
    for path in sorted(size, key=lambda p: (p != "intervals/trials", -size[p])):
        section = {"intervals": path, "start": "start_time", "stop": "stop_time", "bin_width": bin_width}
        try:
            section["bin_width"] = min(bin_width, _rounded(_duration(file, path) / _BINS_OF_TRIAL))
            asked = SimpleNamespace(**section, window=None, pad=(0.0, 0.0), condition=None, where=None)
            windows = trial_windows(file, asked, Findings(file.filename))[0]
        except InputError as error:  # overlaps, or no times
            reasons.append(f"Not used as trials: {str(error).removeprefix(f'{file.filename}: ')}")
            continue
        if windows.n_trials >= _FOLDS:
            return section, reasons
        reasons.append(f"Not used as trials: {path}, which has {windows.n_trials}")
    return None, reasons


def _duration(file: h5py.File, path: str) -> float:
    """Median duration (s) of the intervals of a table."""
    table = find(file, path)
    begin, end = column(table, "start_time"), column(table, "stop_time")
    if {begin.dtype.kind, end.dtype.kind} - set("iuf") or begin.ndim != 1 or begin.shape != end.shape:
        raise wrong(table, "its start_time and stop_time are no lists of times", "repair the table")
    lengths = end[:] - begin[:]
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    if lengths.size == 0:
        raise wrong(table, "none of its intervals lasts", "align to it with a `window`")
    return float(np.median(lengths))


def _continuous(file: h5py.File, items: Iterable[Item], bin_width: float) -> dict[str, Any]:
    """Return windows of about a 25th of the time that all have in common, 100 bins at most."""
    extents = [extent for item in items for extent in _extents(file, item)]
    common = (min(e[1] for e in extents) - max(e[0] for e in extents)) / NANOSECONDS
    bins = int(min(max(common / (1.1 * _WINDOWS) / bin_width, 1), 100))
    gap = max(bins // 10, 1)
    return {
        "window": _rounded(bins * bin_width),
        "gap": _rounded(gap * bin_width),
        "bin_width": bin_width,
    }


def _extents(file: h5py.File, item: Item) -> list[tuple[int, int]]:
    if item.extent is not None:
        return [item.extent]
    if item.kind == "pose":
        nodes = keypoints(find(file, item.path), None)
        return [open_series(node, None, 3.0).clock.extent for node in nodes]
    every = SimpleNamespace(source=item.path, where=None, min_rate=0.0)
    return [open_spikes(file, "spikes", every, Findings(file.filename)).extent]


def _rounded(value: float) -> float:
    """Three digits, upwards: a bin is no shorter than the step between samples."""
    scale = 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(f"{np.ceil(value / scale - 1e-6) * scale:.3g}")


def _modality_name(path: str, taken: Mapping[str, Any]) -> str:
    name = re.sub(r"\W+", "_", path.rsplit("/", 1)[-1], flags=re.ASCII).strip("_")
    name = name if name[:1].isalpha() else f"m_{name}"
    return name if name not in taken else f"{name}_{len(taken)}"
