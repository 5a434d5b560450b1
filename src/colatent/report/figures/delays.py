"""Figure: by how much modalities follow the latents that they share."""

import numpy as np
import pandas as pd
import xarray as xr

from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import BLUE, GREY
from colatent.report.model_results import ModelResults


def delays_figure(model: ModelResults) -> ReportFigure | None:
    """Draw by how much each modality follows each shared latent, one mark per fit."""
    latent = {fit: s["latent"] for fit, s in model.summaries.items() if "latent" in s}
    delays = {fit: data for fit, data in latent.items() if "delay" in data}
    if model.shown not in delays:
        return None
    table = pd.concat(
        [_rows(delay, model.latent_names, *fit) for fit, delay in delays.items()], ignore_index=True
    )
    if table.empty:  # no latent is shared
        return None
    pairs = list(dict.fromkeys(zip(table["latent"], table["modality"], strict=True)))
    place = table.apply(lambda row: pairs.index((row["latent"], row["modality"])), axis=1)
    with style():
        figure = new_figure(f"Delays of {model.model} (training)", 0.36 * len(pairs) + 0.9, width=8.5)
        axes = figure.subplots()
        axes.plot(table["delay_ms"], place, "o", color=BLUE, ms=5, alpha=0.6, mew=0)
        of_shown = table[(table["fold"] == model.shown[0]) & (table["seed"] == model.shown[1])]
        known = of_shown.dropna(subset=["low_ms", "high_ms"])
        longest = 1.5 * known["longest_ms"]  # open ends leave the axes
        axes.hlines(
            place[known.index],
            known["low_ms"].clip(-longest),
            known["high_ms"].clip(upper=longest),
            color=BLUE,
        )
        bin_ms = 1e3 * float(model.session.attrs["bin_width"])
        for at in (-bin_ms, 0.0, bin_ms):
            axes.axvline(at, color=GREY, lw=0.8, ls="-" if at == 0 else ":")
        ends = table[["delay_ms", "low_ms", "high_ms"]].abs().to_numpy()
        far = 1.1 * max(1.5 * bin_ms, ends[np.isfinite(ends)].max())
        axes.set_xlim(-far, far)
        axes.set_yticks(range(len(pairs)), [f"{name}: {modality}" for name, modality in pairs])
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        axes.set_xlabel(
            "delay (ms; dotted: one bin); one mark per fold and seed; positive: the modality follows"
        )
    level = model.summaries[model.shown]["latent"]["delay_low"].attrs["level"]
    bar = (
        f" Bar: {level:.0%} profile-likelihood interval of fold {model.shown[0]}, seed {model.shown[1]}; it "
        "leaves the axes where the data allow any delay; valid only if the model is."
    )
    caption = (
        "Learned with all other parameters from the training trials, relative to the modality of the group "
        "that the config names first; median over fits and, in brackets, their range. Latents of different "
        "fits are matched by their order alone: a wide range can also mean that fits order them differently."
        f"{'' if known.empty else bar} {_in_words(table, pairs)}."
    )
    return finish("delays", figure, caption, table)


def _rows(found: xr.Dataset, names: list[str], fold: int, seed: int) -> pd.DataFrame:
    """One row for each shared latent and each modality of its group but the first."""
    delay = found["delay"]
    rows = [
        {
            "latent": names[k],
            "modality": str(modality),
            "delay_ms": 1e3 * float(delay.values[m, k]),
            "low_ms": 1e3 * float(found["delay_low"].values[m, k]),
            "high_ms": 1e3 * float(found["delay_high"].values[m, k]),
            "longest_ms": 1e3 * float(delay.attrs["longest"]),
            "fold": fold,
            "seed": seed,
        }
        for k in range(len(names))
        for m, modality in list(enumerate(delay["modality"].values))
        if np.isfinite(delay.values[m, k]) and np.isfinite(delay.values[:m, k]).any()
    ]
    return pd.DataFrame(rows)


def _in_words(table: pd.DataFrame, pairs: list[tuple[str, str]]) -> str:
    """Say each delay with its sign, such as "emg follows by 118 ms"."""
    said = []
    for latent, modality in pairs:
        rows = table[(table["latent"] == latent) & (table["modality"] == modality)]
        own, longest = rows["delay_ms"], rows["longest_ms"]
        verb = "follows" if own.median() >= 0 else "leads"
        spread = f" ({own.min():.0f} to {own.max():.0f})" if len(own) > 1 else ""
        at = int((own.abs() > 0.999 * longest).sum())
        far = f", in {at} of {len(own)} fits at the longest delay allowed: it may be longer" if at else ""
        said.append(f"{latent}: {modality} {verb} by {abs(own.median()):.0f} ms{spread}{far}")
    return "; ".join(said)
