"""What every model of the workflow is, and what its fit consists of.

A model is made from its section of the config and a `Layout` of the trials, fitted to training trials, and
from then on answers tasks. Its state holds all that this needs: a fit that was read back answers the same
tasks without any training trial. Nobody outside this folder asks for a model's class: kinds of models are
records (`colatent.config.models.ModelKind`), and `colatent.models.registry` makes models from them.
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
    """Say nothing."""


@dataclass(frozen=True)
class FitRun:
    """How a fit runs.

    Attributes:
        seed: of all that is random.
        withheld: where something will be missing in the test trials, for read-outs.
        device: "cpu" or "cuda".
        progress: gets plain lines.
        checkpoint: where a long fit is kept while it runs, and from where it goes on.
        intervals: whether confidence intervals of time scales, which take longer than many a fit, are wanted.
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
        modalities: those it describes, in the session's order.
        history: rows for training curves, which a fit's store keeps beside the state.
    """

    modalities: tuple[str, ...]
    history: list[dict[str, float]]

    def __init__(self, settings: Any, layout: Layout, device: str = "cpu") -> None:
        """Make an unfitted model from a section of the config and what all trials of a session share."""

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Fit to the training trials."""
        ...

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return what the model can be asked about trials of which this is withheld."""
        ...

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the predictive distribution of every bin of ``predicted``, observed or not.

        Args:
            trials: from which all that must not be seen has been removed (`Trials.only`, `hide`, `hide_end`).
            given: modalities that are looked at.
            predicted: one of the model's.
        """
        ...

    def state(self) -> dict[str, NDArray[Any]]:
        """Return all that the fit has learned, as arrays of numbers."""
        ...

    @classmethod
    def from_state(cls, settings: Any, layout: Layout, state: State, device: str = "cpu") -> Self:
        """Rebuild a fitted model.

        Raises:
            ValueError, KeyError, IndexError, TypeError: these are not the arrays of such a fit.
        """
        ...


class LatentSummary(NamedTuple):
    """What the latents of a fit are.

    Attributes:
        loading: modality -> (channel, latent), what one prior s.d. of a latent adds to a channel.
        unit: modality -> of what is added, such as "log rate".
        time_scale: seconds (latent,), None for a model without.
        interval: ``low``, ``high`` and ``maximum`` of the time scales' confidence intervals (s), each
            (latent,), NaN for a model without; see `colatent.models.gpfa.time_scale_interval`.
        interval_attrs: ``level``, ``drop`` (nats) and ``likelihood`` of the intervals; empty without them.
    """

    loading: Mapping[str, Array]
    unit: Mapping[str, str]
    time_scale: Array | None = None
    interval: Mapping[str, Array] = {}
    interval_attrs: Mapping[str, Any] = {}


class LatentModel(Model, Protocol):
    """A model of latents.

    Attributes:
        latent_groups: the group of each latent.
    """

    latent_groups: tuple[LatentGroup, ...]

    def latents(self, trials: Trials, given: tuple[str, ...]) -> tuple[Array, Array]:
        """Return posterior mean and variance of the latents, (trial, time, latent), prior variance 1."""
        ...

    def decode(self, latents: Array, modality: str) -> Array:
        """Return the expected observations (trial, time, channel) at latents (trial, time, latent)."""
        ...

    def summary(self, latents: Array) -> LatentSummary:
        """Return what the latents are; slopes of non-linear decoders are those at ``latents``."""
        ...


def array_of(state: State, name: str, *shape: int | None, finite: bool = True) -> NDArray[Any]:
    """Return an array of a state.

    Args:
        shape: what it must be; None for an axis of any length.
        finite: whether NaN and infinity would be damage.

    Raises:
        ValueError: it is missing, of another shape, or not finite.
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
    """Return the arrays of a state, which must be these and no others.

    Raises:
        ValueError: one is unknown, missing, of another shape, or not finite.
    """
    if unknown := sorted(state.keys() - shapes.keys()):
        raise ValueError(f"{unknown[0]} is unknown")
    return {name: array_of(state, name, *shape) for name, shape in shapes.items()}


def part_of(state: State, prefix: str) -> dict[str, NDArray[Any]]:
    """Return the arrays whose names begin so, under what follows."""
    return {name.removeprefix(prefix): array for name, array in state.items() if name.startswith(prefix)}


def with_prefix(prefix: str, state: State) -> dict[str, NDArray[Any]]:
    """Return the arrays under longer names, as `part_of` takes them apart."""
    return {prefix + name: array for name, array in state.items()}
