"""The multi-modal Gaussian-process variational autoencoder."""
