"""Trials of several modalities as the joined channels of one array, and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from colatent.models.gpfa.padded_trials import PaddedTrials, TrialsLike, as_padded_trials, last_observed_bin

Array = NDArray[np.float64]
AUTO = "auto"  # in place of latents: groups and numbers are found


@dataclass(frozen=True)
class Modalities:
    """What a fit knows of its modalities.

    Attributes:
        names: in the order of the joined channels.
        n_channels: of each modality.
        likelihoods: of each modality, such as gaussian-sqrt, with which the model sees square roots.
    """

    names: tuple[str, ...]
    n_channels: tuple[int, ...]
    likelihoods: tuple[str, ...]

    @classmethod
    def of(
        cls,
        trials: Mapping[str, TrialsLike],
        latents: Mapping[str, int],
        likelihood: Mapping[str, str],
        choice: Sequence[str],
    ) -> tuple[Self, PaddedTrials]:
        """Return the modalities of training trials, and these joined.

        Args:
            likelihood: of some modalities.
            choice: likelihoods to choose from. Modalities that ``likelihood`` does not name get the first if
                their values are all whole numbers, zero or more, and the last otherwise.

        Raises:
            ValueError: a group names a modality without trials, or the modalities differ in trials or bins.
        """
        if not isinstance(trials, Mapping):
            raise ValueError("with latents of groups, trials must be a mapping: modality -> trials")
        named = list(dict.fromkeys(name for group in latents for name in group.split("+")))
        if unknown := [name for name in (*named, *likelihood) if name not in trials]:
            raise ValueError(f"there are no trials of {unknown[0]!r}, only of {', '.join(trials)}")
        if unused := [name for name in trials if name not in named]:
            raise ValueError(f"no latent drives {unused[0]!r}; give it a group in latents")
        padded = {name: as_padded_trials(trials[name]) for name in named}
        found = []
        for name, one in padded.items():
            chosen = likelihood.get(name, choice[0] if _are_counts(one) else choice[-1])
            if chosen not in choice:
                raise ValueError(f"unknown likelihood {chosen!r} of {name}; choose {' or '.join(choice)}")
            found.append(chosen)
        sizes = tuple(one.value.shape[2] for one in padded.values())
        modalities = cls(tuple(named), sizes, tuple(found))
        return modalities, modalities.join(padded)

    def join(self, trials: Mapping[str, Any], given: Sequence[str] | None = None) -> PaddedTrials:
        """Return the trials of all modalities as one; those that are absent or not given are unobserved.

        Raises:
            ValueError: an unknown modality, other channels than in the fit, or different trials or bins.
        """
        if not isinstance(trials, Mapping):
            raise ValueError(f"trials must be a mapping: {', '.join(self.names)} -> trials")
        if isinstance(given, str):
            raise ValueError(f"given must be a tuple of modalities, such as ({given!r},)")
        if unknown := [name for name in (*trials, *(given or ())) if name not in self.names]:
            raise ValueError(f"the model does not know {unknown[0]!r}, only {', '.join(self.names)}")
        if absent := [name for name in given or () if name not in trials]:
            raise ValueError(f"{absent[0]} is given, but there are no trials of it")
        padded = {
            name: one if isinstance(one, PaddedTrials) else as_padded_trials(one)
            for name, one in trials.items()
            if given is None or name in given
        }
        if not padded:
            raise ValueError("nothing is given to infer the latents from")
        first = next(iter(padded.values()))
        _check_lengths({name: one for name, one in padded.items() if one.ragged})
        values, masks = [], []
        for name, n, likelihood in zip(self.names, self.n_channels, self.likelihoods, strict=True):
            one = padded.get(name)
            if one is None:
                shape = (*first.value.shape[:2], n)
                values.append(np.zeros(shape))
                masks.append(np.zeros(shape, dtype=bool))
                continue
            if one.value.shape[:2] != first.value.shape[:2]:
                raise ValueError(
                    f"{name} has {one.value.shape[0]} trials of {one.value.shape[1]} bins, other modalities "
                    f"have {first.value.shape[0]} of {first.value.shape[1]}"
                )
            if one.value.shape[2] != n:
                raise ValueError(f"{name} has {one.value.shape[2]} channels, the fit has {n}")
            root = likelihood == "gaussian-sqrt"
            if root and (one.value < 0).any():
                raise ValueError(
                    f"{name} has negative values, which have no square roots; if they are no counts, fit "
                    f"with likelihood={{{name!r}: 'gaussian'}}"
                )
            values.append(np.sqrt(one.value) if root else one.value)
            masks.append(one.observed)
        observed = np.concatenate(masks, axis=2)
        ragged = all(one.ragged for one in padded.values())
        lengths = [one.length for one in padded.values()]
        length = np.max(lengths, axis=0) if ragged else last_observed_bin(observed)
        return PaddedTrials(np.concatenate(values, axis=2), observed, length, ragged)

    @property
    def likelihood(self) -> dict[str, str]:
        """The likelihood of each modality."""
        return dict(zip(self.names, self.likelihoods, strict=True))

    def index(self, name: str) -> int:
        """Return the place of a modality among the modalities."""
        if name not in self.names:
            raise ValueError(f"the model does not know {name!r}, only {', '.join(self.names)}")
        return self.names.index(name)

    def channels(self, name: str) -> slice:
        """Return the place of a modality among the joined channels."""
        at = self.index(name)
        start = sum(self.n_channels[:at])
        return slice(start, start + self.n_channels[at])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the modalities as arrays."""
        return {
            "modality_names": _letters(self.names),
            "modality_channels": np.array(self.n_channels),
            "modality_likelihoods": _letters(self.likelihoods),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self | None:
        """Rebuild the modalities; None for a fit of plain arrays."""
        if "modality_names" not in state:
            return None
        sizes = state["modality_channels"].tolist()
        return cls(_words(state["modality_names"]), tuple(sizes), _words(state["modality_likelihoods"]))


class Groups(NamedTuple):
    """Options of a model of several modalities: latents by group, likelihoods, whether there are delays."""

    latents: Mapping[str, int] | str | None
    likelihood: Mapping[str, str]
    delays: bool


def checked_latents(groups: Groups) -> dict[str, int]:
    """Return numbers of latents by group; none for a model of one array.

    Raises:
        ValueError: they are no such mapping, a number is not positive, a group is named twice, or there are
            none but options that need them.
    """
    latents = groups.latents
    if latents is None:
        for option in ("likelihood", "delays"):
            if getattr(groups, option):
                raise ValueError(f"{option} need latents of groups, such as latents={{'spikes+emg': 2}}")
        return {}
    if latents == AUTO:
        raise ValueError("latents='auto' is for GPFA; give other models the groups that it finds")
    if not isinstance(latents, Mapping) or not latents:
        raise ValueError(f"latents must be 'auto' or a mapping such as {{'spikes+emg': 2}}, not {latents!r}")
    for group, n in latents.items():
        names = group.split("+")
        if not all(names) or len(set(names)) < len(names):
            raise ValueError(f"{group!r} is no group of modalities, such as 'spikes+emg'")
        if not isinstance(n, int | np.integer) or n < 1:
            raise ValueError(f"latents[{group!r}] must be a whole number, at least 1, not {n!r}")
    if len({frozenset(group.split("+")) for group in latents}) < len(latents):
        raise ValueError(f"latents name one group twice: {', '.join(latents)}")
    return dict(latents)


def _check_lengths(lists: Mapping[str, PaddedTrials]) -> None:
    """Raise ValueError if trials that are lists differ in length between modalities."""
    for name, one in lists.items():
        first = next(iter(lists))
        for trial, (mine, other) in enumerate(zip(one.length, lists[first].length, strict=False)):
            if mine != other:
                raise ValueError(
                    f"trial {trial}, counted from 0, has {mine} bins of {name}, but {other} of {first}; if "
                    "the rest was not recorded, fill it with NaN"
                )


def _are_counts(data: PaddedTrials) -> bool:
    whole = (data.value >= 0).all() and (data.value == np.round(data.value)).all()
    return bool(whole and data.observed.any())


def group_state(latents: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Return numbers of latents by group as arrays."""
    return {"groups": _letters(list(latents)), "group_sizes": np.array(list(latents.values()))}


def groups_of(state: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Return numbers of latents by group from `group_state`."""
    return dict(zip(_words(state["groups"]), state["group_sizes"].tolist(), strict=True))


def _letters(words: Sequence[str]) -> NDArray[Any]:
    return np.frombuffer(json.dumps(list(words)).encode(), dtype=np.uint8)


def _words(letters: NDArray[Any]) -> tuple[str, ...]:
    return tuple(json.loads(bytes(np.asarray(letters, dtype=np.uint8))))
