"""The protocol of all models, and helpers for the state of a fit.

A model is built from its section of the config and the `Layout` of the trials, fitted to training trials,
and then answers tasks. Its state holds everything needed for this: a fit that is read back answers the same
tasks without the training trials. Code outside this folder never checks a model's class: kinds of models are
records (`colatent.config.models.ModelKind`), from which `colatent.models.registry` builds models.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from colatent.config.models import LatentGroup
from colatent.data.predictive import Predictive
from colatent.data.tasks import NOTHING_WITHHELD, Task, Withheld
from colatent.data.trials import Layout, Trials

if TYPE_CHECKING:
    from colatent.jobs.checkpoint import Checkpoint

Array = NDArray[np.float64]
State = Mapping[str, NDArray[Any]]
Progress = Callable[[str], None]


def quiet(_: str) -> None:
    """Ignore progress messages."""


@dataclass(frozen=True)
class FitRun:
    """Options of running a fit.

    Attributes:
        seed: random seed.
        withheld: where data will be missing in the test trials, for read-outs.
        device: "cpu" or "cuda".
        progress: called with lines of text.
        checkpoint: where a long fit saves its state and resumes from.
        intervals: whether to compute confidence intervals that the settings ask for.
    """

    seed: int = 0
    withheld: Withheld = NOTHING_WITHHELD
    device: str = "cpu"
    progress: Progress = field(default=quiet)
    checkpoint: "Checkpoint | None" = None
    intervals: bool = True


class Model(Protocol):
    """A model of the workflow.

    Attributes:
        modalities: modalities that the model describes, in the session's order.
        history: rows of the training curve, stored with the state.
    """

    modalities: tuple[str, ...]
    history: list[dict[str, float]]

    def __init__(self, settings: Any, layout: Layout, device: str = "cpu") -> None:
        """Make an unfitted model from a section of the config and the session's layout."""

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Fit to the training trials."""
        ...

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return the tasks that the model can answer, fitted or not, given what is withheld.

        Without any, a fit is refused.
        """
        ...

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of every bin of ``predicted``, observed or not.

        Args:
            trials: trials with all withheld data removed (`Trials.only`, `hide`, `hide_end`).
            given: modalities to predict from.
            predicted: one of the model's modalities.
        """
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return everything that the fit has learned, as numeric arrays."""
        ...

    @classmethod
    def from_state(cls, settings: Any, layout: Layout, state: State, device: str = "cpu") -> Self:
        """Rebuild a fitted model.

        Raises:
            ValueError, KeyError, IndexError, TypeError: the arrays are not those of such a fit.
        """
        ...


class LatentSummary(NamedTuple):
    """Loadings and time scales of a fit's latents.

    Attributes:
        loading: modality -> (channel, latent), change in a channel per prior s.d. of a latent.
        unit: modality -> unit of that change, such as "log rate".
        time_scale: seconds (latent,), None for a model without time scales.
        interval: ``low``, ``high`` and ``maximum`` of the time scales' confidence intervals (s), each
            (latent,), NaN where not computed; see `colatent.models.gpfa.profile_intervals`.
        interval_attrs: ``level``, ``drop`` (nats) and ``likelihood`` of the intervals; empty without them.
        delay: modality -> by how much it follows each latent (s) (latent,), NaN where a latent does not drive
            it; empty for a model without delays.
        longest_delay: the longest that the fit allowed, in either direction (s).
        delay_interval: as ``interval``, of the delays, each (modality, latent); empty without delays.
        likelihood: modality -> its likelihood in words, with the reason if the fit chose it.
    """

    loading: Mapping[str, Array]
    unit: Mapping[str, str]
    time_scale: Array | None = None
    interval: Mapping[str, Array] = {}
    interval_attrs: Mapping[str, Any] = {}
    delay: Mapping[str, Array] = {}
    longest_delay: float = 0.0
    delay_interval: Mapping[str, Array] = {}
    likelihood: Mapping[str, str] = {}


class LatentModel(Model, Protocol):
    """A latent variable model.

    Attributes:
        latent_groups: the group of each latent.
    """

    latent_groups: tuple[LatentGroup, ...]

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return posterior mean and variance of the latents (trial, time, latent), in prior s.d. units."""
        ...

    def latents_seen_by(self, modality: str, trials: Trials, given: tuple[str, ...]) -> Array:
        """Return posterior means (trial, time, latent) at the times at which a modality sees the latents.

        Those of `latents`, but for a modality that follows latents with a delay.
        """
        ...

    def decode(self, latents: Array, modality: str, condition: NDArray[np.str_] | None = None) -> Array:
        """Return the expected observations (trial, time, channel) at latents as the modality sees them.

        Args:
            condition: label of each trial, for models that are told it.
        """
        ...

    def summary(self, latents: Array) -> LatentSummary:
        """Return the summary; the loadings of non-linear decoders are their slopes at ``latents``."""
        ...


def array_of(state: State, name: str, *shape: int | None, finite: bool = True) -> NDArray[Any]:
    """Return one array of a state, checked.

    Args:
        shape: expected shape; None for an axis of any length.
        finite: whether to reject NaN and infinity.

    Raises:
        ValueError: the array is missing, has another shape, or is not finite.
    """
    if name not in state:
        raise ValueError(f"{name} is missing")
    array = np.asarray(state[name])
    if len(array.shape) != len(shape) or any(
        n is not None and n != m for n, m in zip(shape, array.shape, strict=True)
    ):
        raise ValueError(f"{name} has the shape {array.shape}, not {shape}")
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return array


def arrays_of(state: State, shapes: Mapping[str, tuple[int | None, ...]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of a state, which must be exactly those in ``shapes``.

    Raises:
        ValueError: an array is unknown, missing, has another shape, or is not finite.
    """
    if unknown := sorted(state.keys() - shapes.keys()):
        raise ValueError(f"{unknown[0]} is unknown")
    return {name: array_of(state, name, *shape) for name, shape in shapes.items()}


def part_of(state: State, prefix: str) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names start with ``prefix``, with the prefix removed."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def with_prefix(prefix: str, state: State) -> dict[str, NDArray[Any]]:
    """Return the arrays with ``prefix`` added to their names, the inverse of `part_of`."""
    return {prefix + name: array for name, array in state.items()}


def labels_state(labels: NDArray[np.str_]) -> NDArray[np.uint8]:
    """Return labels as zero-padded UTF-8 (label, byte)."""
    encoded = np.array([str(label).encode() for label in labels], dtype=bytes)
    return encoded.view(np.uint8).reshape(len(labels), encoded.dtype.itemsize)


def labels_from(encoded: NDArray[np.uint8]) -> NDArray[np.str_]:
    """Return the labels, the inverse of `labels_state`."""
    return np.array([bytes(row).rstrip(b"\0").decode() for row in encoded], dtype=str)
