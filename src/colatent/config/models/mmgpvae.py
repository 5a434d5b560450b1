"""The section on the MM-GPVAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from colatent.config.modalities import ModalitySettings
from colatent.config.models.base import (
    COUNT_LIKELIHOODS,
    GroupedLatentsSettings,
    Kernel,
    ModelKind,
    Size,
    check_likelihoods,
)
from colatent.config.settings import Count, Positive
from colatent.data.likelihoods import likelihoods_of


@dataclass(frozen=True)
class DecoderKind:
    """The record of a decoder: everything about it besides its code.

    Attributes:
        name: in the config.
        code: ``module:Class`` (`colatent.models.mmgpvae.decoders.base.LatentDecoder`), imported when needed.
        default_for: kinds of modalities whose default it is.
        is_linear: whether its class is a `LinearDecoder`: its expected log density needs no samples, and it
            has the same derivative everywhere.
        needs_image_shape: whether it draws images, whose rows and columns the config gives.
    """

    name: str
    code: str
    default_for: frozenset[str] = frozenset()
    is_linear: bool = False
    needs_image_shape: bool = False


DECODERS = {
    kind.name: kind
    for kind in (
        DecoderKind(
            "linear",
            "colatent.models.mmgpvae.decoders.linear:LinearDecoder",
            frozenset({"spikes"}),
            is_linear=True,
        ),
        DecoderKind("mlp", "colatent.models.mmgpvae.decoders.mlp:MLPDecoder"),
        DecoderKind(
            "convolutional",
            "colatent.models.mmgpvae.decoders.convolutional:ConvolutionalDecoder",
            needs_image_shape=True,
        ),
    )
}
DEFAULT_DECODER = "mlp"  # of all other kinds of modalities
if TYPE_CHECKING:
    DecoderName = str
    LikelihoodName = str
else:
    DecoderName = Literal[tuple(DECODERS)]
    LikelihoodName = Literal[likelihoods_of("mm-gpvae")]

# Enough to tell shared latents from private ones. On the demo and a monkey recording, twice as much predicted
# modalities from each other no better, and held-out neurons and muscles slightly worse.
CROSS_SHARE = 0.5

# On a monkey recording, hiding channels raised R² of muscles from neurons by .02 to .03; it buys nothing on
# three simulations, and the decay nothing there with a hundred trials.
CHANNEL_DROPOUT = 0.25
DECODER_DECAY = 0.3


def _cross_weights(model: dict[str, Any]) -> dict[str, float]:
    """Return the default cross_weight of each modality that shares a latent."""
    groups = [group.split("+") for group in model.get("latents", ())]
    names = dict.fromkeys(m for group in groups if len(group) > 1 for m in group)
    return {m: CROSS_SHARE * model.get("weight", {}).get(m, 1.0) for m in names}


class MMGPVAESettings(GroupedLatentsSettings):
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
    likelihood: dict[str, LikelihoodName] = Field(
        default_factory=dict, description="modality: observation model; poisson for spikes, else gaussian"
    )
    decoder: dict[str, DecoderName] = Field(
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
        description="sites: of all latents together, from the decoders. For comparison: mean-field (diagonal "
        "over Fourier coefficients), averaged (the same with shared latents averaged over the encoders, as "
        "in the paper), time-domain (diagonal over bins), independent (no prior over time: a plain VAE)",
    )
    time_scale: Positive | None = Field(
        None, description="time scale that random starts learn from (s); 5 bins if not given"
    )
    epochs: Count = 200
    restarts: Count = Field(
        3,
        description="random starts where there is no linear model (multi-modal GPFA of the same latents) to "
        "start from: for images, and posteriors for comparison. Each is trained for a fifth of the epochs; "
        "the one that is then best on held-out training trials is trained to completion",
    )
    learning_rate: Positive = 3e-3
    batch_size: Count = 16
    weight: dict[str, Positive] = Field(
        default_factory=dict,
        description="modality: factor of its log density in the objective, 1 where not named; less for many "
        "channels with correlated noise, such as pixels, which otherwise make the posterior too narrow",
    )
    cross_weight: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=_cross_weights,
        description="modality: weight, in the objective, of predicting it from the other modalities; by "
        "default half of its `weight` if it shares latents. With {} (the plain ELBO), private latents may "
        "absorb shared ones",
    )
    first_cross_weight: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None,
        description="modality: cross_weight during the first fifth of the epochs, if different; with "
        "`cross_weight: {}` it keeps shared latents from starting as private ones of one modality",
    )

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        for key in ("likelihood", "decoder", "image_shape", "weight", "cross_weight", "first_cross_weight"):
            if unused := set(getattr(self, key) or ()) - set(self.modalities):
                raise ValueError(f"{key} names {sorted(unused)[0]!r}, which has no latents")
        for name, decoder in self.decoder.items():
            if DECODERS[decoder].needs_image_shape and name not in self.image_shape:
                raise ValueError(f"decoder.{name} is {decoder}: give image_shape.{name}, [rows, columns]")
        return self

    def check_modalities(self, where: str, modalities: Mapping[str, ModalitySettings]) -> None:
        super().check_modalities(where, modalities)
        others = set(likelihoods_of("mm-gpvae")).difference(COUNT_LIKELIHOODS)
        check_likelihoods(where, self.likelihood, modalities, COUNT_LIKELIHOODS, others)

    def can_lack_channels(self, modality: str) -> bool:
        return modality not in self.image_shape

    @property
    def decoder_decay(self) -> float:
        """Decay of the decoders' weights, which helps with few trials; images would lose detail."""
        return 0.0 if self.image_shape else DECODER_DECAY

    @property
    def channel_dropout(self) -> float:
        """Share of channels hidden from an encoder in half of the batches; of pixels none."""
        return 0.0 if self.image_shape else CHANNEL_DROPOUT

    @property
    def samples(self) -> int:
        """Posterior samples of a prediction, in pairs; few for images, which are large."""
        return 4 if self.image_shape else 32

    @property
    def can_start_linear(self) -> bool:
        """Whether there is a linear model to start from."""
        return self.posterior == "sites" and not self.image_shape

    def posterior_mb(self, size: Size) -> float:
        return 0.06 * size.bins

    def fit_seconds(self, size: Size) -> float:
        # a random start takes a fifth of the epochs
        epochs = self.epochs * (1 if self.can_start_linear else 1 + (self.restarts - 1) / 5)
        # the cost of latents does not depend on the channels; the last term is for the steps after training
        return epochs * (1.5e-4 * size.bins + 0.08 * size.mb) + 3 * size.mb

    def decoder_of(self, modality: str, kind: str) -> str:
        """Return the decoder of a modality of a kind, such as spikes."""
        default = next((d.name for d in DECODERS.values() if kind in d.default_for), DEFAULT_DECODER)
        return self.decoder.get(modality, default)

    def likelihood_of(self, modality: str, kind: str) -> str:
        """Return the likelihood of a modality of a kind, such as spikes."""
        return self.likelihood.get(modality, "poisson" if kind == "spikes" else "gaussian")
