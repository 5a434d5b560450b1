"""What the latents say, one file for each analysis."""
