"""Decoders map latents to the predictor ``eta`` of a modality's likelihood, bin by bin.

Each has its own file and a record in `colatent.config.models.mmgpvae.DECODERS`.
"""
