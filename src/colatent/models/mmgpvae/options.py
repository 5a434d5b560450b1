"""Options of the MM-GPVAE, checked when they are given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from colatent.data.likelihoods import likelihoods_of
from colatent.models import gp
from colatent.models.mmgpvae.decoders import DECODERS
from colatent.models.mmgpvae.inference import INFERENCES
from colatent.models.mmgpvae.training import Schedule


class CrossWeights(NamedTuple):
    """Modality -> weight of its prediction from the others, in the first epochs and in the other ones."""

    first: Mapping[str, float]
    final: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What an `MMGPVAE` is made with.

    Attributes:
        latents: group -> number of latents; a group is the modalities it drives, joined by "+" in
            any order.
        likelihood: modality -> gaussian, poisson, negative-binomial or bernoulli.
        decoder: modality -> linear, mlp or convolutional (for images; the encoder is then as well).
        image_shape: modality with a convolutional decoder -> rows and columns of its images.
        bin_width: seconds; that of the training trials if None.
        kernel: of the prior, see `gp.KERNELS`; its variance is 1.
        posterior: one of `INFERENCES`; all but ``sites`` are there to compare with.
        time_scale: initial time scale of the latents, seconds; they are learned.
        epochs, batch_size, patience, validation_share: see `Schedule`.
        restarts: random weights to start from; the one that promises most early on is trained to the end.
        learning_rate: of the networks' weights.
        time_scale_rate: learning rate of the log time scales and log prior s.d.
        weight_decay, decoder_decay: decoupled decay (AdamW) of the encoders' and of the decoders'
            weights, not of biases and noise. The latter helps with few trials of spikes, and costs
            images some detail and bands some of their coverage.
        weight: modality -> factor of its expected log-density in the objective, 1 where not named.
            Noise that is correlated between channels (neighbouring pixels) counts as many times as
            there are channels, and the posterior becomes too sure: less than 1 makes up for it.
        cross_weight: modality -> weight, in the objective, of its log-density decoded from
            the posterior mean given the other modalities. Empty: the plain ELBO.
        first_cross_weight: the same in the first epochs, if not as ``cross_weight``. With it a latent that
            modalities share does not begin as what moves one of them alone.
        channel_dropout: share of a modality's channels that half of the steps hide from its
            encoder and still reconstruct, so that inference from some of the channels works.
        context: bins that the encoders' convolutions see (odd). With more than 1 the errors of a modality's
            sites resemble each other from bin to bin, and count as if they did not.
        hidden: units of each hidden layer of encoders and MLP decoders.
        dropout: share of the encoders' hidden units that each step drops.
        samples: posterior samples of a prediction (even).
        device: cpu, cuda or auto.
    """

    latents: Mapping[str, int]
    likelihood: Mapping[str, str]
    decoder: Mapping[str, str]
    bin_width: float | None = None
    kernel: str = "squared-exponential"
    posterior: str = "sites"
    time_scale: float = 0.2
    restarts: int = 1
    epochs: int = 60
    batch_size: int = 16
    patience: int = 25
    validation_share: float = 0.1
    learning_rate: float = 1e-2
    time_scale_rate: float = 2e-2
    weight_decay: float = 0.3
    decoder_decay: float = 0.3
    image_shape: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    weight: Mapping[str, float] = field(default_factory=dict)
    cross_weight: Mapping[str, float] = field(default_factory=dict)
    first_cross_weight: Mapping[str, float] | None = None
    channel_dropout: float = 0.25
    context: int = 1
    hidden: int = 64
    dropout: float = 0.1
    samples: int = 32
    device: str = "auto"

    def __post_init__(self) -> None:
        _require_known("kernel", self.kernel, gp.KERNELS)
        _require_known("posterior", self.posterior, tuple(INFERENCES))
        _require_known("device", self.device, ("cpu", "cuda", "auto"))
        if min(self.latents.values(), default=0) < 1:
            raise ValueError(f"latents must name at least one group, each of 1 or more: {dict(self.latents)}")
        if len({frozenset(name.split("+")) for name in self.latents}) < len(self.latents):
            raise ValueError(f"latents name the same group twice: {', '.join(self.latents)}")
        for name in self.modalities:
            if name not in self.likelihood or name not in self.decoder:
                raise ValueError(f"modality {name!r} has latents, and needs a likelihood and a decoder")
            _require_known(f"likelihood of {name!r}", self.likelihood[name], likelihoods_of("mm-gpvae"))
            _require_known(f"decoder of {name!r}", self.decoder[name], DECODERS)
            if self.decoder[name] == "convolutional" and name not in self.image_shape:
                raise ValueError(f"the decoder of {name!r} is convolutional, and needs its image_shape")
        if self.restarts < 1:
            raise ValueError(f"restarts must be at least 1, not {self.restarts}")
        if self.context % 2 == 0 or self.samples % 2 == 1:
            raise ValueError(f"context must be odd, samples even, not {self.context} and {self.samples}")
        for key in ("weight", "cross_weight", "first_cross_weight", "image_shape"):
            if unknown := set(getattr(self, key) or ()) - set(self.modalities):
                raise ValueError(f"{key} names {sorted(unknown)[0]!r}, which has no latents")
        _ = self.schedule  # raises what it finds wrong

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.epochs, self.batch_size, self.patience, self.validation_share)

    @property
    def cross_weights(self) -> CrossWeights:
        """Return the cross weights that count: not zero, and where there are other modalities."""
        first = self.cross_weight if self.first_cross_weight is None else self.first_cross_weight
        several = len(self.modalities) > 1
        return CrossWeights(
            *({m: w for m, w in x.items() if w and several} for x in (first, self.cross_weight))
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(sorted({name for group in self.latents for name in group.split("+")}))

    @property
    def latent_groups(self) -> tuple[str, ...]:
        return tuple(group for group, n in self.latents.items() for _ in range(n))


def _require_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {what}: {value!r}; choose one of {', '.join(known)}")
