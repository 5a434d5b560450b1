"""Learning curves: held-out scores against the number of training trials, and of channels.

What is compared along a curve must differ in nothing but what the model had to learn from:

- Every fit is scored on the same, whole test trials of the fold. They are clipped by the percentiles of
  all the fold's training trials, and R² is pooled in units of these trials' standard deviations, for
  every share: a ruler that changed with the share would be no ruler. Neither reaches a fit.
- A continuous channel that does not vary in some share's trials is scored at none: of a fit that never saw it
  vary, a score is that of the least s.d. it allows (see `scorable`). It is said in the log.
- A fit sees its share alone. The other training trials are gone before anything looks at the data
  (clipping, standardising, inner folds, read-outs); channels are gone as if never recorded.
- With the number of channels of a modality, only such scores are compared as are of the same channels at
  every share, and of a model that was given the modality: of its channels hidden for co-smoothing, which
  belong to every share (so only held-in ones vary), and of other modalities. Reconstruction of the
  modality itself would be scored on other channels at every share, and is left out.

All else is as in the ordinary fit (the epochs, too: with fewer trials, a network makes fewer steps), so
that a share of 1 is that fit, and scores as it does on these channels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import TypeAdapter

from colatent.config import (
    ConditionMeanSettings,
    LearningCurve,
    Model,
    OneModalitySettings,
)
from colatent.data.scaling import standard_deviation
from colatent.data.splits import TRAINING, clip_to_training
from colatent.data.subsets import (
    shares_of_channels,
    shares_of_trials,
    shares_of_windows,
    with_channels,
)
from colatent.data.trials import Trials
from colatent.models.fitting import fit_model, fitting_device
from colatent.models.readout.decoding import Decoder
from colatent.models.registry import load_model, modalities_of
from colatent.scoring.evaluate import evaluate
from colatent.scoring.questions import Withheld
from colatent.store.session import (
    Fold,
    read_fold,
    read_trials,
)
from colatent.store.stores import read_attrs

COLUMNS = [
    "session", "model", "fold", "varied", "share", "n", "heldout", "given", "predicted", "metric", "value",
]  # fmt: skip
CHANNELS_OF = "channels of "
BASELINE = "baseline: condition mean"  # no model of a config can be called so
# which draw it is, so that trials and channels are not drawn by the same numbers, nor as in `splits`
DRAW_TRIALS, DRAW_CHANNELS = 1, 2

Mask = NDArray[np.bool_]


class Point(NamedTuple):
    """What one fit has to learn from.

    Attributes:
        varied: "trials" (or "windows"), or "channels of {modality}".
        share: of them.
        trial: (trial,) over all trials of the session, True for those that are fitted to.
        channel: modality -> (channel,), True for those that exist.
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
        """The same for points that are one fit."""
        return self.trial.tobytes(), *(kept.tobytes() for kept in self.channel.values())


@dataclass(frozen=True)
class Recipe:
    """How every fit of a curve is made and scored.

    Attributes:
        curve: section ``learning_curve`` of the config.
        time_locked: False for windows of a continuous recording.
        stratify: draw each condition in proportion.
        seed: of the draws and of the fits.
        device: "cpu" or "cuda".
        clip: modality -> percentiles of the training trials.
        future: share at the end of each test trial that is predicted from what came before, if any.
    """

    curve: LearningCurve
    time_locked: bool
    stratify: bool
    seed: int
    device: str
    clip: dict[str, tuple[float, float]]
    future: float | None


