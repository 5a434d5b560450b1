"""A figure of the report: drawn once by matplotlib, shown as SVG or PNG, with the numbers behind it."""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, FigureBase

from colatent.report.figures.style import PAGE_COLOURS, SETTINGS

RESOLUTION = 120  # dots per inch
WIDTH = 10.5  # inches: the page's text width
_SEPARATOR = "\u241f"  # the symbol for the unit separator, which no channel has in its name


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its words and its numbers; a notebook displays it.

    Attributes:
        name: file name without suffix.
        figure: what was drawn on.
        title: what is shown, and whether of training or of held-out trials.
        caption: method and parameters.
        data: the numbers drawn, in tidy columns.
        series: key -> label of what a page's reader can show and hide, see `mark`.
        series_title: what the series are, such as "condition".
    """

    name: str
    figure: Figure
    title: str
    caption: str
    data: pd.DataFrame
    series: Mapping[str, str] = field(default_factory=dict)
    series_title: str = ""

    @cached_property
    def png(self) -> bytes:
        file = io.BytesIO()
        with style():
            self.figure.savefig(file, format="png")
        return file.getvalue()

    @cached_property
    def svg(self) -> str:
        """SVG as a file of its own, on white."""
        return re.sub(_MARKS, "", self._marked_svg)

    @cached_property
    def inline_svg(self) -> str:
        """SVG as part of a page: in the page's colours, with the data that its script reads."""
        svg = self._marked_svg[self._marked_svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
        svg = re.sub(_MARKS, _to_attributes, svg)
        svg = re.sub(
            r' id="(?:figure|subfigure|patch|axes|matplotlib\.axis|xtick|ytick|text|line2d)_\d+"', "", svg
        )
        svg = re.sub(r' (?:d|x|y|transform)="[^"]*"', _round, svg)
        for colour, name in PAGE_COLOURS.items():
            svg = svg.replace(colour.lower(), f"var(--{name},{colour})")
        return svg.replace("<svg ", f'<svg role="img" aria-label="{_plain_attribute(self.title)}" ', 1)

    @cached_property
    def _marked_svg(self) -> str:
        text = io.StringIO()
        with style():
            self.figure.savefig(text, format="svg", facecolor="white", metadata={"Date": None})
        return text.getvalue()

    @property
    def csv(self) -> str:
        return self.data.to_csv(index=False, float_format="%.6g")

    def _repr_png_(self) -> bytes:
        return self.png


def style() -> Any:
    """Return a context in which figures look like those of the report."""
    return matplotlib.rc_context(SETTINGS)  # type: ignore[arg-type]


def new_figure(title: str, height: float, width: float = WIDTH) -> FigureBase:
    """Return an empty canvas (inches) under a title, which keeps its labels inside."""
    figure = Figure(figsize=(width, height + 0.25), dpi=RESOLUTION, layout="constrained")
    FigureCanvasAgg(figure)  # one renderer for layout and PNG: it remembers the sizes of texts
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.06, h_pad=0.05)  # type: ignore[call-arg]
    figure.suptitle(title, x=0.008, ha="left", fontsize=10, fontweight="bold")
    # a legend outside the axes of the figure itself would lie on the title
    canvas = figure.subfigures(1, 1)
    assert isinstance(canvas, FigureBase)
    return canvas


def finish(
    name: str,
    canvas: FigureBase,
    caption: str,
    data: pd.DataFrame,
    series: Mapping[str, str] | None = None,
    series_title: str = "",
) -> ReportFigure:
    """Return the figure drawn on a canvas of `new_figure`, with its words and numbers."""
    figure = canvas.get_figure(root=True)
    assert isinstance(figure, Figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    with style():  # laid out once, not again for every format
        engine.execute(figure)
        figure.set_layout_engine(None)
    return ReportFigure(name, figure, figure.get_suptitle(), caption, data, series or {}, series_title)


def mark(artists: Artist | Iterable[Artist], key: str = "", label: str = "") -> None:
    """Name artists for the page's script.

    Args:
        key: series that the reader can show and hide together.
        label: of a line, shown beside its value under the pointer.
    """
    for artist in [artists] if isinstance(artists, Artist) else artists:
        artist.set_gid(_SEPARATOR.join(("mark", key, label)))


def readable(axes: Axes, x_unit: str, y_unit: str) -> None:
    """Let the page's script read values off the marked lines of these axes, in these units."""
    limits = (f"{v:.6g}" for v in (*axes.get_xlim(), *axes.get_ylim()))
    axes.patch.set_gid(_SEPARATOR.join(("axes", *limits, x_unit, y_unit)))


_MARKS = re.compile(rf' id="(mark|axes){_SEPARATOR}([^"]*)"')


def _to_attributes(found: re.Match[str]) -> str:
    """Return the data attributes of a mark; matplotlib has escaped what is in it."""
    values = found[2].split(_SEPARATOR)
    if found[1] == "axes":
        return f' data-limits="{" ".join(values[:4])}" data-x="{values[4]}" data-y="{values[5]}"'
    attributes = zip(("series", "label"), values, strict=True)
    return "".join(f' data-{name}="{value}"' for name, value in attributes if value)


def _round(found: re.Match[str]) -> str:
    """Keep hundredths of a point: a third of a page is digits beyond them."""
    return re.sub(r"(-?\d+\.\d\d)\d+", r"\1", found[0])


def _plain_attribute(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
