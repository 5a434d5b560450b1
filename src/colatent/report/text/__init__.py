"""Prose and labels of the report."""
