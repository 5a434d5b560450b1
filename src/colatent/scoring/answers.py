"""All questions to a fit, and their answers: by the model itself, and by readouts of its latents."""

from collections.abc import Iterator, Sequence
from typing import Any

from colatent.data.trials import Trials
from colatent.models.readout.decoding import DECODING, Decoder
from colatent.scoring.questions import (
    Answer,
    Task,
    Withheld,
    answer,
    tasks,
)


def all_tasks(
    model: Any, modalities: tuple[str, ...], withheld: Withheld, decoder: Decoder | None
) -> list[Task]:
    """Return the questions that a model, and the readouts of its latents if there are any, can answer."""
    return [*tasks(model, modalities, withheld), *(decoder.readouts if decoder else ())]


def answers(
    model: Any, asked: Sequence[Task], test: Trials, withheld: Withheld, decoder: Decoder | None
) -> Iterator[Answer]:
    """Answer questions on test trials, those of the decoder last."""
    for task in asked:
        if task.heldout != DECODING:
            yield answer(model, task, test, withheld)
    if decoder is not None:
        yield from decoder.answers([task for task in asked if task.heldout == DECODING], test)
