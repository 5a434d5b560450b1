"""Regressions from latents, or from other predictors, to observations."""
