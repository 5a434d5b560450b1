"""The kinds of held-out questions, as reports speak of them.

Texts have the fields of `Words.fill` (``{trial}``, ``{trials}``, ``{end}``, ``{nothing}``) and
``{predicted}``; those of headlines and figures also ``{given}``.
"""

from dataclasses import dataclass

from colatent.report.text.words import Words

FITTED = "Parameters were fitted on the training {trials} only; scored on the test {trials}. "


@dataclass(frozen=True)
class HeldoutKind:
    """The record of a kind of held-out question.

    Attributes:
        short: its name in figures.
        words: what was held out.
        statement: what inference saw and what is scored, above a table.
        headline: title of a number at the head of a page.
        held, saw: what was held out for it, and what inference saw.
        seen: what the models were given, below a figure of their predictions.
        rank: place among the headlines, hardest questions first.
        from_others: whether nothing of the predicted modality was given.
    """

    short: str
    words: str
    statement: str
    headline: str
    held: str
    saw: str
    seen: str
    rank: int
    from_others: bool = False


# in the order of pages and figures
HELDOUT = {
    "trials": HeldoutKind(
        short="reconstruction",
        words="held-out {trials}",
        statement="Reconstruction: inference saw the test {trials}’ own {predicted} (and whatever else is "
        "listed under “given”); the condition mean saw {nothing}.",
        headline="{predicted} reconstructed",
        held="{trials}",
        saw="inference saw {given} in the test {trials}, so this is a reconstruction",
        seen="Each model was given what is named beside its row, in these same {trials}",
        rank=2,
    ),
    "channels": HeldoutKind(
        short="co-smoothing",
        words="held-out channels of held-out {trials} (co-smoothing)",
        statement="Co-smoothing: some channels of {predicted} were hidden from inference in the test "
        "{trials}, and only these are scored.",
        headline="hidden channels of {predicted}",
        held="{trials}, and in them the scored channels",
        saw="inference saw the other channels of {given}",
        seen="Each model was given what is named beside its row, except the hidden channels of {predicted}; "
        "only hidden channels are shown",
        rank=0,
    ),
    "time": HeldoutKind(
        short="forward prediction",
        words="the {end} of held-out {trials} (forward prediction)",
        statement="Forward prediction: inference saw the modalities listed under “given” until the {end} of "
        "each test {trial}, and only that part of {predicted} is scored.",
        headline="{predicted} predicted forward",
        held="{trials}, and in them the {end}",
        saw="inference saw {given} until then",
        seen="Each model was given what is named beside its row until the {end} of each {trial} (grey); only "
        "the {end} is scored (black)",
        rank=3,
    ),
    "modality": HeldoutKind(
        short="cross-prediction",
        words="held-out modality in held-out {trials} (cross-prediction)",
        statement="Cross-prediction: inference saw the modalities listed under “given” and nothing of "
        "{predicted} in the test {trials}.",
        headline="{predicted} predicted from {given}",
        held="{trials}, and in them all of {predicted}",
        saw="",
        seen="Each model was given what is named beside its row, and nothing of {predicted}",
        rank=1,
        from_others=True,
    ),
    "decoding": HeldoutKind(
        short="decoded from latents",
        words="decoded from latents, held-out modality in held-out {trials}",
        statement="Decoded from latents: held out are the test {trials}, and in them all of {predicted}; "
        "inference of the latents saw the modalities listed under “given” and nothing else. The prediction "
        "is a ridge regression of {predicted} on the latents’ posterior means in the same bin, fitted on the "
        "training {trials}, which also chose its penalty. Where models are compared, the table also lists "
        "the predictions of models without latents, which saw the same modalities directly, and the "
        "condition mean, which saw {nothing}.",
        headline="{predicted} decoded from the latents of {given}",
        held="{trials}, and in them all of {predicted}",
        saw="a ridge read-out fitted on training {trials}",
        seen="Latents were inferred from what is named beside each row, with nothing of {predicted}; it is "
        "read out of them by a ridge regression fitted on training {trials}",
        rank=4,
        from_others=True,
    ),
}


def heldout_words(heldout: str, words: Words) -> str:
    """Return what was held out."""
    return words.fill(HELDOUT[heldout].words)


def heldout_statement(heldout: str, predicted: str, words: Words) -> str:
    """Return what was fitted on, what inference saw, and what is scored."""
    return words.fill(FITTED + HELDOUT[heldout].statement, predicted=predicted)