def learning_curve(
    session: str | Path,
    split: str | Path,
    model: dict,
    curve: dict,
    *,
    n_folds: int,
    stratify: bool,
    seed: int,
    device: str,
    threads: int,
    clip: dict[str, tuple[float, float]],
    future: float | None,
    head: dict[str, str],
    progress: Callable[[str], None],
) -> pd.DataFrame:
    """Return the pooled scores of a model, and of the condition mean, at every share.

    Args:
        model, curve: sections of the config.
        n_folds: of the split; the section says how many of them are used.
        head: the columns ``session`` and ``model``.

    Returns:
        The columns ``COLUMNS``; ``n`` is the number of training trials, or of channels that inference
        was given.
    """
    trials, _ = read_trials(session)
    settings = TypeAdapter(Model).validate_python(model)
    section = LearningCurve.model_validate(curve)
    time_locked = read_attrs(session)["alignment"] == "trials"
    tables = []
    with fitting_device(settings, device, threads, progress) as used:
        recipe = Recipe(section, time_locked, stratify, seed, used, clip, future)
        for number in range(section.folds or n_folds):
            fold = read_fold(trials, split, number, seed, clip)
            table = curve_of_fold(trials, fold, number, settings, recipe, progress)
            model_name = table["model"].where(table["model"] == BASELINE, head["model"])
            tables.append(table.assign(**head | {"fold": number}).assign(model=model_name))
    return pd.concat(tables, ignore_index=True)[COLUMNS]


def curve_of_fold(
    trials: Trials, fold: Fold, number: int, settings: Model, recipe: Recipe, progress: Callable[[str], None]
) -> pd.DataFrame:
    """Return the scores of one fold; the model's rows have no name yet.

    Args:
        trials: all of the session, as recorded: each fit clips and scales its own share.
        fold: only its test trials, hidden channels and roles enter; its training trials are the ruler.
        number: of the fold.
    """
    scored: dict[tuple[bytes, ...], pd.DataFrame] = {}
    tables = []
    asked = list(points(trials, fold, number, settings, recipe, progress))
    fold = fold._replace(training=_ruler(trials, fold, asked, recipe, progress))
    for point in asked:
        progress(
            f"fold {number}: {point.share:g} of the {point.varied} ({point.trial.sum()} training "
            f"{'trials' if recipe.time_locked else 'windows'}, "
            + ", ".join(f"{kept.sum()} {m}" for m, kept in point.channel.items())
            + ")"
        )
        if point.key not in scored:
            own = score_point(trials, fold, point, settings, recipe, progress).assign(model="")
            scored[point.key] = own
            if not isinstance(settings, ConditionMeanSettings):
                mean = ConditionMeanSettings(kind="condition-mean")
                baseline = score_point(trials, fold, point, mean, recipe, lambda _: None)
                baseline = baseline[baseline["predicted"].isin(own["predicted"])]
                scored[point.key] = pd.concat([own, baseline.assign(model=BASELINE)])
        table = comparable(scored[point.key], point.modality)
        tables.append(table.assign(varied=point.varied, share=point.share, n=_number(table, point, fold)))
    return pd.concat(tables, ignore_index=True)


def _ruler(
    trials: Trials, fold: Fold, asked: list[Point], recipe: Recipe, progress: Callable[[str], None]
) -> Trials:
    """Return the fold's training trials without the continuous channels that do not vary at every point."""
    continuous = [m for m in trials.modalities if trials.kinds[m] != "spikes"]
    flat = {m: np.zeros(len(trials.channels[m]), dtype=bool) for m in continuous}
    for trial in {point.trial.tobytes(): point.trial for point in asked}.values():
        share = clip_to_training(trials, trial, recipe.clip).select(trial)
        for m in continuous:
            flat[m] |= np.isnan(standard_deviation(share.values[m], share.observed[m]))
    for m, channel in flat.items():
        if channel.any():
            names = ", ".join(np.array(trials.channels[m], dtype=object)[channel])
            progress(f"{m}: not scored at any share, as they do not vary in the trials of all: {names}")
    return fold.training.hide(flat)


