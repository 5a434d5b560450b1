"""Held-out scores: what they compare, and what they did not see."""
