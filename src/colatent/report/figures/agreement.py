"""Figure: do fits on other folds and from other seeds find the same latents?"""

import numpy as np

from colatent.analyses.agreement import N_PERMUTATIONS, agreement
from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import BLUE, GREY, break_group
from colatent.report.model_results import ModelResults


def agreement_figure(model: ModelResults) -> ReportFigure | None:
    """Draw the mean canonical correlation of each group with the first fit, beside its null."""
    if len(model.latents) < 2:
        return None
    latents = {f"fold {f}, seed {s}": d["mean"].values.astype(float) for (f, s), d in model.latents.items()}
    table = agreement(latents, model.groups, model.session.reached())  # type: ignore[arg-type]
    groups = list(dict.fromkeys(table["group"]))
    trials = model.session.words.trials
    with style():
        title = f"Agreement of the fits of {model.model}, all {trials} (training and held-out)"
        figure = new_figure(title, 0.42 * len(groups) + 0.95, width=7.5)
        axes = figure.subplots()
        for y, group in enumerate(groups):
            rows = table[table["group"] == group]
            spread = 0.12 * (np.arange(len(rows)) - (len(rows) - 1) / 2) / max(len(rows) / 3, 1)
            axes.hlines(y + spread, rows["null_mean"], rows["null_95"], color=GREY, lw=2)
            axes.plot(rows["agreement"], y + spread, "o", color=BLUE, ms=5, mew=0)
        axes.plot([], [], "o", color=BLUE, ms=5, mew=0, label="a fit, with the first one")
        axes.plot([], [], "-", color=GREY, lw=2, label=f"chance: {trials} permuted, mean to 95th percentile")
        axes.set_yticks(range(len(groups)), [break_group(g, 26) for g in groups])
        axes.set_ylim(len(groups) - 0.5, -0.5)
        axes.set_xlim(0, 1.02)
        axes.set_xlabel("mean canonical correlation (1: the same latents up to a linear map)")
        figure.legend(loc="outside lower center", ncols=2)
    first = next(iter(latents))
    caption = (
        "Mean canonical correlation between the posterior means of each fit and those of the first "
        f"({first}), group by group, over the bins of all {trials}, whether or not either fit was trained on "
        f"them. Grey: the same with the {trials} of one fit permuted ({N_PERMUTATIONS} permutations; of two "
        f"{trials}, the bins in which both run), which keeps what is common to all {trials}."
    )
    return finish("agreement", figure, caption, table)