def points(
    trials: Trials, fold: Fold, number: int, settings: Model, recipe: Recipe, progress: Callable[[str], None]
) -> Iterator[Point]:
    """Yield what is to be fitted in one fold: shares of the trials, then of each modality's channels."""
    curve, training = recipe.curve, np.flatnonzero(fold.role == TRAINING)
    everything = {m: np.ones(len(names), dtype=bool) for m, names in trials.channels.items()}
    draw = (recipe.seed, number, DRAW_TRIALS)
    if recipe.time_locked:
        condition = trials.condition[training] if recipe.stratify and trials.condition is not None else None
        chosen = shares_of_trials(condition, len(training), curve.trials, draw)
    else:
        chosen = shares_of_windows(len(training), curve.trials, draw)
    for share, mask in zip(curve.trials, chosen, strict=True):
        kept = np.isin(np.arange(trials.n_trials), training[mask])
        yield Point("trials" if recipe.time_locked else "windows", share, kept, everything)
    for modality, shares in curve.shares_of_channels(fold.hidden).items():
        if reason := _not_compared(modality, settings, trials, fold):
            progress(f"the number of channels of {modality} is not varied: {reason}")
            continue
        always = fold.hidden.get(modality, np.zeros(len(trials.channels[modality]), dtype=bool))
        draws = shares_of_channels(always, shares, (recipe.seed, number, DRAW_CHANNELS))
        for share, mask in zip(shares, draws, strict=True):
            if isinstance(settings, OneModalitySettings) and mask.sum() < settings.latents[modality]:
                progress(f"{share:g} of the {modality} are left out: fewer channels than latents")
                continue
            channel = everything | {modality: mask}
            yield Point(f"{CHANNELS_OF}{modality}", share, fold.role == TRAINING, channel)


def _not_compared(modality: str, settings: Model, trials: Trials, fold: Fold) -> str:
    """Return why the number of a modality's channels is not varied, or nothing if it is."""
    known = modalities_of(settings, trials)
    if modality not in known or isinstance(settings, ConditionMeanSettings):
        return "the model is not given it"
    if modality in getattr(settings, "image_shape", {}):
        return "the model reads it as an image"
    if modality not in fold.hidden and len(known) == 1:
        return "none of its channels are held out, and the model predicts nothing else"
    return ""


def score_point(
    trials: Trials,
    fold: Fold,
    point: Point,
    settings: Model,
    recipe: Recipe,
    progress: Callable[[str], None],
) -> pd.DataFrame:
    """Fit one model to one share, and return its pooled scores on the fold's test trials."""
    clipped = clip_to_training(trials, point.trial, recipe.clip)
    training = with_channels(clipped.select(point.trial), point.channel)
    fitted = fit_model(settings, training, recipe.time_locked, recipe.seed, recipe.device, progress)
    # as the ordinary fit is scored: rebuilt from its arrays, on the CPU
    model = load_model(settings, fitted.state(), training, recipe.time_locked, "cpu")
    ruler, test = (with_channels(t, point.channel) for t in (fold.training, fold.test))
    withheld = Withheld({m: h[point.channel[m]] for m, h in fold.hidden.items()}, recipe.future)
    modalities = modalities_of(settings, training)
    decoder = Decoder.fit(model, modalities, training, recipe.time_locked)
    scores = evaluate(model, modalities, ruler, test, withheld, decoder).scores
    return scores[scores["channel"] == "pooled"].drop(columns=["channel", "n"])


def comparable(scores: pd.DataFrame, modality: str | None) -> pd.DataFrame:
    """Return the scores that mean the same at every share of the channels of ``modality``."""
    if modality is None:
        return scores
    given = np.array([modality in names.split("+") for names in scores["given"]], dtype=bool)
    fixed = (scores["predicted"] != modality) | (scores["heldout"] == "channels")
    return scores[(given | (scores["model"] == BASELINE)) & fixed]


def _number(table: pd.DataFrame, point: Point, fold: Fold) -> NDArray[np.int_]:
    """Return the number of training trials, or of channels of the modality that inference was given."""
    if point.modality is None:
        return np.full(len(table), point.trial.sum())
    n = point.channel[point.modality].sum()
    hidden = fold.hidden[point.modality].sum() if point.modality in fold.hidden else 0
    return np.where(table["predicted"] == point.modality, n - hidden, n)
