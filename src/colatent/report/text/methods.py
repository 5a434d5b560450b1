"""The methods text of a session: what was fitted, with which objective, and what every number means."""

from colatent.config import (
    COUNT_LIKELIHOODS,
    GPFASettings,
    LagRegressionSettings,
    MMGPVAESettings,
    SmoothedFASettings,
)
from colatent.report.session_results import SessionResults
from colatent.report.text.labels import (
    KINDS,
    METRICS,
    count,
)

METRIC_TEXT = {
    "bits_per_spike": "(NLL of the null − NLL of the model) / (number of spikes · ln 2), both Poisson, "
    "summed over the scored bins; the null is each unit’s mean over these bins, which favours it slightly "
    "(Pei et al. 2021, Neural Latents Benchmark). 0: no better than the mean. Units silent in these bins "
    "have no score of their own; the pooled one charges the spikes predicted of them.",
    "r2": "1 − SSE/SST about the mean over the scored bins. Pooled: SSE and SST summed over channels in "
    "units of each channel’s s.d. in the training trials.",
    "psth_r2": "R² of the predicted mean over test trials of each condition, over conditions and time. "
    "Units silent in the training trials or in these have none.",
    "nrmse": "root-mean-square error over the channel’s s.d. in the training trials.",
    "log_density": "mean log predictive density, nats per scored bin and channel, in the modality’s own "
    "unit: comparable between models of one modality only.",
    "coverage_50": "share of observations inside the central 50 % predictive interval; 0.5 if calibrated. A "
    "count counts with the share of its probability that lies inside (non-randomised PIT, Czado et al. "
    "2009).",
    "coverage_95": "the same for the 95 % interval; 0.95 if calibrated.",
}

CALIBRATED = (
    "encoders of modalities with a non-linear decoder were made less sure, by one factor of at most 1 a "
    "latent, where training trials that were held out of the updates asked for it, by the evidence of what "
    "the encoders say or by the objective (but for cross-modal prediction)"
)
FREED = (
    "latents of modalities with linear decoders and without a term of cross-modal prediction were freed of "
    "what is linear in the latents that these modalities share with more, which leaves all expected "
    "observations as they are"
)
IMPROVED = (
    "linear decoders and the time scales were brought further up the objective, with the posterior that "
    "inference uses and a standard normal prior on the loadings, up to where training trials that were held "
    "out of the updates had gained most"
)
REFINED = (
    "non-linear decoders of modalities without a term of cross-modal prediction were fitted once more, to "
    "the posterior of the training trials, by the same objective and with the same trials held out of the "
    "updates"
)
CROSS_MODAL = "cross-modal prediction of"
POSTERIOR_TEXT = {  # of MM-GPVAE
    "sites": "",
    "mean-field": " To compare with: the posterior is diagonal over Fourier coefficients.",
    "averaged": " To compare with: the posterior is diagonal over Fourier coefficients, and the encoders’ "
    "sites on shared latents are averaged.",
    "time-domain": " To compare with: the posterior is diagonal over bins.",
    "independent": " To compare with: a plain VAE, without a prior over time.",
}


def model_texts(results: SessionResults) -> list[tuple[str, str]]:
    """Return name and one-paragraph description of every model."""
    word = f"{results.trial_word}s"
    return [(name, _describe(results, name).replace("trials", word)) for name in results.config.models]


def _describe(results: SessionResults, name: str) -> str:
    model = results.config.models[name]
    head = KINDS.get(model.kind, model.kind)
    head = head[0].upper() + head[1:]
    if isinstance(model, MMGPVAESettings):
        kinds = {m: results.modalities[m].kind for m in model.modalities}
        return f"{head} ({_latents(model.latents)}; {model.kernel} prior). {_objective(model, kinds)}"
    if isinstance(model, GPFASettings):
        default = "gaussian-sqrt" if results.modalities[model.modality].kind == "spikes" else "gaussian"
        likelihood = model.likelihood.get(model.modality, default)
        if likelihood in COUNT_LIKELIHOODS:
            return (
                f"{head} ({_latents(model.latents)}; {model.kernel} prior) of counts, {likelihood} with a "
                "log-linear mean. Objective: the evidence lower bound of a Gaussian posterior. Predictions "
                "average over the posterior of the latents."
            )
        what = "square-rooted counts" if likelihood == "gaussian-sqrt" else "values"
        return (
            f"{head} ({_latents(model.latents)}; {model.kernel} prior), Gaussian on {what}. Objective: the "
            f"exact log marginal likelihood. {_readout(results, model.modality)}"
        )
    if isinstance(model, SmoothedFASettings):
        return (
            f"{head} ({_latents(model.latents)}), observations smoothed by a Gaussian of s.d. "
            f"{model.smoothing:g} s. {_readout(results, model.modality)}"
        )
    if isinstance(model, LagRegressionSettings):
        return (
            f"{head}: every modality from every set of the others at {model.lags} lags of one bin, centred. "
            "Hyper-parameters were chosen inside the training trials."
        )
    if results.continuous:
        return f"{head}: each channel’s mean over all bins of the training windows."
    if results.condition is None:
        return f"{head}: each channel’s mean time course over the training trials."
    return (
        f"{head}: each channel’s mean time course over the training trials of the trial’s condition. It is "
        "told the condition of a test trial, which no other model is."
    )


def _latents(latents: dict[str, int]) -> str:
    return ", ".join(f"{count(n, 'latent')} of {group}" for group, n in latents.items())


