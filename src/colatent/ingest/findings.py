"""What is doubtful in a recording, and what is done about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colatent.config.checks import CHECKS
from colatent.errors import InputError

ARTEFACT_Z = 20.0
SATURATED_SHARE = 0.05
_SEVERITY = {"refuse": "critical", "mask": "warning", "warn": "warning"}


@dataclass
class Findings:
    """Collects what the checks find; a check set to `refuse` raises at once.

    Attributes:
        file: the recording, named in errors.
        actions: check -> "refuse", "mask" or "warn", where not the default.
        rows: one dictionary per finding.
    """

    file: str
    actions: Mapping[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def action(self, check: str) -> str:
        return self.actions.get(check, CHECKS[check].default)

    def add(
        self,
        check: str,
        message: str,
        modality: str | None = None,
        channel: str | None = None,
        count: int = 1,
    ) -> bool:
        """Record a finding and return whether the data in question are to be masked.

        Raises:
            InputError: the check's action is `refuse`.
        """
        action = self.action(check)
        where = "".join(f"{part}: " for part in (modality, channel) if part)
        if action == "refuse":
            raise InputError(
                f"{self.file}: {where}{message}; to continue anyway, set `checks: {{{check}: warn}}`"
            )
        self.rows.append(
            {
                "check": check,
                "severity": _SEVERITY[action],
                "modality": modality,
                "channel": channel,
                "action": action,
                "message": message,
                "count": count,
            }
        )
        return action == "mask"


def in_words(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for each check and modality that found something in the data, with its first finding."""
    same: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["check"] != "best-practice":  # about metadata, of which every file has some
            same.setdefault((row["check"], row["modality"] or ""), []).append(row)
    lines = []
    for (check, modality), (first, *others) in same.items():
        where = ": ".join(part for part in (modality, first["channel"]) if part)
        more = f"; {len(others)} more alike" if others else ""
        lines.append(f"{check} ({first['action']}): {where + ': ' if where else ''}{first['message']}{more}")
    return lines


def check_continuous(
    modality: str,
    channels: tuple[str, ...],
    values: NDArray[np.float64],
    observed: NDArray[np.bool_],
    findings: Findings,
) -> NDArray[np.bool_]:
    """Check each channel of a binned series.

    Args:
        modality, channels: names for the findings.
        values, observed: (trial, time, channel).
        findings: collects missing and constant channels, saturation, artefacts.

    Returns:
        The observed mask without what the checks mask, (trial, time, channel).
    """
    kept = observed.copy()
    for index, channel in enumerate(channels):
        seen = observed[..., index]
        value = values[..., index][seen]
        if value.size == 0:
            findings.add("missing-channel", "no bin of any trial is observed", modality, channel)
        elif np.ptp(value) == 0:
            if findings.add("constant-channel", f"every bin is {value[0]:g}", modality, channel):
                kept[..., index] = False
        else:
            bad = _doubtful(modality, channel, values[..., index], seen, findings)
            kept[..., index] &= ~bad
    return kept


def _doubtful(
    modality: str, channel: str, value: NDArray, seen: NDArray[np.bool_], findings: Findings
) -> NDArray[np.bool_]:
    """Bins of one channel to mask: at the extreme value too often, or far from the median."""
    bad = np.zeros_like(seen)
    sample = value[seen]
    for extreme in (sample.min(), sample.max()):
        at = seen & (value == extreme)
        # A floor is natural for rectified and thresholded signals: zero is not saturation.
        if extreme != 0 and at.sum() > SATURATED_SHARE * seen.sum():
            share = at.sum() / seen.sum()
            message = f"{share:.1%} of the bins are at the extreme value {extreme:g}"
            if findings.add("saturated-channel", message, modality, channel, int(at.sum())):
                bad |= at
    far = seen & (np.abs(robust_z(value, seen)) > ARTEFACT_Z)
    if far.any():
        message = f"{far.sum()} bins lie more than {ARTEFACT_Z:g} robust standard deviations from the median"
        if findings.add("artefact", message, modality, channel, int(far.sum())):
            bad |= far
    return bad


def robust_z(value: NDArray, seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return (x - median) / spread over the seen entries; zero where the spread is zero.

    The spread is 1.4826 times the median absolute deviation or, if larger, the range from the 5th to
    the 95th percentile over 3.29: both are the standard deviation of a Gaussian. The MAD alone would
    call every burst of a muscle at rest most of the time an artefact.
    """
    median, low, high = np.percentile(value[seen], [50, 5, 95])
    spread = max(1.4826 * np.median(np.abs(value[seen] - median)), (high - low) / 3.29)
    return (value - median) / spread if spread > 0 else np.zeros_like(value)


def check_overlap(observed: Mapping[str, NDArray[np.bool_]], findings: Findings) -> None:
    """Find pairs of modalities that are observed together in fewer than half of the bins of either."""
    anywhere = {name: mask.any(axis=-1) for name, mask in observed.items()}
    names = list(anywhere)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = int((anywhere[first] & anywhere[second]).sum())
            fewer = min(int(anywhere[first].sum()), int(anywhere[second].sum()))
            if both < fewer / 2:
                findings.add(
                    "modality-overlap",
                    f"observed together with {second} in {both} of {fewer} bins",
                    first,
                    count=both,
                )
