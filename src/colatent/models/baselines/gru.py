"""Baseline: one bidirectional recurrent network that answers all questions."""

from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from colatent.config.models import GRUSettings
from colatent.data.predictive import Predictive
from colatent.data.scaling import MIN_DEVIATION, Standardizer
from colatent.data.splits import inner_folds
from colatent.data.tasks import Task, Withheld, subsets
from colatent.data.trials import Layout, Trials
from colatent.models.adam import AdamW, Rated
from colatent.models.base import Array, FitRun, State, arrays_of, part_of, with_prefix
from colatent.models.baselines.early_stopping import Descent, train_to_best
from colatent.models.baselines.lag_regression import MIN_RATE, rate_of

INNER_FOLDS = 10
HIDDEN_CHANNELS = 0.25  # share of the channels of visible modalities that are hidden, as in co-smoothing
DROPOUT = 0.2
RATE, DECAY, BATCH = 1e-2, 0.3, 32
LONGEST_GRADIENT = 1.0
PATIENCE = 30  # epochs
VALIDATION_SEED = 1


class Batch(NamedTuple):
    """Trials as the network sees them.

    Attributes:
        x: modality -> standardised observations, zero where unobserved (trial, time, channel).
        y: modality -> targets: counts, or standardised values.
        seen: modality -> which are observed.
    """

    x: dict[str, Tensor]
    y: dict[str, Tensor]
    seen: dict[str, Tensor]

    def select(self, trial: Tensor) -> "Batch":
        return Batch(*({m: v[trial] for m, v in part.items()} for part in self))


