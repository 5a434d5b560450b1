"""Baselines, tuned inside the training trials."""
