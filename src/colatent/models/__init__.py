"""Models and baselines. Import them from their own modules."""
