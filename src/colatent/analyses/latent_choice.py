"""Choose the number of GPFA latents inside the training trials of every fold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pydantic import TypeAdapter

from colatent.config import COUNT_LIKELIHOODS, GPFASettings
from colatent.data.splits import inner_folds
from colatent.data.trials import Trials
from colatent.errors import InputError
from colatent.models.gpfa.counts import CountGPFA
from colatent.models.gpfa.gaussian import GPFA
from colatent.models.gpfa.likelihood_choice import chosen_likelihood
from colatent.models.gpfa.selection import select_n_latents
from colatent.store.session import read_fold, read_trials

N_INNER_FOLDS = 4
COLUMNS = ["fold", "n_latents", "r2", "standard_error", "best", "chosen"]


def compare_numbers_of_latents(trials: Trials, model: GPFASettings) -> pd.DataFrame:
    """Return the cross-validated co-smoothing score of each candidate number of latents.

    Args:
        trials: training trials, split again into inner folds.
        model: config section of a ``gpfa`` model.

    Returns:
        One row per candidate: ``n_latents, r2, standard_error`` (over the inner folds), ``best`` and
        ``chosen`` (booleans); see `select_n_latents`.

    Raises:
        InputError: no candidate is smaller than the number of channels, or too few trials for inner folds.
    """
    if not inner_folds(trials.n_trials, N_INNER_FOLDS, trials.time_locked):
        raise InputError(
            f"{trials.n_trials} training trials or windows are too few to compare numbers of latents on; "
            "take shorter windows, or set the number yourself"
        )
    (modality,) = model.modalities
    value = trials.with_nan(modality)
    likelihood = model.likelihood_of(modality, trials.kinds[modality]) or chosen_likelihood(value)[0]
    value = np.sqrt(value) if likelihood == "gaussian-sqrt" else value
    counts = likelihood in COUNT_LIKELIHOODS
    candidates = [n for n in model.candidates if n < value.shape[2]]
    if not candidates:
        raise InputError(f"all candidates {model.candidates} need more channels than {value.shape[2]}")
    options: dict[str, Any] = (
        {"likelihood": likelihood} if counts else {"automatic_relevance": model.automatic_relevance}
    )
    selection = select_n_latents(
        CountGPFA if counts else GPFA,
        value,
        candidates,
        n_folds=min(N_INNER_FOLDS, trials.n_trials),
        time_locked=trials.time_locked,
        bin_width=trials.bin_width,
        kernel=model.kernel,
        **options,
    )
    number = np.array(selection.n_latents)
    return pd.DataFrame(
        {
            "n_latents": number,
            "r2": selection.mean,
            "standard_error": selection.standard_error,
            "best": number == selection.best,
            "chosen": number == selection.chosen,
        }
    )


def choose_latents(
    session: str | Path,
    split: str | Path,
    model: dict,
    n_folds: int,
    progress: Callable[[str], None],
) -> pd.DataFrame:
    """Return `compare_numbers_of_latents` for every fold, with the columns ``COLUMNS``."""
    trials, _ = read_trials(session)
    settings = TypeAdapter(GPFASettings).validate_python(model)
    tables = []
    for fold in range(n_folds):
        training = read_fold(trials, split, fold, None).training
        table = compare_numbers_of_latents(training, settings)
        progress(f"fold {fold}: {table['n_latents'][table['chosen']].item()} latents chosen")
        tables.append(table.assign(fold=fold))
    return pd.concat(tables)[COLUMNS]
