"""Figure: the evidence that a shared group is shared."""

import pandas as pd
import xarray as xr

from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import BLUE, GREY, break_group
from colatent.report.model_results import ModelResults

PERCENTILE = 95  # of permuted trials, beyond which a prediction counts as evidence


def shared_signal_figure(model: ModelResults) -> ReportFigure | None:
    """Draw what each shared group predicts of a modality from the others, beside permuted trials."""
    found = {fit: s["shared"] for fit, s in model.summaries.items() if "shared" in s}
    if not found:
        return None
    table = pd.concat([_rows(data, *fit) for fit, data in found.items()])
    trials = model.session.words.trials
    pairs = list(dict.fromkeys(zip(table["group"], table["modality"], strict=True)))
    place = table.apply(lambda row: pairs.index((row["group"], row["modality"])), axis=1)
    with style():
        figure = new_figure(
            f"What shared groups of {model.model} predict from other modalities, held-out (test) {trials}",
            0.42 * len(pairs) + 1.0,
            width=8.5,
        )
        axes = figure.subplots()
        limit = f"{trials} permuted, {PERCENTILE}th percentile"
        axes.plot(table["permuted"], place, "|", color=GREY, ms=9, mew=1.5, label=limit)
        axes.plot(table["r2"], place, "o", color=BLUE, ms=5, alpha=0.7, mew=0, label=f"the same {trials}")
        axes.axvline(0, color=GREY, lw=0.8, ls=":")
        axes.set_yticks(range(len(pairs)), [f"{break_group(g, 24)} → {m}" for g, m in pairs])
        axes.set_ylim(len(pairs) - 0.5, -0.5)
        axes.set_xlabel("R²; one mark per fold and seed")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    caption = (
        "The latents of each shared group were inferred from its other modalities alone, all other latents "
        f"put at their prior mean, and the modality decoded from them, in the test {trials} of each fold (R² "
        "over all bins and channels, in units of their training s.d.; 0: no better than the mean). Grey: the "
        f"same with the latents of permuted {trials}, which is what a common time course predicts. "
        f"{_verdict(table, pairs, trials)}"
    )
    return finish("shared_signal", figure, caption, table)


def _rows(data: xr.Dataset, fold: int, seed: int) -> pd.DataFrame:
    limit = data["permuted"].quantile(PERCENTILE / 100, dim="permutation").drop_vars("quantile")
    joined = xr.Dataset({"r2": data["r2"], "permuted": limit}).to_dataframe().reset_index().dropna()
    return joined.assign(fold=fold, seed=seed)


def _verdict(table: pd.DataFrame, pairs: list[tuple[str, str]], trials: str) -> str:
    """Say which groups show no evidence of a shared signal."""
    is_above = (table["r2"] > table["permuted"]) & (table["r2"] > 0)
    share = is_above.groupby([table["group"], table["modality"]], sort=False).mean()
    without = [f"{group} → {modality}" for group, modality in pairs if share[group, modality] <= 0.5]
    if not without:
        return f"Every shared group predicts each of its modalities beyond permuted {trials} in most folds."
    return (
        f"No evidence of a shared signal (most folds are not beyond permuted {trials}): {', '.join(without)}."
    )
