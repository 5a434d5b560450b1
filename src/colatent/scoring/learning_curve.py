"""Learning curves: held-out scores against the number of training trials or of channels.

Points on a curve must differ only in the data that the model learned from:

- Every fit is scored on the same, whole test trials of the fold. They are clipped by percentiles of all
  the fold's training trials, and R² is pooled in units of those trials' standard deviations, so that the
  reference does not change with the share. No fit sees either.
- A continuous channel that is constant in the trials of some share is scored at no share: a fit that never
  saw it vary would be scored on its s.d. floor (see `scorable`). Such channels are logged.
- A fit sees only its share. The other training trials are removed before anything is estimated (clipping,
  standardisation, inner folds, read-outs), and channels as if never recorded.
- When the number of channels of a modality varies, only scores on the same channels at every share are
  compared, and only for tasks given that modality: its channels hidden for co-smoothing, which belong to
  every share (so only held-in channels vary), and other modalities. Reconstruction of the modality itself
  is left out, because each share would be scored on different channels.

All else is as in the ordinary fit, including the number of epochs (with fewer trials, a network makes fewer
steps). A share of 1 is therefore the ordinary fit, with the same scores on these channels.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from colatent.config import ConditionMeanSettings, LearningCurve
from colatent.config.models import ModelSettings
from colatent.data.scaling import standard_deviation
from colatent.data.splits import TRAINING, clip_to_training
from colatent.data.subsets import channel_subsets, trial_subsets, window_subsets, with_channels
from colatent.data.trials import Trials
from colatent.models.base import FitRun, Progress, quiet
from colatent.models.fitting import fit_model, fitting_device
from colatent.models.registry import load_fit, make_model, model_class
from colatent.scoring.evaluate import evaluate
from colatent.store.session import Fold, read_fold, read_trials

COLUMNS = [
    "session", "model", "fold", "varied", "share", "n", "heldout", "given", "predicted", "metric", "value",
]  # fmt: skip
CHANNELS_OF = "channels of "
BASELINE = "baseline: condition mean"  # not a valid model name in a config
MEAN = ConditionMeanSettings(kind="condition-mean")
# part of the seed, so that draws of trials and channels differ from each other and from `splits`
DRAW_TRIALS, DRAW_CHANNELS = 1, 2

Mask = NDArray[np.bool_]


class Point(NamedTuple):
    """The training data of one fit.

    Attributes:
        varied: "trials" (or "windows"), or "channels of {modality}".
        share: share of them that the fit sees.
        trial: (trial,) over all trials of the session, True for the trials of the fit.
        channel: modality -> (channel,), True for the channels of the fit.
    """

    varied: str
    share: float
    trial: Mask
    channel: dict[str, Mask]

    @property
    def modality(self) -> str | None:
        """The modality whose channels vary."""
        return self.varied.removeprefix(CHANNELS_OF) if self.varied.startswith(CHANNELS_OF) else None

    @property
    def key(self) -> tuple[bytes, ...]:
        """Key shared by points with identical training data, which need only one fit."""
        return self.trial.tobytes(), *(kept.tobytes() for kept in self.channel.values())


@dataclass(frozen=True)
class Recipe:
    """Options shared by all fits of a curve.

    Attributes:
        settings: the model's section of the config.
        curve: the section ``learning_curve``.
        stratify: draw trials in proportion to their conditions.
        seed: seed of the draws and of the fits.
        device: "cpu", "cuda" or "auto".
        progress: called with lines of text.
    """

    settings: ModelSettings
    curve: LearningCurve
    stratify: bool
    seed: int
    device: str = "cpu"
    progress: Progress = quiet


def learning_curve(
    session: str | Path,
    split: str | Path,
    recipe: Recipe,
    n_folds: int,
    threads: int,
    head: Mapping[str, str],
) -> pd.DataFrame:
    """Return the pooled scores of a model and of the condition mean at every share.

    Args:
        session, split: paths of the stores.
        recipe: options of the fits.
        n_folds: folds of the split; the section ``learning_curve`` may use fewer.
        threads: number of PyTorch threads.
        head: values of the columns ``session`` and ``model``.

    Returns:
        The columns ``COLUMNS``; ``n`` is the number of training trials, or of channels given to inference.
    """
    trials, _ = read_trials(session)
    for settings in (recipe.settings, MEAN):  # import the code before waiting for a GPU
        model_class(settings)
    tables = []
    with fitting_device(recipe.settings, recipe.device, threads, recipe.progress) as used:
        recipe = replace(recipe, device=used)
        for number in range(recipe.curve.folds or n_folds):
            table = curve_of_fold(trials, read_fold(trials, split, number, recipe.seed), number, recipe)
            model_name = table["model"].where(table["model"] == BASELINE, head["model"])
            tables.append(table.assign(session=head["session"], fold=number, model=model_name))
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def curve_of_fold(trials: Trials, fold: Fold, number: int, recipe: Recipe) -> pd.DataFrame:
    """Return the scores of one fold; the ``model`` column is still empty for the model's own rows.

    Args:
        trials: all trials of the session as recorded; each fit clips and scales its own share.
        fold: supplies test trials, roles and what is withheld; its training trials set the scale of scores.
        number: number of the fold.
        recipe: options of the fits.
    """
    scored: dict[tuple[bytes, ...], pd.DataFrame] = {}
    tables = []
    asked = list(points(trials, fold, number, recipe))
    fold = fold._replace(training=_reference_trials(trials, fold, asked, recipe.progress))
    for point in asked:
        recipe.progress(
            f"fold {number}: {point.share:g} of the {point.varied} ({point.trial.sum()} training "
            f"{'trials' if trials.time_locked else 'windows'}, "
            + ", ".join(f"{kept.sum()} {m}" for m, kept in point.channel.items())
            + ")"
        )
        if point.key not in scored:
            scored[point.key] = _with_baseline(trials, fold, point, recipe)
        table = comparable(scored[point.key], point.modality)
        tables.append(table.assign(varied=point.varied, share=point.share, n=_n_column(table, point, fold)))
    return pd.concat(tables, ignore_index=True)


def _with_baseline(trials: Trials, fold: Fold, point: Point, recipe: Recipe) -> pd.DataFrame:
    """Return the scores of the model and, unless it is the model, of the condition mean at a point."""
    own = score_point(trials, fold, point, recipe).assign(model="")
    if recipe.settings == MEAN:
        return own
    mean = score_point(trials, fold, point, replace(recipe, settings=MEAN, progress=quiet))
    return pd.concat([own, mean[mean["predicted"].isin(own["predicted"])].assign(model=BASELINE)])


def _reference_trials(trials: Trials, fold: Fold, asked: list[Point], progress: Progress) -> Trials:
    """Return the fold's training trials, hiding continuous channels constant in the trials of any point."""
    continuous = [m for m in trials.modalities if trials.kinds[m] != "spikes"]
    flat = {m: np.zeros(len(trials.channels[m]), dtype=bool) for m in continuous}
    for trial in {point.trial.tobytes(): point.trial for point in asked}.values():
        share = clip_to_training(trials, trial, fold.clip).select(trial)
        for m in continuous:
            flat[m] |= np.isnan(standard_deviation(share.values[m], share.observed[m]))
    for m, channel in flat.items():
        if channel.any():
            names = ", ".join(np.array(trials.channels[m], dtype=object)[channel])
            progress(f"{m}: not scored at any share, because constant in the trials of some share: {names}")
    return fold.training.hide(flat)


