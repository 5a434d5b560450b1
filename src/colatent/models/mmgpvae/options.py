"""Options of an MM-GPVAE: its section of the config, resolved for a session."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

from colatent.config.models.mmgpvae import DECODERS, DecoderKind, MMGPVAESettings
from colatent.data.trials import Layout
from colatent.errors import InputError
from colatent.models.mmgpvae.training import Schedule

IMAGE_CONTEXT = 9  # bins


class CrossWeights(NamedTuple):
    """Modality -> weight of its prediction from the others, in the first and in later epochs."""

    first: Mapping[str, float]
    final: Mapping[str, float]


@dataclass(frozen=True)
class ModalityOptions:
    """Options of the networks of one modality.

    Attributes:
        n_channels: number of channels.
        latents: indices of the latents that drive the modality.
        likelihood: name of one of `colatent.data.likelihoods`.
        decoder: record of the decoder.
        image_shape: rows and columns if the modality is an image, for encoder and decoder.
        context: bins that the encoder sees at once (odd), None for the whole trial.
        hidden: units of each hidden layer.
        dropout: share of the encoder's hidden units dropped in each training step.
        from_linear: whether the networks start from the linear model, see `linear_start`.
    """

    n_channels: int
    latents: tuple[int, ...]
    likelihood: str
    decoder: DecoderKind
    image_shape: tuple[int, int] | None
    context: int | None
    hidden: int
    dropout: float
    from_linear: bool = False


@dataclass(frozen=True)
class Options:
    """Options of an `MMGPVAE`: the section of the config and options not exposed there.

    Attributes:
        settings: the section of the config.
        layout: layout of the session's trials.
        hidden, dropout: see `ModalityOptions`.
        patience, validation_share: see `Schedule`.
        time_scale_rate: learning rate of the log time scales and log prior s.d.
        weight_decay: decoupled decay (AdamW) of the encoders' weights; biases and noise have none.

    Raises:
        ValueError: the session lacks a modality.
        InputError: an ``image_shape`` does not match the number of channels.
    """

    settings: MMGPVAESettings
    layout: Layout
    hidden: int = 64
    dropout: float = 0.1
    patience: int = 25
    validation_share: float = 0.1
    time_scale_rate: float = 2e-2
    weight_decay: float = 0.3

    def __post_init__(self) -> None:
        for name in self.settings.modalities:
            if name not in self.layout.channels:
                raise ValueError(f"the trials lack the modality {name!r}")
        for name, shape in self.settings.image_shape.items():
            if prod(shape) != (n_channels := self.layout.n_channels(name)):
                raise InputError(
                    f"image_shape of {name}: {shape[0]} x {shape[1]} pixels, but it has {n_channels} "
                    "channels; correct it"
                )

    @cached_property
    def modalities(self) -> Mapping[str, ModalityOptions]:
        """Options of each modality; their alphabetical order fixes the order of random draws and sums."""
        return {name: self._modality(name) for name in sorted(self.settings.modalities)}

    def _modality(self, name: str) -> ModalityOptions:
        settings, kind = self.settings, self.layout.kinds[name]
        decoder = DECODERS[settings.decoder_of(name, kind)]
        groups = enumerate(settings.latent_groups)
        return ModalityOptions(
            self.layout.n_channels(name),
            tuple(k for k, group in groups if name in group.modalities),
            settings.likelihood_of(name, kind),
            decoder,
            settings.image_shape[name] if decoder.needs_image_shape else None,
            self._context,
            self.hidden,
            self.dropout,
            self.from_linear,
        )

    @property
    def _context(self) -> int | None:
        """The bins that encoders see at once: all; of the single frames of images some, as one says little.

        With images, recurrent units recovered the neural latent of a simulation worse (R² .987 against .995).
        Posteriors for comparison see one bin.
        """
        return None if self.from_linear else IMAGE_CONTEXT if self.settings.image_shape else 1

    @property
    def from_linear(self) -> bool:
        """Whether the networks start from the linear model, which needs as many channels as latents."""
        n_channels = sum(self.layout.n_channels(name) for name in self.settings.modalities)
        return self.settings.can_start_linear and n_channels >= len(self.settings.latent_groups)

    @property
    def time_scale(self) -> float:
        """The initial time scale, bins."""
        bin_width = self.layout.bin_width
        return (self.settings.time_scale or 5 * bin_width) / bin_width

    @property
    def schedule(self) -> Schedule:
        settings = self.settings
        return Schedule(settings.epochs, settings.batch_size, self.patience, self.validation_share)

    @property
    def cross_weights(self) -> CrossWeights:
        """The non-zero cross weights; none for a model of one modality."""
        final, first = self.settings.cross_weight, self.settings.first_cross_weight
        both = (final if first is None else first, final)
        several = len(self.modalities) > 1
        return CrossWeights(*({m: w for m, w in x.items() if w and several} for x in both))
