"""How figures look, and how they become PNG."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

RESOLUTION = 120  # dots per inch
WIDTH = 10.5  # inches: the page's text width

# Paul Tol's "muted" scheme: nine hues that stay apart for colour-blind readers
CONDITION_COLOURS = (
    "#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#999933", "#44AA99", "#DDCC77", "#AA4499",
)  # fmt: skip
# Okabe & Ito, for models and roles
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"
MODEL_COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"

SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
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
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.2,
    # names come from users' files: a dollar sign in them is no formula
    "text.parse_math": False,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class ReportFigure:
    """A figure of the page: a file name without suffix, PNG bytes, caption and alternative text."""

    name: str
    png: bytes
    caption: str
    alt: str

    @property
    def data_uri(self) -> str:
        return "data:image/png;base64," + base64.b64encode(self.png).decode("ascii")


def style() -> Any:
    """Return a context in which figures look like those of the report."""
    return matplotlib.rc_context(SETTINGS)  # type: ignore[arg-type]


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure (inches) that keeps its labels inside."""
    figure = Figure(figsize=(width, height), layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.06, h_pad=0.05)  # type: ignore[call-arg]
    return figure


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG, in a palette of 256 colours: a third of the size, the same to the eye."""
    full = io.BytesIO()
    figure.savefig(full, format="png", dpi=RESOLUTION, facecolor="white")
    small = io.BytesIO()
    image = Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    image.save(small, format="png", optimize=True, dpi=(RESOLUTION, RESOLUTION))
    return small.getvalue()


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
    inside = np.round(np.array([time[0] - bin_width / 2, time[0] + 0.8 * length]), digits) + 0.0
    at = np.concatenate([trial_offset(i, time, bin_width) + inside - time[0] for i in range(n_trials)])
    axes.set_xticks(at, [f"{t:.{digits}f}" for t in inside] * n_trials)
    axes.margins(x=0.01)


def trial_offset(i: int, time: NDArray[np.float64], bin_width: float) -> float:
    """Return where the i-th of several trials begins that stand side by side, with gaps between them."""
    return float(i * 1.08 * (time[-1] - time[0] + bin_width))


def spread(n: int, wanted: int) -> list[int]:
    """Return up to ``wanted`` positions, evenly spread over ``range(n)``."""
    return sorted({int(i) for i in np.linspace(0, n - 1, min(n, wanted)).round()}) if n else []


def masked(value: NDArray[np.float64], keep: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return a copy with NaN where ``keep`` is False, so that lines break there."""
    return np.where(keep, value, np.nan)
