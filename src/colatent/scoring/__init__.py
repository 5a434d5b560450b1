"""Held-out scores."""
