"""Shared base of Gaussian and count GPFA: latents, orthonormal coordinates, saving and loading."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, ClassVar, NamedTuple, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray

from colatent.models import gp
from colatent.models.gpfa.modalities import Groups, Modalities, checked_latents, group_state, groups_of
from colatent.models.gpfa.options import RareOptions
from colatent.models.gpfa.padded_trials import PaddedTrials, TrialsLike, as_padded_trials
from colatent.models.gpfa.structure import Structure
from colatent.store.tensors import load_arrays, save_arrays

Array = NDArray[np.float64]

# Longest delay as a share of the median trial: beyond, few bins would tell what follows what.
_DELAY_SHARE = 0.25


class LatentMoments(NamedTuple):
    """Posterior moments of the latents, finite in every bin of the padded trials.

    Attributes:
        mean: (trial, time, latent).
        variance: (trial, time, latent).
    """

    mean: Array
    variance: Array


class Prediction(NamedTuple):
    """Predictive moments of each observation.

    Attributes:
        mean: (trial, time, channel).
        variance: (trial, time, channel), including the observation noise.
    """

    mean: Array
    variance: Array


def of_squares(root: Prediction) -> Prediction:
    """Return the moments of the square of a Gaussian variable, for counts modelled by their roots."""
    square = root.mean**2
    return Prediction(square + root.variance, 2 * root.variance**2 + 4 * root.variance * square)


class GPFAEstimator(ABC):
    """Latents z_k ~ GP(0, kernel with time scale tau_k) that drive channels through C z + d.

    Latents have unit prior variance. They are sorted by the norm of their loadings, largest first, with
    signs that make the largest loading of each positive.

    Attributes:
        loading_: C (channel, latent). offset_: d (channel,). time_scale_: seconds (latent,).
        modalities_: None for one array.
        delay_: seconds (modality, latent), NaN where a latent does not drive a modality; one row of zeros
            for one array. longest_delay_: the longest delay that the fit allowed, in either direction.
        history_: one row per iteration of the fit.
        converged_: whether the fit ended before its ``max_iterations``.
    """

    # of modalities: by default the first for counts and the last for other values
    likelihoods: ClassVar[tuple[str, ...]]

    modalities_: Modalities | None = None
    delay_: Array
    longest_delay_: float = 0.0
    loading_: Array
    offset_: Array
    time_scale_: Array
    history_: list[dict[str, float]]
    converged_: bool

    def __init__(
        self,
        n_latents: int,
        bin_width: float,
        kernel: str,
        groups: Groups,
        rare: RareOptions,
    ):
        self.latents = checked_latents(groups)
        self.likelihood, self.delays = groups.likelihood, groups.delays
        n_latents = sum(self.latents.values()) or n_latents
        if not isinstance(n_latents, int | np.integer) or n_latents < 1:
            raise ValueError(f"n_latents must be a whole number, at least 1, not {n_latents!r}")
        if not 0 < bin_width < np.inf:
            raise ValueError(f"bin_width must be a positive number of seconds, not {bin_width!r}")
        if kernel not in gp.KERNELS:
            raise ValueError(f"unknown kernel {kernel!r}; choose one of {', '.join(gp.KERNELS)}")
        self.n_latents = n_latents
        self.bin_width = bin_width
        self.kernel = kernel
        self.fitting = rare["fitting"]
        self.tolerance = rare["tolerance"]
        self.device = torch.device(rare["device"])

    @abstractmethod
    def fit(self, trials: TrialsLike, progress: Callable[[str], None] | None = None) -> Self:
        """Fit the parameters to training trials."""

    @abstractmethod
    def posterior(self, trials: TrialsLike) -> LatentMoments:
        """Return mean and variance of the latents in every bin of the padded trials."""

    @overload
    def predict(
        self, trials: Mapping[str, TrialsLike], given: Sequence[str] | None = None
    ) -> dict[str, Prediction]: ...

    @overload
    def predict(self, trials: TrialsLike, given: None = None) -> Prediction: ...

    def predict(self, trials: Any, given: Sequence[str] | None = None) -> Any:
        """Return the predictive mean and variance of every channel, including missing ones.

        For co-smoothing, set the held-out channels to NaN.

        Args:
            trials: trials; of several modalities, those that are absent are predicted as well.
            given: modalities to predict from, if not from all in ``trials``.

        Returns:
            A prediction, or one for each modality: of counts, not of their square roots.
        """
        found = self._predictions(self._check(trials, given))
        return found[0] if self.modalities_ is None else dict(zip(self.modalities_.names, found, strict=True))

    @abstractmethod
    def _predictions(self, data: PaddedTrials) -> list[Prediction]:
        """Return the predictions of each modality."""

    def latents_seen_by(self, modality: str, trials: Mapping[str, TrialsLike]) -> Array:
        """Return the posterior means of the latents as a modality sees them, (trial, time, latent)."""
        data = self._check(trials)
        if self.modalities_ is None:
            raise ValueError("the fit is of one array, not of modalities")
        return self._mean(data, self.modalities_.index(modality))

    @property
    def latent_groups_(self) -> tuple[str, ...]:
        """The group of each latent; empty for trials of one array."""
        return tuple(group for group, n in self.latents.items() for _ in range(n))

    @abstractmethod
    def state(self) -> dict[str, np.ndarray]:
        """Return the fit as plain arrays."""
        of_several: dict[str, np.ndarray] = {}
        if self.modalities_ is not None:
            of_several = self.modalities_.state() | group_state(self.latents)
            of_several |= {"delay": self.delay_, "longest_delay": np.array(self.longest_delay_)}
        return of_several | {
            "loading": self.loading_,
            "offset": self.offset_,
            "time_scale": self.time_scale_,
            "bin_width": np.array(self.bin_width),
            "tolerance": np.array(self.tolerance),
            "kernel": np.array(gp.KERNELS.index(self.kernel)),
        }

    @classmethod
    @abstractmethod
    def from_state(cls, state: dict[str, np.ndarray], device: str = "cpu") -> Self:
        """Rebuild a fitted model from `state`."""

    @classmethod
    def _from_shared_state(cls, state: dict[str, np.ndarray], device: str, **options: Any) -> Self:
        """Rebuild what all kinds of GPFA share; ``options`` are further options of the constructor."""
        loading = np.asarray(state["loading"], dtype=float)
        modalities = Modalities.from_state(state)
        if modalities is not None:
            options |= {"latents": groups_of(state), "likelihood": modalities.likelihood}
        options |= {"tolerance": float(state["tolerance"]), "device": device}
        kernel = gp.KERNELS[int(state["kernel"])]
        model: Self = cls(loading.shape[1], float(state["bin_width"]), kernel, **options)
        model.loading_ = loading
        model.offset_ = np.asarray(state["offset"], dtype=float)
        model.time_scale_ = np.asarray(state["time_scale"], dtype=float)
        if (model.time_scale_ <= 0).any():
            raise ValueError("time scales must be positive")
        model.modalities_ = modalities
        model.delay_ = np.asarray(state.get("delay", np.zeros((1, model.n_latents))), dtype=float)
        model.longest_delay_ = float(state.get("longest_delay", 0.0))
        model.delays = bool(model.longest_delay_ > 0 or np.nan_to_num(model.delay_).any())
        if modalities is not None:
            model._structure(0.0).check(model.loading_, model.delay_)
        model.history_ = []
        return model

    def transform(self, trials: TrialsLike, orthonormal: bool = False) -> Array | list[Array]:
        """Return the posterior means of the latents, (trial, time, latent).

        NaN past the end of a trial. Returns a list if ``trials`` is a list.

        Args:
            trials: training trials or others.
            orthonormal: return the coordinates along ``orthonormal_loading_`` instead.
        """
        data = self._check(trials)
        mean = self._mean(data)
        return data.unpad(mean @ self._to_orthonormal().T if orthonormal else mean)

    def fit_transform(
        self, trials: TrialsLike, progress: Callable[[str], None] | None = None
    ) -> Array | list[Array]:
        """Fit and return the posterior means of the latents."""
        return self.fit(trials, progress).transform(trials)

    @property
    def orthonormal_loading_(self) -> Array:
        """Orthonormal loadings (channel, latent) in order of variance explained (Yu et al. 2009, eq. 13)."""
        return self._svd()[0]

    def save(self, path: str | PathLike[str]) -> None:
        """Write the fit as a safetensors file (arrays only, no code)."""
        if not hasattr(self, "loading_"):
            raise ValueError("the model is not fitted; call fit first")
        save_arrays(path, self.state())

    @classmethod
    def load(cls, path: str | PathLike[str], device: str = "cpu") -> Self:
        """Read a fit from a file written by `save`."""
        return cls.from_state(load_arrays(path), device)

    @abstractmethod
    def _mean(self, data: PaddedTrials, modality: int = 0) -> Array:
        """Posterior means of the latents as a modality sees them (trial, time, latent)."""

    def _svd(self) -> tuple[Array, Array, Array]:
        left, singular, right = np.linalg.svd(self.loading_, full_matrices=False)
        sign = np.sign(left[np.abs(left).argmax(axis=0), np.arange(left.shape[1])])
        return left * sign, singular, right * sign[:, None]

    def _to_orthonormal(self) -> Array:
        _, singular, right = self._svd()
        return singular[:, None] * right

    def _training(self, trials: Any) -> PaddedTrials:
        """Return training trials, those of several modalities joined."""
        self.modalities_ = None
        if not self.latents:
            return as_padded_trials(trials)
        self.modalities_, data = Modalities.of(trials, self.latents, self.likelihood, self.likelihoods)
        return data

    def _padded(self, trials: Any, given: Sequence[str] | None = None) -> PaddedTrials:
        if self.modalities_ is None:
            if given is not None:
                raise ValueError("the fit is of one array: it has no modalities to be given")
            return as_padded_trials(trials)
        return self.modalities_.join(trials, given)

    def _structure(self, longest_delay: float) -> Structure:
        """Return which of several modalities see which latents, with delays up to ``longest_delay`` bins."""
        assert self.modalities_ is not None
        sizes = dict(zip(self.modalities_.names, self.modalities_.n_channels, strict=True))
        return Structure.of_groups(sizes, self.latents, longest_delay)

    def _longest_delay(self, data: PaddedTrials) -> float:
        """Return the longest delay that a fit allows, bins."""
        return _DELAY_SHARE * float(np.median(data.length)) if self.delays else 0.0

    def _say_longest_delays(self, structure: Structure, progress: Callable[[str], None] | None) -> None:
        """Keep the longest delay, and say which delays reached it."""
        self.longest_delay_ = structure.longest_delay * self.bin_width
        for said in structure.at_longest(self.delay_, self.bin_width):
            (progress or warnings.warn)(said)

    def _check(self, trials: Any, given: Sequence[str] | None = None) -> PaddedTrials:
        if not hasattr(self, "loading_"):
            raise ValueError("the model is not fitted; call fit first")
        data = self._padded(trials, given)
        if data.value.shape[2] != len(self.loading_):
            raise ValueError(f"trials have {data.value.shape[2]} channels, the fit has {len(self.loading_)}")
        return data


def variance_along(loading: Array, covariance: Array) -> Array:
    """Return the variance of C z, (trial, time, channel), for covariances of z (trial, time, q, q)."""
    products = (loading[:, :, None] * loading[:, None, :]).reshape(len(loading), -1)
    return covariance.reshape(*covariance.shape[:2], -1) @ products.T


def check_trainable(data: PaddedTrials, n_latents: int) -> None:
    """Raise ValueError for trials that cannot train a model of ``n_latents``."""
    n_channels = data.value.shape[2]
    if n_channels < n_latents:
        raise ValueError(f"{n_latents} latents need at least as many channels, not {n_channels}")
    if not data.observed.any():
        raise ValueError("the trials contain no observations")


def canonical_order(
    loading: Array, groups: Sequence[NDArray[np.intp]] | None = None
) -> tuple[NDArray[np.intp], Array]:
    """Return the order of the latents by the norm of their loadings, and their signs in that order.

    Args:
        groups: latents that keep their places as a group; by default all are one.
    """
    size = (loading**2).sum(axis=0)
    order = np.arange(len(size))
    for group in [order.copy()] if groups is None else groups:
        order[group] = group[np.argsort(-size[group], kind="stable")]
    largest = np.abs(loading).argmax(axis=0)
    sign = np.where(loading[largest, np.arange(loading.shape[1])] < 0, -1.0, 1.0)
    return order, sign[order]