def _objective(model: MMGPVAESettings, kinds: dict[str, str]) -> str:
    first, final = (_weighed(model, weights) for weights in (model.first_cross_weight, model.cross_weight))
    objective = f"Objective: {final}."
    if model.first_cross_weight is not None and first != final:
        objective += f" In the first epochs, at most a fifth of them, it was {first}."
    if CROSS_MODAL in objective:
        objective += (
            " Cross-modal prediction is the log density of a modality, decoded from the posterior mean given "
            "only the others (latents that none of them informs are at their prior mean); it makes shared "
            "latents predictive, and the sum is no bound on the likelihood."
        )
    if CROSS_MODAL in final:
        objective += (
            " These modalities, where not given, are predicted in the same way, with a noise of their own."
        )
    dropout = ""
    if model.channel_dropout:
        share = 100 * model.channel_dropout
        dropout = (
            f" In half of the batches {share:g} % of one modality’s channels were hidden from its encoder "
            "and still reconstructed."
        )
    posterior = POSTERIOR_TEXT[model.posterior]
    return objective + _balance(model) + posterior + dropout + _restarts(model) + _last_steps(model, kinds)


def _weighed(model: MMGPVAESettings, cross_weight: dict[str, float] | None) -> str:
    """Return the objective with these cross weights in words."""
    weights = {m: w for m, w in (cross_weight or {}).items() if w > 0 and len(model.modalities) > 1}
    terms = [f"{w:g} × {CROSS_MODAL} {m}" for m, w in weights.items()]
    return " + ".join(["ELBO", *terms]) if terms else "the ELBO"


def _last_steps(model: MMGPVAESettings, kinds: dict[str, str]) -> str:
    """What follows the training by gradients, of what there is to do for modalities of these kinds."""
    exact = model.posterior == "sites"
    crossed = {m for m, w in model.cross_weight.items() if w > 0}
    linear = {m for m in model.modalities if model.decoder_of(m, kinds[m]) == "linear"}
    other = set(model.modalities) - linear
    shares = len(model.modalities) > 1
    applied = (
        (CALIBRATED, exact and other),
        (IMPROVED, exact and linear),
        (FREED, exact and shares and linear - crossed),
        (REFINED, other - crossed),
    )
    steps = [text for text, is_applied in applied if is_applied]
    return f" At the end, {'; then '.join(steps)}." if steps else ""


def _restarts(model: MMGPVAESettings) -> str:
    if model.restarts == 1:
        return ""
    return (
        f" Each fit had {model.restarts} starts from other random weights; after a fifth of the epochs the "
        "one went on that had the least loss on training trials that were held out of the updates."
    )


def _balance(model: MMGPVAESettings) -> str:
    if not model.weight:
        return ""
    factors = ", ".join(f"that of {m} by {w:g}" for m, w in model.weight.items())
    return f" Log-densities in the ELBO were multiplied, {factors}, so that it is no bound on the likelihood."


def _readout(results: SessionResults, modality: str) -> str:
    kind = "Poisson" if results.modalities[modality].kind == "spikes" else "linear"
    return (
        f"Predictions are read out of its latents by a {kind} regression for each channel, fitted on the "
        "training trials with the latents inferred as in the test trials (for hidden channels: from the "
        "others alone); for a hidden end of trials it is adapted to that end of the training trials, with "
        "latents inferred from what came before it. They use the posterior mean, so their intervals leave "
        "out the latents’ own uncertainty, except that the noise of continuous values at a hidden end is "
        "that of their prediction there."
    )


def transform_texts(results: SessionResults) -> list[str]:
    """Return sentences on what was done to the observations after ingest."""
    texts = [
        f"{name} was clipped to the {modality.clip[0]:g}th and {modality.clip[1]:g}th percentile of each "
        "channel’s training trials, in test trials too: its scores are of clipped values."
        for name, modality in results.config.modalities.items()
        if modality.kind == "continuous" and modality.clip is not None
    ]
    return texts


def decoding_text(results: SessionResults) -> str:
    """Return how latents are decoded, or nothing if none are."""
    decoded = results.scores.loc[results.scores["heldout"] == "decoding", "predicted"].unique()
    if not len(decoded):
        return ""
    word = results.trial_word
    left_out = "left out in blocks" if results.continuous else "left out at random"
    return (
        f"Decoded from latents ({', '.join(decoded)}): ridge regression of each bin on the posterior means "
        "of the same bin’s latents, inferred from the modalities listed under “given” alone in training and "
        f"test {word}s. The penalty has the least error in training {word}s {left_out}, which also give the "
        "width of the intervals; where the model itself was fitted to the decoded modality, they can be too "
        "narrow."
    )


def metric_texts(results: SessionResults) -> list[tuple[str, str]]:
    """Return name and definition of every metric in the session's scores."""
    present = set(results.scores["metric"].unique())
    return [(METRICS[m], text) for m, text in METRIC_TEXT.items() if m in present]


def statistics_text(results: SessionResults) -> str:
    """Return how folds and seeds become mean ± s.e.m."""
    seeds = results.config.heldout.seeds
    averaged = f"averaged over {len(seeds)} seeds, then " if len(seeds) > 1 else ""
    word = results.trial_word
    return (
        f"Scores are pooled within a fold, {averaged}given as mean ± s.e.m. over {len(results.role)} folds. "
        "Folds share training trials, so the s.e.m. understates how much a new recording would differ. "
        "Differences are paired by fold, from the baseline with the highest mean in the same table that was "
        f"given the same modalities, or {results.nothing} (the condition mean); that baseline is chosen "
        "on the test scores, in its favour. A continuous channel that is constant or never observed in the "
        f"training {word}s, or constant in the scored bins, has no score by any metric; a silent unit has no "
        "bits/spike and no PSTH R². They are counted (“without score”), and left out of pooled values, of "
        "their n and of histograms of the PIT. Silent units stay in log density, coverage and PIT, as "
        "zeros have a probability like any other count, and pooled bits/spike charges what was predicted of "
        "them."
    )
