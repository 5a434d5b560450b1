"""Models and baselines; import them from their own modules."""
