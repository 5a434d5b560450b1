"""How figures look."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

# Paul Tol's "muted" scheme: nine hues that stay apart for colour-blind readers
CONDITION_COLOURS = (
    "#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#999933", "#44AA99", "#DDCC77", "#AA4499",
)  # fmt: skip
# Okabe & Ito, for models and roles
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
MODEL_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"
PAPER = "#FFFFFF"
# on a coloured cell, which is the same on a dark page
CELL_INK, CELL_PAPER = "#1A1A1A", "#FEFEFE"

# colour in a figure -> name of the page's colour that stands for it, light or dark (style.css)
PAGE_COLOURS = {
    INK: "ink", GREY: "grey", PALE: "pale", PAPER: "paper",
    BLUE: "blue", ORANGE: "orange", GREEN: "green", RED: "red", SKY: "sky", PURPLE: "purple",
    **{colour: f"c{i}" for i, colour in enumerate(CONDITION_COLOURS)},
}  # fmt: skip

SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.titley": 1.0,  # fixed: to look for what a title may overlap takes 7 % of a page's time
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.2,
    # names come from users' files: a dollar sign in them is no formula
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "colatent",  # the same figure gives the same bytes
}


def short(name: str, length: int = 26) -> str:
    """Return a name that fits on an axis."""
    return name if len(name) <= length else name[: length - 1] + "…"


def break_group(group: str, width: int = 18) -> str:
    """Return modalities joined by + on as few lines as fit beside an axis."""
    lines = [""]
    for part in group.replace("+", "+ ").split(" "):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def trial_ticks(axes: Axes, time: NDArray[np.float64], bin_width: float, n_trials: int) -> None:
    """Put ticks at the start and towards the end of trials drawn side by side, in the trials' own time."""
    length = time[-1] - time[0] + bin_width
    digits = 1 if length >= 0.3 else 2
    inside = np.round(np.array([time[0] - bin_width / 2, time[0] + 0.7 * length]), digits) + 0.0
    at = np.concatenate([trial_offset(i, time, bin_width) + inside - time[0] for i in range(n_trials)])
    axes.set_xticks(at, [f"{t:.{digits}f}" for t in inside] * n_trials)
    axes.margins(x=0.01)


def trial_offset(i: int, time: NDArray[np.float64], bin_width: float) -> float:
    """Return where the i-th of several trials begins that are drawn side by side, with gaps between them."""
    return float(i * 1.08 * (time[-1] - time[0] + bin_width))


def trial_times(time: NDArray[np.float64], bin_width: float, n_trials: int) -> NDArray[np.float64]:
    """Return where the bins of trials drawn side by side lie, as one line; see `side_by_side`."""
    offset = np.array([trial_offset(i, time, bin_width) for i in range(n_trials)])
    return side_by_side(time - time[0] + offset[:, None])


def side_by_side(trials: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (trial, time) one after another, with NaN between trials, which breaks the line."""
    return np.column_stack([trials, np.full(len(trials), np.nan)]).ravel()


def spread(n: int, wanted: int) -> list[int]:
    """Return up to ``wanted`` positions, evenly spread over ``range(n)``."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, wanted)).round()}) if n else []


def masked(value: NDArray[np.float64], keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a copy with NaN where ``keep`` is False, so that lines break there."""
    return np.where(keep, value, np.nan)
