"""Figure: which trials each fold trains on, tests on, and leaves out."""

import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.patches import Patch

from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import ORANGE, PALE
from colatent.report.session_results import SessionResults

ROLE_COLOURS = ("#B9D3E6", ORANGE, "#F4F4F4")
ROLES = np.array(["training", "test", "guard"])
ROLE_NAMES = ("training", "test (held out)", "guard (left out of both)")


def split_figure(results: SessionResults) -> ReportFigure:
    """Draw the role of every trial in every fold."""
    folds, n_trials = results.role.shape
    roles = np.unique(results.role)
    with style():
        figure = new_figure(f"Training and held-out {results.words.trials} of each fold", 0.9 + 0.2 * folds)
        axes = figure.subplots()
        axes.pcolormesh(
            np.arange(n_trials + 1) - 0.5,
            np.arange(folds + 1),
            results.role,
            cmap=ListedColormap(ROLE_COLOURS),
            vmin=0,
            vmax=2,
            edgecolors="white" if n_trials <= 200 else "none",
            linewidth=0.4,
        )
        axes.set_yticks(np.arange(folds) + 0.5, [str(f) for f in range(folds)])
        axes.invert_yaxis()
        axes.set_xlabel(f"{results.words.trial} (number, in order of time)")
        axes.set_ylabel("fold")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        handles = [Patch(facecolor=ROLE_COLOURS[r], edgecolor=PALE, label=ROLE_NAMES[r]) for r in roles]
        figure.legend(handles=handles, loc="outside upper right", ncols=3)
    word = results.words.trial
    caption = (
        f"Role of each {word} in each fold. Everything that is fitted (parameters, scaling, clipping, "
        f"read-outs, alignment) comes from the training {word}s of the fold."
    )
    fold, trial = np.indices(results.role.shape)
    data = pd.DataFrame({"fold": fold.ravel(), word: trial.ravel(), "role": ROLES[results.role.ravel()]})
    return finish("split", figure, caption, data)
