"""Prediction tasks: which modality a model predicts, from what, with what withheld."""

from collections.abc import Iterable, Mapping
from itertools import chain, combinations
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from colatent.data.trials import Layout, Trials

Mask = NDArray[np.bool_]
DECODING = "decoding"


class Task(NamedTuple):
    """One prediction task.

    Attributes:
        heldout: what is hidden in the test trials: ``trials`` (reconstruction, with ``given`` fully visible),
            ``channels``, ``time``, ``modality`` or ``decoding``.
        given: modalities visible to inference.
        predicted: the scored modality.
    """

    heldout: str
    given: tuple[str, ...]
    predicted: str

    @property
    def given_name(self) -> str:
        """Name of ``given`` in tables and stores."""
        return "+".join(self.given) or "none"


class Withheld(NamedTuple):
    """What is withheld from inference in the test trials.

    A fit learns where data will be missing, never their values: its read-outs are fitted with the same
    data missing.

    Attributes:
        channels: modality -> channels (channel,) held out for co-smoothing.
        time: share of each trial, at its end, withheld for forward prediction; None to skip that task.
        missing: modality -> distinct patterns (pattern, channel) of channels that some trial of the session
            lacks throughout; a modality without such trials may be absent.
    """

    channels: Mapping[str, Mask]
    time: float | None = None
    missing: Mapping[str, Mask] = {}

    @classmethod
    def of(cls, trials: Trials, channels: Mapping[str, Mask], time: float | None) -> Self:
        """Return what is withheld in a session; only the masks of its trials are used.

        A channel observed only in the withheld end of a trial counts as missing.
        """
        versions = (trials, trials.hide_end(time)) if time else (trials,)
        missing = {
            name: np.unique(np.concatenate([one.never_observed(name) for one in versions]), axis=0)
            for name in trials.modalities
        }
        some = {name: patterns[patterns.any(axis=1)] for name, patterns in missing.items()}
        return cls(channels, time, {name: patterns for name, patterns in some.items() if len(patterns)})

    def with_channels(self, kept: Mapping[str, Mask]) -> Self:
        """Return what is withheld if only these channels (modality -> (channel,)) had been recorded."""
        channels = {m: hidden[kept[m]] for m, hidden in self.channels.items()}
        missing = {m: np.unique(patterns[:, kept[m]], axis=0) for m, patterns in self.missing.items()}
        some = {m: patterns[patterns.any(axis=1)] for m, patterns in missing.items()}
        return self._replace(channels=channels, missing={m: p for m, p in some.items() if len(p)})


NOTHING_WITHHELD = Withheld({})


def subsets(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return all non-empty subsets, in the order of ``names``."""
    names = tuple(names)
    return list(chain.from_iterable(combinations(names, k) for k in range(1, len(names) + 1)))


def largest_tasks(asked: Iterable[Task]) -> list[Task]:
    """Return, for each held-out kind and predicted modality, the task with the most modalities given."""
    largest: dict[tuple[str, str], Task] = {}
    for task in asked:
        key = (task.heldout, task.predicted)
        if key not in largest or len(task.given) > len(largest[key].given):
            largest[key] = task
    return list(largest.values())


def decoding_tasks(modalities: tuple[str, ...], layout: Layout) -> list[Task]:
    """Return the decoding tasks: continuous modalities from each subset of the model's other modalities."""
    continuous = [name for name in layout.modalities if layout.kinds[name] != "spikes"]
    return [
        Task(DECODING, given, predicted)
        for given in subsets(modalities)
        for predicted in continuous
        if predicted not in given
    ]


def tasks_of_latent_model(modalities: tuple[str, ...], withheld: Withheld) -> list[Task]:
    """Return the tasks of a latent variable model: each modality from each subset of modalities."""
    found = []
    for predicted in modalities:
        for given in subsets(modalities):
            found.append(Task("trials" if predicted in given else "modality", given, predicted))
            if predicted in given and predicted in withheld.channels:
                found.append(Task("channels", given, predicted))
            if predicted in given and withheld.time:
                found.append(Task("time", given, predicted))
    return found
