"""Decoders: from latents to the parameter ``eta`` of a modality's likelihood, bin by bin.

Each has its own file and a record in `colatent.config.models.mmgpvae.DECODERS`.
"""
