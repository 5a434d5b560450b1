"""Adding a score takes its function and one entry."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import make_trials

from colatent.config import Config
from colatent.data.metrics import METRICS, Metric, Outcome, Score
from colatent.data.tasks import Task
from colatent.report.score_tables import score_tables
from colatent.report.session_results import read_session
from colatent.report.text.methods import metric_texts
from colatent.scoring.evaluate import _score


def correlation(outcome: Outcome) -> Score:
    """Pearson correlation of each channel."""
    pairs = [
        (outcome.observation[..., c][seen], outcome.mean[..., c][seen])
        for c, seen in enumerate(np.moveaxis(outcome.scored, 2, 0))
    ]
    r = np.array([np.corrcoef(*pair)[0, 1] for pair in pairs])
    return Score(r, outcome.scored.sum(axis=(0, 1)), float(r.mean()), int(outcome.scored.sum()))


def scored_rows(predicted: str) -> list[dict[str, Any]]:
    """Return the rows of scores of a prediction that is half of what was observed."""
    values = {"spikes": np.arange(24.0).reshape(2, 6, 2), "emg": np.arange(36.0).reshape(2, 6, 3) ** 2}
    test = make_trials(values, {name: np.ones(v.shape, dtype=bool) for name, v in values.items()})
    value = values[predicted]
    answered: Any = SimpleNamespace(
        task=Task("trials", (predicted,), predicted),
        observation=value,
        mean=0.5 * value,
        scored=np.ones(value.shape, dtype=bool),
        channels=np.ones(value.shape[2], dtype=bool),
        log_density=np.zeros(value.shape),
        pit=(np.full(value.shape, 0.4), np.full(value.shape, 0.6)),
    )
    scale = value.std(axis=(0, 1))
    return list(_score(answered, test, scale, np.ones(len(scale), dtype=bool)))


def test_a_metric_is_added_by_its_entry(demo: tuple[Config, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    entry = Metric("correlation", "Pearson’s, of each channel.", correlation, suits="continuous")
    monkeypatch.setitem(METRICS, "correlation", entry)
    found = {name: {row["metric"]: row for row in scored_rows(name)} for name in ("spikes", "emg")}
    assert found["emg"]["correlation"]["value"] == pytest.approx(1) and "r2" in found["emg"]
    assert "correlation" not in found["spikes"] and "bits_per_spike" in found["spikes"]
    results = read_session(demo[0], "sim")
    scored = results.scores[results.scores["metric"] == "r2"].assign(metric="correlation")
    results = replace(results, scores=pd.concat([results.scores, scored]))
    tables = {t.predicted: t for t in score_tables(results) if t.heldout == "trials"}
    heads = {name: [column.head for column in table.columns] for name, table in tables.items()}
    assert "correlation" in heads["emg"] and "correlation" not in heads["spikes"]
    assert ("correlation", "Pearson’s, of each channel.") in metric_texts(results)
