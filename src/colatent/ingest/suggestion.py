"""A config suggested for a file: everything usable in it, ready to paste and edit."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import yaml
from pydantic import ValidationError

from colatent.config import ModalitySettings, TrialAlignment
from colatent.config.location import is_url, shown
from colatent.errors import InputError
from colatent.ingest.alignment import INVALID_TIMES, labels, trial_windows
from colatent.ingest.findings import Findings
from colatent.ingest.modalities.base import Candidate, reader_of
from colatent.ingest.nwb.file import find, find_all, same_object, wrong
from colatent.ingest.nwb.tables import column
from colatent.ingest.signals.clocks import NANOSECONDS
from colatent.jobs.terminal import escaped
from colatent.store.layout import RESERVED

BIN_WIDTH = 0.02  # s, where no signal is slower
MOST_CHANNELS = 1000  # more are the pixels of a film, not channels to model
_WIDEST_BIN = 1.0  # s: what is slower is interpolated
_FOLDS = 5
_BINS_OF_TRIAL = 10
_WINDOWS = 25
_LATENTS = 3  # of a group
_MANY_UNITS = 8
# A column of trials is taken for their condition if it has so many values, each in at least so many trials;
# of several, the first that holds one of these words, else the first.
_MOST_CONDITIONS, _FEWEST_TRIALS = 20, 5
_TIMES = ("start", "stop", "start_time", "stop_time", "id")
_CONDITION = re.compile("condition|target|direction|stim|cue|type|side|choice|orientation", re.I)


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
    bin_width = max(BIN_WIDTH, min(_rounded(1 / slowest), _WIDEST_BIN))
    named: dict[str, Candidate] = {}
    for item in usable:
        named[_modality_name(item, named)] = item
    alignment, reasons = _trials(file, tables, bin_width)
    reasons += [f"Left out: {i.path}, {why}" for i in items if (why := _unusable(i))]
    session = _session_name(nwb)
    sections = {
        "sessions": "sessions.tsv",
        "results": f"results/{session}",
        "alignment": alignment or _continuous(file, usable, bin_width),
        "modalities": {n: i.settings.model_dump(mode="json", exclude_unset=True) for n, i in named.items()},
        "models": _models(named),
        "heldout": _heldout(named, (alignment or {}).get("condition")),
    }
    text = yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)
    return _comments(nwb, session, reasons) + text


def _models(named: Mapping[str, Candidate]) -> dict[str, Any]:
    """Return models worth a first look: of two modalities, if there are, else of the one with most channels.

    The two are that of spikes, if there is one, and the other with most channels.
    """
    models: dict[str, Any] = {"condition_mean": {"kind": "condition-mean"}}
    first, *others = sorted(named, key=lambda n: (named[n].kind != "spikes", -named[n].channels))
    if not others:
        models["gpfa"] = {"kind": "gpfa", "latents": {first: min(named[first].channels, _LATENTS)}}
        return models
    two = (first, others[0])
    size = {name: max(min(named[name].channels // 3, _LATENTS), 1) for name in two}
    latents = {"+".join(two): min(size.values()), **size}
    models["ridge"] = {"kind": "ridge-lags"}
    models["multimodal_gpfa"] = {"kind": "gpfa", "latents": latents}
    models["mmgpvae"] = {"kind": "mm-gpvae", "latents": dict(latents)}
    return models


def _heldout(named: Mapping[str, Candidate], condition: str | None) -> dict[str, Any]:
    """Return what is held out: trials and, of many units, a quarter."""
    stratify = {"stratify": "condition"} if condition else {}
    many = {n: 0.25 for n, i in named.items() if i.kind == "spikes" and i.channels >= _MANY_UNITS}
    return {"folds": _FOLDS, **stratify, **({"channels": many} if many else {})}


def _comments(nwb: str | Path, session: str, reasons: Sequence[str]) -> str:
    where = nwb if is_url(nwb) else Path(nwb).resolve()  # paths in the table are relative to the table
    lines = [
        "Save as config.yaml and remove what you do not analyse. In the folder where you run snakemake,",
        "write a file sessions.tsv of two lines, with a tab between the two values of each:",
        "  session\tnwb",
        f"  {session}\t{str(where).replace('$', '$$')}",
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
        found += [_joined(same)] if whole and _overlap(same) else same
    return found


def _overlap(items: Sequence[Candidate]) -> bool:
    """Whether series were recorded at the same time, not one after the other as sweeps are."""
    begin, end = _common(i.extent for i in items if i.extent is not None)
    return begin < end


def _common(extents: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return begin and end of what several extents have in common; where nothing is, the end is first."""
    begins, ends = zip(*extents, strict=True)
    return max(begins), min(ends)


def _glob(item: Candidate) -> ModalitySettings:
    """Return the settings of a series with the numbers in its name replaced by ``*``."""
    parent, _, name = item.path.rpartition("/")
    return item.settings.model_copy(update={"source": f"{parent}/{re.sub('[0-9]+', '*', name)}"})


def _joined(items: Sequence[Candidate]) -> Candidate:
    common = _common(i.extent for i in items if i.extent is not None)
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
            windows, table, _ = trial_windows(file, TrialAlignment(**section), Findings(file.filename))
        except ValidationError:
            reasons.append(f"Not used as trials: {path}, whose bins would be {section['bin_width']} s wide")
            continue
        except InputError as error:  # overlaps, or no times
            reasons.append(f"Not used as trials: {str(error).removeprefix(f'{file.filename}: ')}")
            continue
        if windows.n_trials >= _FOLDS:
            condition = _condition(table)
            return section | ({"condition": condition} if condition else {}), reasons
        reasons.append(f"Not used as trials: {path}, which has only {windows.n_trials} usable rows")
    return None, reasons


def _condition(table: pd.DataFrame) -> str | None:
    """Return the column that is most likely the trials' condition, if there is one."""
    likely = []
    for name in map(str, table.columns):
        of_each = pd.Series(labels(table[name])).replace("", np.nan).value_counts()
        if name not in _TIMES and 2 <= len(of_each) <= _MOST_CONDITIONS and of_each.min() >= _FEWEST_TRIALS:
            likely.append(name)
    return next((name for name in likely if _CONDITION.search(name)), likely[0] if likely else None)


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
    begin, end = _common(_extent(file, item) for item in items)
    duration = (end - begin) / NANOSECONDS
    bins = int(min(max(duration / (1.1 * _WINDOWS) / bin_width, 1), 100))
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


def _modality_name(item: Candidate, taken: Mapping[str, Any]) -> str:
    name = _name("spikes" if item.path == "units" else item.path.rpartition("/")[2], "m")
    return name if name not in taken else f"{name}_{len(taken)}"


def _session_name(nwb: str | Path) -> str:
    """Return a name for the session from its file's."""
    name = _name(Path(shown(nwb)).stem, "session")[:60]
    return name if name.lower() not in RESERVED else f"session_{name}"


def _name(text: str, prefix: str) -> str:
    """Return text as a name of the config: letters, digits and underscores, a letter first."""
    name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_")
    return name if name[:1].isalpha() else f"{prefix}_{name}".rstrip("_")
