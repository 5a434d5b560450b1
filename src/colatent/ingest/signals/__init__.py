"""Time series: their clocks, envelopes, and how they come onto bins."""
