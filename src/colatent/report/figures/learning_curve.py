"""Figure: held-out scores against the number of training trials, and of channels."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from colatent.data.metrics import METRICS
from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import BLUE, CONDITION_COLOURS, GREEN, GREY, INK, RED, short
from colatent.report.text.heldout import HELDOUT
from colatent.report.text.numbers import number
from colatent.scoring.learning_curve import BASELINE, CHANNELS_OF

COLOURS = {"trials": BLUE, "channels": RED, "time": GREEN}


class CurveQuestion(NamedTuple):
    """What the model was asked: one line of a panel."""

    heldout: str
    given: str

    @property
    def from_others(self) -> bool:
        return HELDOUT[self.heldout].from_others

    @property
    def label(self) -> str:
        name = HELDOUT[self.heldout].short
        return name if self.given == "none" else short(f"{name} | {self.given}", 38)


def learning_curve_figure(table: pd.DataFrame, session: str, model: str) -> ReportFigure:
    """Draw the table of `colatent.scoring.learning_curve.learning_curve`, a panel for each modality.

    The first row of panels varies the number of trials, the others the channels of each modality.
    """
    word = "window" if "windows" in set(table["varied"]) else "trial"
    main = _main_scores(table)
    varied, predicted = (list(dict.fromkeys(main[column])) for column in ("varied", "predicted"))
    panels = {
        key: (panel, questions)
        for key, panel in main.groupby(["varied", "predicted"])
        if (questions := _questions(panel))
    }
    colours = _colours([question for _, questions in panels.values() for question in questions])
    with style():
        title = f"Learning curves of {model}, {session}: held-out (test) {word}s"
        columns = 3 if len(predicted) > 1 else 2  # of the legend
        height = 0.3 + 2.4 * len(varied) + 0.2 * np.ceil((len(colours) + 1) / columns)
        figure = new_figure(title, height, width=3.5 * columns)
        grid = figure.subplots(len(varied), len(predicted), squeeze=False)
        for (i, j), axes in np.ndenumerate(grid):
            panel, questions = panels.get((varied[i], predicted[j]), (None, []))
            axes.set_visible(bool(questions))
            if panel is None:
                continue
            _draw(axes, panel, {q: colours[q] for q in questions})
            axes.set_title(f"{predicted[j]} predicted", loc="left")
            axes.set_xlabel(_axis_of(varied[i], word))
        figure.legend(handles=_handles(colours, word), loc="outside lower center", ncols=columns)
    return finish("learning_curve", figure, _caption(session, model, word), main)


def _main_scores(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of each modality's main metric."""
    return table[table["metric"].isin([name for name, metric in METRICS.items() if metric.is_main])]


def _questions(panel: pd.DataFrame) -> list[CurveQuestion]:
    """Return the questions drawn: of each kind the one given most modalities, and those given only one."""
    own = panel[panel["model"] != BASELINE]
    asked = [CurveQuestion(*q) for q in dict.fromkeys(zip(own["heldout"], own["given"], strict=True))]
    most = {kind: max(q.given.count("+") for q in asked if q.heldout == kind) for kind, _ in asked}
    return [
        q for q in asked if q.given.count("+") == most[q.heldout] or (q.from_others and "+" not in q.given)
    ]


def _colours(questions: list[CurveQuestion]) -> dict[CurveQuestion, str]:
    """Return a colour for each question; cross-predictions differ by what is given."""
    kinds = list(HELDOUT)
    ordered = sorted(dict.fromkeys(questions), key=lambda q: kinds.index(q.heldout))
    crossed = [q for q in ordered if q.from_others]
    others = {q: CONDITION_COLOURS[i % len(CONDITION_COLOURS)] for i, q in enumerate(crossed)}
    return {q: COLOURS[q.heldout] if q.heldout in COLOURS else others[q] for q in ordered}


def _draw(axes: Axes, panel: pd.DataFrame, colours: dict[CurveQuestion, str]) -> None:
    means: list[tuple[float, float]] = []
    baselines: dict[str, pd.DataFrame] = {}
    for question, colour in colours.items():
        own = panel[(panel["model"] != BASELINE) & (panel["given"] == question.given)]
        rows = own[own["heldout"] == question.heldout]
        axes.plot(rows["n"], rows["value"], "o", color=colour, ms=3, alpha=0.45, mew=0)
        mean = rows.groupby("share")[["n", "value"]].mean()
        axes.plot(mean["n"], mean["value"], "-o", color=colour, ms=4)
        means += list(zip(mean["n"], mean["value"], strict=True))
        # it sees no modality, so its cross-predictions are its reconstructions
        kind = "trials" if question.from_others else question.heldout
        answers = panel[(panel["model"] == BASELINE) & (panel["heldout"] == kind)]
        value = answers.groupby("share")["value"].mean().reindex(mean.index)
        baselines.setdefault(kind, mean.assign(value=value))
    for kind, mean in baselines.items():
        asked = any(question.heldout == kind for question in colours)
        axes.plot(mean["n"], mean["value"], "--", color=COLOURS[kind] if asked else INK, lw=1)
        means += list(zip(mean["n"], mean["value"], strict=True))
    axes.axhline(0, color=GREY, lw=0.8, ls=":", zorder=0)
    axes.set_xticks(sorted({round(n) for n, _ in means}))
    axes.set_xlim(left=0)
    axes.set_ylabel(METRICS[panel["metric"].iloc[0]].title)
    _limit_axis(axes, means)


def _limit_axis(axes: Axes, means: list[tuple[float, float]]) -> None:
    """Keep one failed fit from squeezing the others; the lowest mean outside is written at the edge."""
    top = max((value for _, value in means if np.isfinite(value)), default=0.0)
    low = max(axes.get_ylim()[0], min(0.0, top) - max(abs(top), 0.1))
    axes.set_ylim(bottom=low)
    for n in sorted({n for n, _ in means}):
        lowest = min(value for at, value in means if at == n)
        if lowest < low:
            axes.text(n, low, f"▾ {number(lowest, 2)}", color=GREY, fontsize=8, va="bottom", ha="center")


def _axis_of(varied: str, word: str) -> str:
    if varied.startswith(CHANNELS_OF):
        return f"{varied} given to inference"
    return f"training {word}s"


def _handles(colours: dict[CurveQuestion, str], word: str) -> list[Line2D]:
    lines = [Line2D([], [], color=c, marker="o", ms=5, label=q.label) for q, c in colours.items()]
    if all(q.given == "none" for q in colours):
        return lines
    mean = "condition mean" if word == "trial" else "training mean"
    return [*lines, Line2D([], [], color=INK, ls="--", lw=1, label=f"{mean}, same {word}s and channels")]


def _caption(session: str, model: str, word: str) -> str:
    return (
        f"Learning curves of {model}, {session}: fits to nested shares of each fold’s training {word}s, or "
        "of the channels of a modality (as if the others had not been recorded), all with the settings of "
        f"the config. All are scored on the same test {word}s: the whole test fold, which no fit saw. Along "
        "a line the scored channels are also the same: against the number of channels, either those hidden "
        "for co-smoothing, which are in every fit and are not given, or those of another modality. "
        f"Continuous channels that are constant in the training {word}s of any fit are not scored. Small "
        "dots are folds, lines their mean; dashed: the baseline fitted to the same share and scored in the "
        "same bins (for cross-prediction and decoding: its reconstruction). Dotted: 0, no better than the "
        "mean of the scored bins. Of means below an axis, the lowest is written at its edge."
    )
