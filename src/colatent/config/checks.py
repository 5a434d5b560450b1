"""The checks at ingest: what each finds, and what is done about it unless the config says otherwise."""

from typing import Literal, NamedTuple

Action = Literal["refuse", "mask", "warn"]


class Check(NamedTuple):
    """The record of a check.

    Attributes:
        default: the action if the config names none.
        finds: what it looks for, and what `mask` does.
        maskable: whether the action can be `mask`.
    """

    default: Action
    finds: str
    maskable: bool = True


CHECKS: dict[str, Check] = {
    "external-link": Check(
        "refuse",
        "parts of the file that lie in other files; `warn` follows them, and their changes go unnoticed",
        maskable=False,
    ),
    "inspector": Check("refuse", "nwbinspector's CRITICAL findings about the data", maskable=False),
    "best-practice": Check("warn", "everything else that nwbinspector finds", maskable=False),
    "trial-times": Check("warn", "trials without a time or shorter than a bin; they are left out"),
    "event-times": Check(
        "mask",
        "trials aligned to a time outside their own row's start_time to stop_time, or before zero where the "
        "table has none, such as -1 or 999999 where there was no event; `mask` leaves them out",
    ),
    "invalid-times": Check("mask", "bins in times that the file's intervals/invalid_times leaves out"),
    "no-condition": Check("warn", "trials without a condition, where one is asked for; they are left out"),
    "trial-overlap": Check("refuse", "trials whose windows share data", maskable=False),
    "time-units": Check(
        "refuse",
        "a recording 300 times as long as its trials together, or the reverse, as with milliseconds",
        maskable=False,
    ),
    "outside-recording": Check("mask", "trials in which a modality was not recorded"),
    "modality-overlap": Check("warn", "modalities seldom observed in the same bins", maskable=False),
    "timestamps": Check(
        "refuse", "samples whose time is not finite or not later than those before; `mask` drops them"
    ),
    "clock-gaps": Check("mask", "gaps in a series' clock; bins in them are not observed"),
    "missing-samples": Check("mask", "bins within trials in which a channel has no finite sample"),
    "missing-channel": Check("mask", "channels never observed in any trial"),
    "constant-channel": Check("warn", "continuous channels that never change; `mask` hides them"),
    "saturated-channel": Check("warn", "channels that sit at their extreme value; `mask` hides those bins"),
    "artefact": Check("warn", "bins far outside a channel's range (robust z-score); `mask` hides them"),
    "no-spikes": Check("warn", "units that never fire in the trials; `mask` hides them"),
    "synchronous-spikes": Check(
        "mask",
        "bins in which 90 % of at least 20 units fire, and a quarter more of them than in 99 % of the bins, "
        "as with electrical artefacts",
    ),
    "unsorted-spikes": Check("warn", "units whose spike times are not in order; they are sorted"),
    "duplicate-spikes": Check("warn", "spikes at the same nanosecond; `mask` counts them once"),
    "spike-times": Check(
        "mask",
        "spike times that are not finite (always dropped), negative (`mask` drops them and hides bins "
        "before zero), or far from all others, as placeholders are (`mask` does not count them in the "
        "recording's extent)",
    ),
}


def refuse_unknown(actions: dict[str, Action]) -> dict[str, Action]:
    """Return the actions of a config, or raise ValueError: no such check, or nothing to mask."""
    for name, action in actions.items():
        if name not in CHECKS:
            raise ValueError(f"there is no check {name!r}; there are: {', '.join(CHECKS)}")
        if action == "mask" and not CHECKS[name].maskable:
            raise ValueError(f"{name}: there is nothing to mask; choose refuse or warn")
    return actions
