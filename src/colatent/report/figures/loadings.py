"""Figure: what each latent does to each channel."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from numpy.typing import NDArray

from colatent.report.figures.base import ReportFigure, finish, new_figure, style
from colatent.report.figures.style import short
from colatent.report.model_results import Array, ModelResults

NAMED = 40  # channels: of more, only every few are named
VECTOR = 1500  # cells: more are drawn as one image


def loadings_figure(model: ModelResults) -> ReportFigure | None:
    """Draw the loadings (channel x latent) of each modality, sorted, of the fit shown."""
    summary = model.summaries.get(model.shown, {})
    parts = {n.removeprefix("loading/"): d for n, d in summary.items() if n.startswith("loading/")}
    if not parts:
        return None
    most = max(d.sizes["channel"] for d in parts.values())
    with style():
        title = f"Loadings of {model.model}, fitted on training {model.session.words.trials}"
        figure = new_figure(title, min(1.5 + 0.13 * min(most, NAMED), 6.5))
        tables = []
        grid = figure.subplots(1, max(len(parts), 2), squeeze=False)[0]
        for axes in grid[len(parts) :]:
            axes.set_visible(False)
        for axes, (name, data) in zip(grid, parts.items(), strict=False):
            loading = data["loading"].values
            driven = np.flatnonzero((loading != 0).any(axis=0))
            order = sorted_channels(loading)
            channels = [str(c) for c in data["channel"].values[order]]
            latents = [model.latent_names[k] for k in driven]
            mesh = _draw(axes, loading[order][:, driven], channels, [str(k + 1) for k in driven])
            axes.set_title(f"{short(name)} ({len(channels)} channels)")
            axes.set_xlabel("latent (number)")
            figure.colorbar(mesh, ax=axes, shrink=0.8).set_label(str(data.attrs["unit"]), fontsize=7.5)
            table = pd.DataFrame(loading[order][:, driven], columns=latents)
            table.insert(0, "channel", channels)
            tables.append(table.melt(["channel"], var_name="latent").assign(modality=name))
    results = model.session
    said = [f"{m}: {d.attrs['likelihood']}" for m, d in parts.items() if d.attrs.get("likelihood")]
    likelihoods = f" Likelihood in this fit: {'; '.join(said)}." if said else ""
    names = "; ".join(f"{k + 1}: {n}" for k, n in enumerate(model.latent_names))
    caption = (
        "Loadings: what one prior s.d. of a latent adds to a channel (for decoders of the MM-GPVAE, their "
        f"mean slope at the latents of the test {results.words.trials}; a linear decoder has the same slope "
        "everywhere). Channels are sorted by the latent that moves them most, then by sign and size. White: "
        f"no effect. Fold {results.shown_fold}, seed {results.shown_seed}.{likelihoods} Latents: {names}."
    )
    return finish("loadings", figure, caption, pd.concat(tables))


def sorted_channels(loading: Array) -> NDArray[np.intp]:
    """Return the order of channels: by the latent of the largest loading, then from raised to lowered."""
    strongest = np.abs(loading).argmax(axis=1)
    return np.lexsort((-loading[np.arange(len(loading)), strongest], strongest))


def _draw(axes: Axes, loading: Array, channels: list[str], latents: list[str]) -> QuadMesh:
    limit = max(float(np.abs(loading).max(initial=0.0)), 1e-12)
    mesh = axes.pcolormesh(loading, cmap="RdBu_r", vmin=-limit, vmax=limit, rasterized=loading.size > VECTOR)
    mesh.set_edgecolor("face")  # no seams between cells on a dark page
    axes.set_xticks(np.arange(len(latents)) + 0.5, latents)
    step = int(np.ceil(len(channels) / NAMED))
    places = np.arange(0, len(channels), step)
    axes.set_yticks(places + 0.5, [short(channels[i], 16) for i in places], fontsize=6.5)
    axes.invert_yaxis()
    axes.set_ylabel("channel")
    axes.tick_params(length=0)
    return mesh
