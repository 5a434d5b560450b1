"""Baselines, with hyper-parameters chosen inside the training trials."""
