"""The sentences on latent groups that fits have found."""

from collections import Counter
from collections.abc import Mapping

from colatent.models.methods import numbers_of_latents

FitKey = tuple[int, int]  # fold, seed


def found_groups(groups: Mapping[FitKey, tuple[str, ...]], shown: FitKey, found: bool) -> str:
    """Return which groups the fits found and how many found the same; empty if the config gave them.

    Args:
        groups: fit -> group of each latent.
        shown: the fit that figures of one fit show.
        found: whether fits find groups.
    """
    if not found or shown not in groups:
        return ""
    alike = sum(one == groups[shown] for one in groups.values())
    text = (
        f"Latent groups found in the training data: {numbers_of_latents(Counter(groups[shown]))}, alike in "
        f"{alike} of {len(groups)} fits."
    )
    others = [
        f"fold {fold}, seed {seed}: {numbers_of_latents(Counter(one))}"
        for (fold, seed), one in groups.items()
        if one != groups[shown]
    ]
    if others:
        text += f" Found otherwise, and left out of the figures of the latents: {'; '.join(others)}."
    if not any("+" in group for group in groups[shown]):
        text += " No evidence of a signal that modalities share."
    return text
