"""What reports say: of conditions, of what was held out, and of names that look like its own words."""

from dataclasses import replace
from pathlib import Path

from colatent.config import Config, GPFASettings
from colatent.report.score_tables import score_tables
from colatent.report.session_results import read_session
from colatent.report.text.heldout import HELDOUT, heldout_statement
from colatent.report.text.methods import model_texts, statistics_text
from colatent.report.text.words import Words

CONDITION = "nothing but the trial’s condition"


def test_without_conditions_the_condition_mean_was_given_nothing(demo: tuple[Config, Path]) -> None:
    with_conditions = read_session(demo[0], "sim")
    results = replace(with_conditions, trials=with_conditions.trials.drop_vars("condition"))
    assert CONDITION in statistics_text(with_conditions)
    assert "or nothing (the condition mean)" in statistics_text(results)
    told = [*dict(model_texts(results)).values(), *(b.statement for b in score_tables(results))]
    assert not [text for text in told if "condition of" in text or "’s condition" in text]
    assert any("the condition mean saw nothing." in text for text in told)


def test_models_that_are_told_the_condition_are_named(demo: tuple[Config, Path]) -> None:
    results = read_session(demo[0], "sim")
    told = GPFASettings(kind="gpfa", latents={"spikes": 1}, mean="condition")
    config = results.config.model_copy(update={"models": results.config.models | {"with_psth": told}})
    said = statistics_text(replace(results, config=config))
    assert f"or {CONDITION} (the condition mean; with_psth was told it too); that baseline is" in said


def test_names_of_modalities_are_left_as_they_are() -> None:
    for words in (Words(), Words("window", "last 20 %", "nothing")):
        for heldout, kind in HELDOUT.items():
            said = heldout_statement(heldout, "{trials} of trials", words)
            assert said.count("{trials} of trials") == kind.statement.count("{predicted}") > 0
            assert f"the training {words.trials} only" in said
