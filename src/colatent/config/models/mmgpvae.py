"""The section on the MM-GPVAE."""

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from colatent.config.models.base import Kernel, ModelKind, ModelSettings, Size
from colatent.config.settings import Count, Odd, Positive

Likelihood = Literal["poisson", "negative-binomial", "gaussian", "bernoulli"]

# Enough to tell shared latents from private ones. On the demo and a monkey's recording twice as much
# predicted no better from other modalities, and held-out neurons and muscles a little worse.
CROSS_SHARE = 0.5


def _cross_weights(model: dict[str, Any]) -> dict[str, float]:
    """Return a share of the weight of each modality that has a latent in common with another."""
    groups = [group.split("+") for group in model.get("latents", ())]
    names = dict.fromkeys(m for group in groups if len(group) > 1 for m in group)
    return {m: CROSS_SHARE * model.get("weight", {}).get(m, 1.0) for m in names}


class MMGPVAESettings(ModelSettings):
    """Multi-modal Gaussian-process variational autoencoder (Gondur et al. 2024)."""

    kind: Literal["mm-gpvae"]
    record: ClassVar = ModelKind(
        title="multi-modal GP-VAE",
        code="colatent.models.mmgpvae.model:MMGPVAE",
        methods="colatent.models.mmgpvae.methods:mmgpvae",
        has_latents=True,
        needs_torch=True,
        uses_gpu=True,
    )
    latents: dict[str, Count] = Field(
        min_length=1, description="latent group (modalities joined by +): number of latents"
    )
    likelihood: dict[str, Likelihood] = Field(
        default_factory=dict, description="modality: observation model; poisson for spikes, else gaussian"
    )
    decoder: dict[str, Literal["linear", "mlp", "convolutional"]] = Field(
        default_factory=dict,
        description="modality: decoder; linear for spikes, else mlp; convolutional for images",
    )
    image_shape: dict[str, tuple[Count, Count]] = Field(
        default_factory=dict,
        description="modality with a convolutional decoder: rows and columns of its images",
    )
    kernel: Kernel = Field("squared-exponential", description="covariance of the latents over time")
    posterior: Literal["sites", "mean-field", "averaged", "time-domain", "independent"] = Field(
        "sites",
        description="sites: exact given the encoders. To compare with: mean-field (diagonal over Fourier "
        "coefficients), averaged (so, and shared latents averaged over the encoders: the paper's), "
        "time-domain (diagonal over bins), independent (no prior over time: a plain VAE)",
    )
    time_scale: Positive | None = Field(
        None, description="time scale that learning starts from (s); 5 bins if not given"
    )
    epochs: Count = 200
    restarts: Count = Field(
        3,
        description="random weights to start from, each for a fifth of the epochs; the one that does best by "
        "then on training trials held out of the updates goes on. More where fits of several folds disagree",
    )
    learning_rate: Positive = 3e-3
    batch_size: Count = 16
    weight: dict[str, Positive] = Field(
        default_factory=dict,
        description="modality: factor of its log-density in the objective, 1 where not named; less for many "
        "channels whose noise is correlated, such as pixels",
    )
    cross_weight: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=_cross_weights,
        description="modality: weight, in the objective, of predicting it from the other modalities; if not "
        "given, half of its `weight` if it shares latents. With {}, the plain ELBO, private latents may take "
        "in shared ones",
    )
    first_cross_weight: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None,
        description="modality: the same in the first fifth of the epochs, where it is to be another; with "
        "`cross_weight: {}` it keeps shared latents from beginning as what moves one modality alone",
    )
    decoder_decay: float = Field(
        0.3,
        ge=0,
        description="decay of the decoders' weights: helps with few trials; 0 for images, which lose detail",
    )
    samples: Count = Field(
        32, multiple_of=2, description="posterior samples of a prediction; few for images, which are large"
    )
    channel_dropout: float = Field(
        0.25, ge=0, lt=1, description="share of channels hidden from the encoder in half of the batches"
    )
    context: Odd = Field(
        1, description="bins that an encoder sees at once (odd); smoothing over time is left to the prior"
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if len({frozenset(group.split("+")) for group in self.latents}) < len(self.latents):
            raise ValueError(f"latents name one group twice: {', '.join(self.latents)}")
        for key in ("likelihood", "decoder", "image_shape", "weight", "cross_weight", "first_cross_weight"):
            if unused := set(getattr(self, key) or ()) - set(self.modalities):
                raise ValueError(f"{key} names {sorted(unused)[0]!r}, which has no latents")
        for name, decoder in self.decoder.items():
            if decoder == "convolutional" and name not in self.image_shape:
                raise ValueError(f"decoder.{name} is convolutional: give image_shape.{name}, [rows, columns]")
        return self

    def modalities_among(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(name for name in names if name in self.modalities)

    def can_lack_channels(self, modality: str) -> bool:
        return modality not in self.image_shape

    def posterior_mb(self, size: Size) -> float:
        return 0.06 * size.bins

    def fit_seconds(self, size: Size) -> float:
        epochs = self.epochs * (1 + (self.restarts - 1) / 5)  # a start takes a fifth of them
        # what a latent takes does not depend on the channels; the last term is for what follows training
        return epochs * (1e-4 * size.bins + 0.08 * size.mb) + 3 * size.mb

    def decoder_of(self, modality: str, kind: str) -> str:
        """Return the decoder of a modality of a kind, such as spikes."""
        return self.decoder.get(modality, "linear" if kind == "spikes" else "mlp")

    @property
    def modalities(self) -> list[str]:
        return list(dict.fromkeys(m for group in self.latents for m in group.split("+")))
