"""Figure: do predictive intervals of held-out data contain as much as they should?"""

import numpy as np
import pandas as pd

from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import BLUE, GREY, ORANGE, break_group, short
from colatent.report.model_results import ModelResults
from colatent.report.score_tables import shown_sets
from colatent.report.text.heldout import HELDOUT

LEVELS = {50: ORANGE, 95: BLUE}


def calibration_figure(model: ModelResults) -> ReportFigure | None:
    """Draw the coverage of the 50 and 95 % intervals: channels as dots, all channels as a ring."""
    results = model.session
    s = results.scores
    own = s[(s["model"] == model.model) & s["metric"].isin([f"coverage_{level}" for level in LEVELS])]
    keys = ["heldout", "given", "predicted", "metric", "channel"]
    table = own.groupby(keys, sort=False)["value"].mean().reset_index(name="coverage")
    asked = table.groupby(["heldout", "predicted"])["given"].unique()
    ordered = [
        (heldout, given, predicted)
        for heldout in HELDOUT
        for predicted in results.modalities
        if (heldout, predicted) in asked.index
        for given in shown_sets(asked[heldout, predicted])
    ]
    if not ordered:
        return None
    trials = results.words.trials
    with style():
        title = f"Calibration of {model.model}, held-out (test) {trials}"
        figure = new_figure(title, 0.26 * len(ordered) + 1.0, width=8.5)
        axes = figure.subplots()
        for level, colour in LEVELS.items():
            axes.axvline(level, color=colour, lw=1, ls="--", zorder=0)
            for y, q in enumerate(ordered):
                rows = table[(table[["heldout", "given", "predicted"]] == q).all(axis=1)]
                rows = rows[rows["metric"] == f"coverage_{level}"]
                pooled = rows["channel"] == "pooled"
                channel = 100 * rows.loc[~pooled, "coverage"]
                axes.plot(channel, np.full(len(channel), y), "|", color=colour, ms=5, alpha=0.45)
                axes.plot(
                    100 * rows.loc[pooled, "coverage"], [y] * int(pooled.sum()), "o", color=colour, ms=6
                )
        labels = [_label(*q) for q in ordered]
        axes.set_yticks(range(len(ordered)), labels, fontsize=7.5)
        axes.set_ylim(len(ordered) - 0.5, -0.5)
        axes.set_xlim(0, 101)
        axes.grid(axis="x", color=GREY, alpha=0.2, lw=0.5)
        axes.set_xlabel("observations inside the predictive interval (%)")
        for level, colour in LEVELS.items():
            axes.plot([], [], "o", color=colour, label=f"{level} % interval (dashed: nominal)")
        figure.legend(loc="outside lower center", ncols=2)
    caption = (
        f"Coverage of central predictive intervals over the bins of the test {trials}, mean over folds and "
        "seeds: all channels pooled (dots) and each channel (ticks). Left of its dashed line an interval is "
        "too narrow, right of the line too wide. A count contributes the share of its probability inside "
        "(non-randomised PIT)." + _without_score(own)
    )
    return finish("calibration", figure, caption, table)


def _without_score(coverage: pd.DataFrame) -> str:
    """Return a sentence on the channels that are left out; nothing if all have a score."""
    channels = coverage[coverage["channel"] != "pooled"]
    said = []
    for modality, own in channels.groupby("predicted"):
        lacking = own.loc[own["value"].isna(), "channel"].nunique()
        if lacking:
            said.append(f"{lacking} of {own['channel'].nunique()} channels of {modality}")
    return f" Left out, where they have no score (in at least one fold): {', '.join(said)}." if said else ""


def _label(heldout: str, given: str, predicted: str) -> str:
    source = "" if given == "none" else f" from {break_group(short(given, 30), 30)}"
    return f"{short(predicted, 16)}{source}: {HELDOUT[heldout].short}"
