"""Figure: co-smoothing against the number of latents, and the number that the rule chooses."""

import matplotlib
import numpy as np
import pandas as pd

from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import GREY


def latent_choice_figure(table: pd.DataFrame, session: str, model: str) -> ReportFigure:
    """Draw the table of `colatent.analyses.latent_choice.choose_latents`, a line for each fold."""
    folds = sorted(table["fold"].unique())
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.85, len(folds)))
    with style():
        title = f"Number of latents of {model}, {session}: inner folds of training trials"
        figure = new_figure(title, 3.2, width=6.5)
        axes = figure.subplots()
        for fold, colour in zip(folds, colours, strict=True):
            rows = table[table["fold"] == fold]
            shift = 0.06 * (fold - (len(folds) - 1) / 2)
            x = rows["n_latents"] + shift
            axes.errorbar(x, rows["r2"], rows["standard_error"], color=colour, lw=1.2, label=str(fold))
            chosen = rows["chosen"].to_numpy()
            axes.plot(x[chosen], rows["r2"][chosen], "o", color=colour, ms=7)
        axes.axhline(0, color=GREY, lw=0.8, ls=":")
        axes.set_xticks(sorted(table["n_latents"].unique()))
        axes.set_xlabel("number of latents")
        axes.set_ylabel("co-smoothing R²\n(inner folds of the training trials)")
        figure.legend(loc="outside right upper", title="outer fold")
    caption = (
        f"Number of latents of {model}, {session}: R² of channels predicted from the others, in inner folds "
        "of each outer fold’s training trials (test trials were not used); mean ± s.e.m. over inner folds. "
        "Dots: the smallest number within one standard error of the best. Dotted line: no better than the "
        "mean."
    )
    return finish("latent_choice", figure, caption, table)
