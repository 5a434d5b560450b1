"""The kinds of modalities, one file each: what a file holds of one, and how it comes onto bins."""
