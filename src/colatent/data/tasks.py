"""What a model is asked: predict this from that, with the rest kept from it."""

from collections.abc import Iterable, Mapping
from itertools import chain, combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Task(NamedTuple):
    """One question to a model.

    Attributes:
        heldout: what it does not see of the test trials: ``trials`` (reconstruction: nothing of ``given`` is
            hidden), ``channels``, ``time``, ``modality`` or ``decoding``.
        given: modalities that inference sees.
        predicted: the modality that is scored.
    """

    heldout: str
    given: tuple[str, ...]
    predicted: str

    @property
    def given_name(self) -> str:
        """How ``given`` is written in tables and stores."""
        return "+".join(self.given) or "none"


class Withheld(NamedTuple):
    """What is kept from inference in the test trials, one kind for each question.

    A fit is told where something will be missing, never a value: read-outs are fitted with the same missing.

    Attributes:
        channels: modality -> channels (channel,) held out for co-smoothing.
        time: share at the end of each trial, for forward prediction; None to leave that out.
        missing: modality -> which channels some trial of the session lacks throughout, (pattern, channel),
            distinct patterns; a modality that no trial lacks a channel of may be left out.
    """

    channels: Mapping[str, Mask]
    time: float | None = None
    missing: Mapping[str, Mask] = {}


NOTHING_WITHHELD = Withheld({})


def subsets(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Return all non-empty subsets, in the order of ``names``."""
    names = tuple(names)
    return list(chain.from_iterable(combinations(names, k) for k in range(1, len(names) + 1)))


def tasks_of_latent_model(modalities: tuple[str, ...], withheld: Withheld) -> list[Task]:
    """Return what a model of latents can be asked: each modality from each subset of all."""
    found = []
    for predicted in modalities:
        for given in subsets(modalities):
            found.append(Task("trials" if predicted in given else "modality", given, predicted))
            if predicted in given and predicted in withheld.channels:
                found.append(Task("channels", given, predicted))
            if predicted in given and withheld.time:
                found.append(Task("time", given, predicted))
    return found
