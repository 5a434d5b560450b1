"""Trials of several modalities as the joined channels of one array, and back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from colatent.models.gpfa.padded_trials import PaddedTrials, TrialsLike, as_padded_trials, last_observed_bin

Array = NDArray[np.float64]
LIKELIHOODS = ("gaussian", "gaussian-sqrt")
AUTO = "auto"  # in place of latents: groups and numbers are found


@dataclass(frozen=True)
class Modalities:
    """What a fit knows of its modalities.

    Attributes:
        names: in the order of the joined channels.
        n_channels: of each modality.
        square_root: whether the model sees the square roots of its values.
    """

    names: tuple[str, ...]
    n_channels: tuple[int, ...]
    square_root: tuple[bool, ...]

    @classmethod
    def of(
        cls,
        trials: Mapping[str, TrialsLike],
        latents: Mapping[str, int],
        likelihood: Mapping[str, str],
    ) -> tuple[Self, PaddedTrials]:
        """Return the modalities of training trials, and these joined.

        A modality whose values are all whole numbers, zero or more, is taken for counts: the model sees their
        square roots, unless ``likelihood`` says otherwise.

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
        roots = []
        for name, one in padded.items():
            if (chosen := likelihood.get(name)) is not None and chosen not in LIKELIHOODS:
                raise ValueError(
                    f"unknown likelihood {chosen!r} of {name}; choose {' or '.join(LIKELIHOODS)}"
                )
            roots.append(chosen == "gaussian-sqrt" if chosen else _are_counts(one))
        sizes = tuple(one.value.shape[2] for one in padded.values())
        modalities = cls(tuple(named), sizes, tuple(roots))
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
        values, masks = [], []
        for name, n, root in zip(self.names, self.n_channels, self.square_root, strict=True):
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
        names = np.frombuffer(json.dumps(self.names).encode(), dtype=np.uint8)
        return {
            "modality_names": names,
            "modality_channels": np.array(self.n_channels),
            "square_root": np.array(self.square_root),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, NDArray[Any]]) -> Self | None:
        """Rebuild the modalities; None for a fit of plain arrays."""
        if "modality_names" not in state:
            return None
        names = json.loads(bytes(np.asarray(state["modality_names"], dtype=np.uint8)))
        sizes, roots = state["modality_channels"].tolist(), state["square_root"].tolist()
        return cls(tuple(names), tuple(sizes), tuple(map(bool, roots)))


def checked_latents(
    latents: Mapping[str, int] | str | None, of_several: Mapping[str, Any], of_one: Mapping[str, Any]
) -> dict[str, int]:
    """Return numbers of latents by group; none for a model of one array, or before they are found.

    Args:
        of_several, of_one: options that only models of several modalities, or of one array, can have.

    Raises:
        ValueError: they are no such mapping, a number is not positive, a group is named twice, or an option
            does not apply.
    """
    for option, value in (of_several if latents is None else of_one).items():
        if value:
            kind = "need" if latents is None else "cannot be used with"
            raise ValueError(f"{option} {kind} latents of groups, such as latents={{'spikes+emg': 2}}")
    if latents is None or latents == AUTO:
        return {}
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


def group_state(latents: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Return latent groups as arrays."""
    names = np.frombuffer(json.dumps(list(latents)).encode(), dtype=np.uint8)
    return {"groups": names, "group_sizes": np.array(list(latents.values()))}


def groups_of_state(state: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Rebuild latent groups from `group_state`."""
    names = json.loads(bytes(np.asarray(state["groups"], dtype=np.uint8)))
    return dict(zip(names, state["group_sizes"].tolist(), strict=True))


def _are_counts(data: PaddedTrials) -> bool:
    whole = (data.value >= 0).all() and (data.value == np.round(data.value)).all()
    return bool(whole and data.observed.any())