class Network(nn.Module):
    """Forward and backward gated recurrent units over the bins, and a linear read-out of each modality.

    The input of a modality is its standardised channels and the share of them that is visible in the bin.
    """

    def __init__(self, layout: Layout, units: int) -> None:
        super().__init__()
        self.sizes = {m: layout.n_channels(m) for m in layout.modalities}
        n_in = sum(self.sizes.values()) + len(self.sizes)
        self.enter = nn.Linear(n_in, units)
        self.recurrent = nn.GRU(units, units, batch_first=True, bidirectional=True)
        self.leave = nn.Linear(2 * units, sum(self.sizes.values()))
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: dict[str, Tensor], visible: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the mean of standardised values, or the log rate of counts, of each modality."""
        parts = []
        for m in self.sizes:
            share = visible[m].to(x[m]).mean(dim=2, keepdim=True)
            parts += [x[m] * visible[m] / share.clamp_min(0.1), share]
        entered = self.dropout(torch.tanh(self.enter(torch.cat(parts, dim=2))))
        left = self.leave(self.dropout(self.recurrent(entered)[0]))
        return dict(zip(self.sizes, left.split(list(self.sizes.values()), dim=2), strict=True))


class GRU:
    """Predicts modalities and held-out channels from whatever is visible, by one recurrent network.

    In each training step whole modalities of a trial, each with probability 1/2, and a quarter of the
    channels of the others are hidden; the loss is the log density of what is hidden, Poisson for counts and
    of unit variance for standardised values. The weights with the least loss on a held-out tenth of the
    training trials are kept; the residual s.d. of each question comes from these trials too. A gated
    recurrent unit is that of Cho et al. (2014).
    """

    def __init__(self, settings: GRUSettings, layout: Layout, device: str = "cpu") -> None:
        self.settings, self.layout = settings, layout
        self.modalities = layout.modalities
        self.history: list[dict[str, float]] = []
        self._scales: dict[str, Standardizer] = {}
        self._mean: dict[str, Array] = {}
        self._deviation: dict[Task, Array] = {}

    def tasks(self, withheld: Withheld) -> list[Task]:
        """Return the tasks: each modality from each subset of the others, and held-out channels."""
        found = []
        for predicted in self.modalities:
            for given in subsets(self.modalities):
                if predicted not in given:
                    found.append(Task("modality", given, predicted))
                elif predicted in withheld.channels:
                    found.append(Task("channels", given, predicted))
        return found

    def fit(self, training: Trials, run: FitRun) -> Self:
        """Train the network."""
        for m in self.modalities:
            values, observed = training.values[m], training.observed[m]
            self._scales[m] = Standardizer.fit(self._change(m, values), observed)
            self._mean[m] = rate_of(values, observed)
        everything = np.arange(training.n_trials)
        folds = inner_folds(len(everything), INNER_FOLDS, self.layout.time_locked, run.seed)
        inner, outer = folds[run.seed % len(folds)] if folds else (everything, everything)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(run.seed)
            self.network = Network(self.layout, self.settings.units)
            self._begin_at_means()
            self._train(self._batch(training.select(inner)), self._batch(training.select(outer)), run)
        held_out = training.select(outer)
        for task in self._with_deviation():
            self._deviation[task] = self._residual(held_out, task, run.withheld)
        return self

    def _with_deviation(self) -> list[Task]:
        """Return the tasks of continuous modalities, whatever is withheld."""
        every = self.tasks(Withheld({m: np.array([]) for m in self.modalities}))
        return [task for task in every if not self._counts(task.predicted)]

    def predict(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Predictive:
        """Return the prediction of ``predicted`` from what is visible of ``given``."""
        mean = self._expected(trials, given, predicted)
        if self._counts(predicted):
            return Predictive("poisson", np.maximum(mean, MIN_RATE * self._mean[predicted])[None])
        kind = "channels" if predicted in given else "modality"
        return Predictive("gaussian", mean[None], self._deviation[Task(kind, given, predicted)])

    def _expected(self, trials: Trials, given: tuple[str, ...], predicted: str) -> Array:
        batch = self._batch(trials.only(given))
        self.network.eval()
        with torch.no_grad():
            found = self.network(batch.x, batch.seen)[predicted].double().numpy()
        if self._counts(predicted):
            return np.exp(found)
        scale = self._scales[predicted]
        return found * scale.deviation + scale.mean

    def _residual(self, held_out: Trials, task: Task, withheld: Withheld) -> Array:
        """Return the s.d. of the errors of each channel (channel,)."""
        seen = held_out.observed[task.predicted]
        hidden = held_out.hide(withheld.channels) if task.heldout == "channels" else held_out
        error = held_out.values[task.predicted] - self._expected(hidden, task.given, task.predicted)
        square = np.where(seen, error**2, 0.0).sum(axis=(0, 1)) / np.maximum(seen.sum(axis=(0, 1)), 1)
        return np.maximum(np.sqrt(square), MIN_DEVIATION * self._scales[task.predicted].deviation)

    def _counts(self, modality: str) -> bool:
        return self.layout.kinds[modality] == "spikes"

    def _change(self, modality: str, values: Array) -> Array:
        return np.sqrt(values) if self._counts(modality) else values

    def _batch(self, trials: Trials) -> Batch:
        x, y, seen = {}, {}, {}
        for m in self.modalities:
            observed = trials.observed[m]
            scaled = self._scales[m].apply(self._change(m, trials.values[m]), observed)
            target = np.where(observed, trials.values[m], 0.0) if self._counts(m) else scaled
            x[m], y[m] = (torch.tensor(v, dtype=torch.float32) for v in (scaled, target))
            seen[m] = torch.from_numpy(observed)
        return Batch(x, y, seen)

    def _begin_at_means(self) -> None:
        """Let the network predict the mean rates and values at first."""
        means = [np.log(self._mean[m]) if self._counts(m) else 0 * self._mean[m] for m in self.modalities]
        with torch.no_grad():
            self.network.leave.bias.copy_(torch.from_numpy(np.concatenate(means)))
            self.network.leave.weight.mul_(0.1)

    def _train(self, inner: Batch, outer: Batch, run: FitRun) -> None:
        weights = [p for p in self.network.parameters() if p.ndim > 1]
        others = [p for p in self.network.parameters() if p.ndim < 2]
        n_trials = len(next(iter(inner.x.values())))
        self.history = train_to_best(
            self.network,
            AdamW([Rated(weights, RATE, DECAY), Rated(others, RATE)]),
            lambda trial: self._loss(inner.select(trial)),
            lambda: self._validation(outer),
            Descent(n_trials, BATCH, self.settings.epochs, PATIENCE, LONGEST_GRADIENT),
            run.progress,
        )

    def _validation(self, outer: Batch) -> float:
        """Return the loss on held-out trials, with the same parts hidden every time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(VALIDATION_SEED)
            return float(sum(self._loss(outer) for _ in range(4))) / 4

    def _loss(self, batch: Batch) -> Tensor:
        """Return the negative log density of what is hidden, nats per bin but for a constant."""
        visible = self._visible(batch)
        found = self.network(batch.x, visible)
        losses = []
        for m in self.modalities:
            asked = (batch.seen[m] & ~visible[m]).to(found[m])
            of_counts = found[m].exp() - batch.y[m] * found[m] if self._counts(m) else None
            each = 0.5 * (found[m] - batch.y[m]).square() if of_counts is None else of_counts
            # as if all channels were asked, so that a modality counts as much however much is hidden
            losses.append((each * asked).sum() / asked.sum().clamp_min(1) * asked.shape[2])
        return torch.stack(losses).sum()

    def _visible(self, batch: Batch) -> dict[str, Tensor]:
        """Hide each modality of a trial with probability 1/2, never all, and some channels of the others."""
        n_trials, several = len(next(iter(batch.x.values()))), len(self.modalities) > 1
        kept = torch.rand(n_trials, len(self.modalities)) < 0.5 if several else torch.ones(n_trials, 1) > 0
        kept[torch.arange(n_trials), torch.randint(len(self.modalities), (n_trials,))] = True
        visible = {}
        for i, m in enumerate(self.modalities):
            channels = torch.rand(n_trials, 1, batch.x[m].shape[2]) >= HIDDEN_CHANNELS
            visible[m] = batch.seen[m] & kept[:, i, None, None] & channels
        return visible

    def state(self) -> dict[str, NDArray[Any]]:
        """Return weights, standardisation, mean rates and residual s.d.s."""
        state: dict[str, NDArray[Any]] = {
            f"network|{k}": v.numpy() for k, v in self.network.state_dict().items()
        }
        for m, scale in self._scales.items():
            state |= with_prefix(f"{m}|", vars(scale)) | {f"{m}|rate": self._mean[m]}
        return state | {_name(task): value for task, value in self._deviation.items()}

    @classmethod
    def from_state(cls, settings: GRUSettings, layout: Layout, state: State, device: str = "cpu") -> Self:
        """Rebuild a fit from its arrays."""
        model = cls(settings, layout)
        with torch.device("meta"):  # shapes without drawing weights
            weights = Network(layout, settings.units).state_dict()
        shapes: dict[str, tuple[int | None, ...]] = {
            f"network|{k}": tuple(v.shape) for k, v in weights.items()
        }
        for m in layout.modalities:
            shapes |= {f"{m}|{k}": (layout.n_channels(m),) for k in ("mean", "deviation", "rate")}
        tasks = model._with_deviation()
        shapes |= {_name(task): (layout.n_channels(task.predicted),) for task in tasks}
        arrays = arrays_of(state, shapes)
        for m in layout.modalities:
            model._scales[m] = Standardizer(arrays[f"{m}|mean"], arrays[f"{m}|deviation"])
            model._mean[m] = arrays[f"{m}|rate"]
        model._deviation = {task: arrays[_name(task)] for task in tasks}
        model.network = Network(layout, settings.units)
        model.network.load_state_dict({k: torch.as_tensor(v) for k, v in part_of(arrays, "network|").items()})
        return model


def _name(task: Task) -> str:
    return f"residual|{task.heldout}|{task.given_name}>{task.predicted}"