def points(trials: Trials, fold: Fold, number: int, recipe: Recipe) -> Iterator[Point]:
    """Yield the points to fit in one fold: shares of the trials, then of each modality's channels."""
    yield from _points_of_trials(trials, fold, number, recipe)
    everything = _all_channels(trials)
    hidden = fold.withheld.channels
    for modality, shares in recipe.curve.shares_of_channels(hidden).items():
        if reason := _not_compared(modality, trials, fold, recipe.settings):
            recipe.progress(f"the number of channels of {modality} is not varied: {reason}")
            continue
        always = hidden.get(modality, np.zeros(len(trials.channels[modality]), dtype=bool))
        draws = channel_subsets(always, shares, (recipe.seed, number, DRAW_CHANNELS))
        for share, mask in zip(shares, draws, strict=True):
            if mask.sum() < recipe.settings.fewest_channels(modality):
                recipe.progress(f"{share:g} of the {modality} are left out: fewer channels than latents")
                continue
            channel = everything | {modality: mask}
            yield Point(f"{CHANNELS_OF}{modality}", share, fold.role == TRAINING, channel)


def _points_of_trials(trials: Trials, fold: Fold, number: int, recipe: Recipe) -> Iterator[Point]:
    curve, training = recipe.curve, np.flatnonzero(fold.role == TRAINING)
    draw = (recipe.seed, number, DRAW_TRIALS)
    if trials.time_locked:
        condition = trials.condition[training] if recipe.stratify and trials.condition is not None else None
        chosen = trial_subsets(condition, len(training), curve.trials, draw)
    else:
        chosen = window_subsets(len(training), curve.trials, draw)
    for share, mask in zip(curve.trials, chosen, strict=True):
        kept = np.isin(np.arange(trials.n_trials), training[mask])
        yield Point("trials" if trials.time_locked else "windows", share, kept, _all_channels(trials))


