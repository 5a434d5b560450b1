"""The sentences on latent groups that fits have found."""

from colatent.report.text.found_groups import found_groups

ONE, TWO = ("a+b", "a+b", "a"), ("a", "b")


def test_it_says_what_was_found_and_in_how_many_fits() -> None:
    text = found_groups({(0, 0): ONE, (1, 0): ONE, (2, 0): TWO}, (0, 0), True)
    assert "2 latents of a+b, 1 latent of a, alike in 2 of 3 fits." in text
    assert "left out of the figures of the latents: fold 2, seed 0: 1 latent of a, 1 latent of b." in text
    assert "No evidence" not in text


def test_it_says_that_nothing_is_shared() -> None:
    text = found_groups({(0, 0): TWO}, (0, 0), True)
    assert text.endswith("alike in 1 of 1 fits. No evidence of a signal that modalities share.")


def test_it_is_silent_on_groups_of_the_config() -> None:
    assert found_groups({(0, 0): ONE}, (0, 0), False) == ""
