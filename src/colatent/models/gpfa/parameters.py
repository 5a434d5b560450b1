"""Parameters of Gaussian GPFA."""

from typing import NamedTuple

import torch
from torch import Tensor

NO_DELAY = torch.zeros((1, 1), dtype=torch.float64)


class Parameters(NamedTuple):
    """Parameters of GPFA as parametrised in fits.

    Attributes:
        loading: C (channel, latent) in units of the channels' noise standard deviation; with sites, C.
        log_noise: log R (channel,); with sites, the log of the likelihood's scale.
        offset: d (channel,).
        log_time_scale: log of the time scales in bins (latent,).
        delay: D in bins, by how much a modality follows each latent (modality, latent).
    """

    loading: Tensor
    log_noise: Tensor
    offset: Tensor
    log_time_scale: Tensor
    delay: Tensor = NO_DELAY
