"""Trials, their split, scaling and subsets; predictive distributions and their metrics."""
