"""The methods text of a session: what was fitted, with which objective, and what every number means."""

import pkgutil

from colatent.data.metrics import METRICS
from colatent.report.session_results import SessionResults


def model_texts(results: SessionResults) -> list[tuple[str, str]]:
    """Return name and one-paragraph description of every model, by the function that its record names."""
    return [
        (name, pkgutil.resolve_name(model.record.methods)(model, results.about))
        for name, model in results.config.models.items()
    ]


def transform_texts(results: SessionResults) -> list[str]:
    """Return sentences on what was done to the observations after ingest."""
    trials = results.words.trials
    clipped = {m: getattr(modality, "clip", None) for m, modality in results.config.modalities.items()}
    return [
        f"{name} was clipped to the {clip[0]:g}th and {clip[1]:g}th percentile of each channel’s training "
        f"{trials}, in test {trials} too: its scores are of clipped values."
        for name, clip in clipped.items()
        if clip is not None
    ]


def decoding_text(results: SessionResults) -> str:
    """Return how latents are decoded, or nothing if none are."""
    decoded = results.scores.loc[results.scores["heldout"] == "decoding", "predicted"].unique()
    if not len(decoded):
        return ""
    trials = results.words.trials
    left_out = "left out in blocks" if results.continuous else "left out at random"
    return (
        f"Decoded from latents ({', '.join(decoded)}): ridge regression of each bin on the posterior means "
        "of the latents in the same bin, inferred only from the modalities listed under “given”, in training "
        f"and test {trials} alike. The penalty minimises the error in training {trials} {left_out}, which "
        "also set the width of the intervals; where the model itself was fitted to the decoded modality, "
        "these can be too narrow."
    )


def metric_texts(results: SessionResults) -> list[tuple[str, str]]:
    """Return name and definition of every metric in the session's scores."""
    present = set(results.scores["metric"].unique())
    return [(metric.title, metric.text) for name, metric in METRICS.items() if name in present]


def statistics_text(results: SessionResults) -> str:
    """Return how folds and seeds become mean ± s.e.m."""
    seeds = results.config.heldout.seeds
    averaged = f"averaged over {len(seeds)} seeds, then " if len(seeds) > 1 else ""
    trials = results.words.trials
    told = [name for name, model in results.config.models.items() if model.told_condition]
    other = f"; {', '.join(told)} {'was' if len(told) == 1 else 'were'} told it too" if told else ""
    return (
        f"Scores are pooled within a fold, {averaged}given as mean ± s.e.m. over {len(results.role)} folds. "
        f"Folds share training {trials}, so the s.e.m. understates how much a new recording would differ. "
        "Differences are paired by fold, from the best baseline (by its mean) in the same table that was "
        f"given the same modalities, or {results.words.nothing} (the condition mean{other}); that baseline "
        "is chosen on the test scores, in its favour. A continuous channel that is constant or never "
        f"observed in the training {trials}, or constant in the scored bins, has no score in any metric; a "
        "silent unit has no bits/spike and no PSTH R². Such channels are counted (“without score”) and left "
        "out of pooled values, of their n and of histograms of the PIT. Silent units stay in log density, "
        "coverage and PIT, as zeros have a probability like any other count, and pooled bits/spike charges "
        "what was predicted of them."
    )