def _all_channels(trials: Trials) -> dict[str, Mask]:
    return {m: np.ones(len(names), dtype=bool) for m, names in trials.channels.items()}


def _not_compared(modality: str, trials: Trials, fold: Fold, settings: ModelSettings) -> str:
    """Return why the number of a modality's channels is not varied; empty if it is."""
    given = [t for t in make_model(settings, trials.layout).tasks(fold.withheld) if modality in t.given]
    if not given:
        return "the model never predicts from it"
    if not settings.can_lack_channels(modality):
        return "the model reads it as an image"
    if all(task.predicted == modality and task.heldout != "channels" for task in given):
        return "none of its channels are held out, and the model predicts nothing else"
    return ""


def score_point(trials: Trials, fold: Fold, point: Point, recipe: Recipe) -> pd.DataFrame:
    """Fit one model to one share and return its pooled scores on the fold's test trials."""
    clipped = clip_to_training(trials, point.trial, fold.clip)
    training = with_channels(clipped.select(point.trial), point.channel)
    withheld = fold.withheld.with_channels(point.channel)
    run = FitRun(recipe.seed, withheld, recipe.device, recipe.progress, intervals=False)
    fitted = fit_model(model_class(recipe.settings), recipe.settings, training, run)
    # rebuild the fit from its arrays on the CPU, as in ordinary scoring
    fit = load_fit(recipe.settings, training.layout, fitted.tensors())
    reference, test = (with_channels(t, point.channel) for t in (fold.training, fold.test))
    scores = evaluate(fit, reference, test, withheld).scores
    return scores[scores["channel"] == "pooled"].drop(columns=["channel", "n"])


def comparable(scores: pd.DataFrame, modality: str | None) -> pd.DataFrame:
    """Return the scores that are comparable across shares of the channels of ``modality``."""
    if modality is None:
        return scores
    given = np.array([modality in names.split("+") for names in scores["given"]], dtype=bool)
    fixed = (scores["predicted"] != modality) | (scores["heldout"] == "channels")
    return scores[(given | (scores["model"] == BASELINE)) & fixed]


def _n_column(table: pd.DataFrame, point: Point, fold: Fold) -> NDArray[np.int_]:
    """Return the number of training trials, or of the modality's channels given to inference."""
    if point.modality is None:
        return np.full(len(table), point.trial.sum())
    n = point.channel[point.modality].sum()
    held_out = fold.withheld.channels
    hidden = held_out[point.modality].sum() if point.modality in held_out else 0
    return np.where(table["predicted"] == point.modality, n - hidden, n)
