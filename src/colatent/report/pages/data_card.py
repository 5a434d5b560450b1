"""The data card: what a session is made of, in rows for the page."""

from typing import Any

import numpy as np

from colatent.models.methods import count
from colatent.report.session_results import Modality, SessionResults

Rows = list[tuple[str, str]]


def source_rows(results: SessionResults) -> Rows:
    """Return label and text of what identifies the recording."""
    source: dict[str, Any] = results.attrs.get("source", {})
    size = source.get("size")
    rows = [
        ("File", str(source.get("file", "unknown"))),
        ("Size", f"{size / 1e6:,.1f} MB" if size else ""),
        ("SHA-256", str(source.get("sha256") or "")),
        ("Not hashed", str(source.get("not_hashed", ""))),
        ("ETag", str(source.get("etag", ""))),
        ("Last modified", str(source.get("last_modified", ""))),
        ("NWB version", str(source.get("nwb_version", ""))),
        ("Identifier", str(source.get("identifier", ""))),
        ("Session", str(source.get("session_id", ""))),
        ("Description", str(source.get("session_description", ""))),
    ]
    return [(label, text) for label, text in rows if text]


def trial_rows(results: SessionResults) -> Rows:
    """Return label and text of the trials (or windows) and their split."""
    word, role = results.words.trial, results.role
    start, stop = (results.trials[k].values if k in results.trials else None for k in ("start", "stop"))
    rows = [(f"{word.capitalize()}s", f"{role.shape[1]:,}")]
    if start is not None and stop is not None:
        length = stop - start
        text = f"{np.median(length):.3g} s"
        if np.ptp(length) > 1e-6:
            text += f" (median; {length.min():.3g} to {length.max():.3g} s)"
        rows.append(("Duration", text))
    rows.append(("Bin width", f"{1e3 * float(results.attrs['bin_width']):g} ms"))
    rows.append(("Conditions", _conditions(results)))
    return rows + _split_rows(results)


def _conditions(results: SessionResults) -> str:
    if results.condition is None:
        return "none"
    names, n = np.unique(results.condition, return_counts=True)
    shown = ", ".join(f"{name} ({k})" for name, k in list(zip(names, n, strict=True))[:12])
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return f"{len(names)}: {shown}{rest}"


def _split_rows(results: SessionResults) -> Rows:
    heldout, role, word = results.config.heldout, results.role, results.words.trial
    test = (role == 1).sum(axis=1)
    sizes = f"{test.min()}" if np.ptp(test) == 0 else f"{test.min()} to {test.max()}"
    kind = "contiguous blocks" if results.continuous else "shuffled"
    kind += ", stratified by condition" if heldout.stratify else ""
    rows = [("Folds", f"{len(role)} ({kind}); {sizes} test {word}s each")]
    guard = (role == 2).sum(axis=1)
    if guard.any():
        rows.append(("Guard", f"{guard.min()} to {guard.max()} {word}s per fold, beside the test block"))
    for name, hidden in results.hidden.items():
        n = hidden.sum(axis=2)
        text = f"{n.min()} of {hidden.shape[2]} channels of {name}, redrawn for each seed and fold"
        rows.append(("Hidden channels", text))
    if heldout.time is not None:
        rows.append(("Forward prediction", f"of the last {100 * heldout.time:g} % of each test {word}"))
    rows.append(("Seeds", ", ".join(map(str, heldout.seeds))))
    return rows


def modality_rows(results: SessionResults) -> list[dict[str, str]]:
    """Return one row of texts per modality."""
    width = float(results.attrs["bin_width"])
    return [
        {
            "name": m.name,
            "kind": m.kind,
            "channels": f"{len(m.channels):,}",
            "unit": "spikes per bin" if m.counts else m.unit or "not given",
            "observed": f"{100 * m.observed.mean():.1f} %",
            "level": _level(m, width),
            "processing": _processing(m),
        }
        for m in results.modalities.values()
    ]


def _level(modality: Modality, width: float) -> str:
    """Return the rates of units, or the range of the channels' standard deviations."""
    n = np.maximum(modality.observed.sum(axis=(0, 1)), 1)
    mean = np.where(modality.observed, modality.value, 0).sum(axis=(0, 1)) / n
    if modality.counts:
        rate = mean / width
        return f"rate {np.median(rate):.3g} Hz (median; {rate.min():.2g} to {rate.max():.3g})"
    square = np.where(modality.observed, (modality.value - mean) ** 2, 0).sum(axis=(0, 1)) / n
    deviation = np.sqrt(square)
    return f"s.d. {np.median(deviation):.3g} (median; {deviation.min():.2g} to {deviation.max():.3g})"


def _processing(modality: Modality) -> str:
    parts = [f"{k.replace('_', ' ')}: {_plain(v)}" for k, v in sorted(modality.attrs.items())]
    return "; ".join(p for p in parts if not p.endswith(": "))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple, np.ndarray)):
        texts = list(dict.fromkeys(_plain(v) for v in value))
        rest = f" and {len(texts) - 2} more" if len(texts) > 2 else ""
        return " / ".join(texts[:2]) + rest
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def finding_rows(results: SessionResults) -> list[dict[str, str]]:
    """Return what the checks at ingest found, most severe first."""
    severity = {"critical": 0, "warning": 1}
    rows = [
        {k: "" if v is None else str(v) for k, v in finding.items()}
        for finding in results.attrs.get("findings", [])
    ]
    return sorted(rows, key=lambda r: severity.get(r.get("severity", ""), 2))


def duration_rows(results: SessionResults) -> list[dict[str, str]]:
    """Return how long the fits of each model took, and where."""
    rows = []
    for model in results.config.models:
        fits = [f for f in results.fits if f.model == model]
        volatile = [f.attrs.get("volatile", {}) for f in fits]
        seconds = np.array([v["duration_s"] for v in volatile if "duration_s" in v], dtype=float)
        devices = sorted({str(f.attrs.get("device", "cpu")) for f in fits})
        rows.append(
            {
                "model": model,
                "fits": count(len(fits), "fit"),
                "duration": (
                    f"{seconds.mean():.1f} s (longest {seconds.max():.1f} s)" if len(seconds) else "–"
                ),
                "device": ", ".join(devices),
            }
        )
    return rows
