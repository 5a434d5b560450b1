"""Gaussian-process factor analysis of Gaussian observations and of counts."""
