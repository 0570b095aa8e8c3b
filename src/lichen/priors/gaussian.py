"""The normal distribution of a latent within the bin that rounding leaves it: p(v) = N(0, sigma) * U(-1/2, 1/2)."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor, nn

from lichen.coding import exact
from lichen.coding.tables import Tables
from lichen.layers.bounds import lower_bound

SIGMA_MIN = 0.11
"""Smallest scale (Balle et al. 2018): below it a latent is zero all but once in 10^5."""

LIKELIHOOD_MIN = 1e-9


def bits(v: Tensor, sigma: Tensor) -> Tensor:
    """Bits of the unit bin around the deviation v from the mean: -log2(Phi((v+1/2)/sigma) - Phi((v-1/2)/sigma)).

    v, sigma: any shapes that broadcast. Differentiable in both, with sigma >= 0.11 and likelihoods >= 1e-9 by
    bounds that let gradients back in (Balle et al., "Variational image compression with a scale hyperprior", ICLR
    2018, equation 11).
    """
    v, sigma = v.abs(), lower_bound(sigma, SIGMA_MIN)
    upper, lower = (0.5 - v) / sigma, (-0.5 - v) / sigma
    k = -(2**-0.5)
    return -torch.log2(lower_bound(0.5 * (torch.erfc(k * upper) - torch.erfc(k * lower)), LIKELIHOOD_MIN))


def noisy_bits(v: Tensor, sigma: Tensor) -> Tensor:
    """Bits in training, with uniform noise in place of rounding, of the deviation v (Balle et al. 2018)."""
    return bits(v + torch.rand_like(v) - 0.5, sigma)


def rounded_bits(v: Tensor, sigma: Tensor) -> Tensor:
    """Bits in training of the deviation v as a file has it, rounded: sigma learns from these.

    v learns from `noisy_bits`, as rounding has no slope. Noise would tell sigma that a latent which always rounds to
    zero is spread over a step.
    """
    noisy = noisy_bits(v, sigma.detach())
    return bits(torch.round(v.detach()), sigma) + noisy - noisy.detach()


SCALES = 64
SIGMA_MAX = 256.0
_STEP = 0.12305479932808386  # log(SIGMA_MAX / SIGMA_MIN) / (SCALES - 1)
_LOG_MIN = -2.2072749131897207  # log(SIGMA_MIN)


@functools.cache
def tables() -> Tables:
    """Tables of N(0, sigma) * U for 64 scales spaced evenly in the logarithm from 0.11 to 256 (Balle et al. 2018).

    A table reaches 5.5 sigma to both sides, at least 2. The same on every machine.
    """
    sigmas = exact.exp(_LOG_MIN + _STEP * np.arange(SCALES, dtype=np.float64))
    pmfs, low = [], []
    for sigma in sigmas.tolist():
        reach = max(2, math.ceil(5.5 * sigma))
        v = np.abs(np.arange(-reach, reach + 1))
        pmfs.append(exact.normal_cdf((0.5 - v) / sigma) - exact.normal_cdf((-0.5 - v) / sigma))
        low.append(-reach)
    return Tables(pmfs, low)


class LogScale(nn.Module):
    """Log scales, any shape -> scales. Its exact twin gives the index of the probability table instead."""

    def forward(self, log_sigma: Tensor) -> Tensor:
        """Natural logarithms, clamped to -8 .. 10."""
        return log_sigma.clamp(-8.0, 10.0).exp()

    def exact(self) -> nn.Module:
        """The twin that gives indices."""
        return ExactLogScale()


class ExactLogScale(nn.Module):
    """Log scales -> index of the nearest table (as float64), any shape."""

    def forward(self, log_sigma: Tensor) -> Tensor:
        """Natural logarithms."""
        return (log_sigma - _LOG_MIN).div_(_STEP).round_().clamp_(0, SCALES - 1)


class LinearScale(nn.Module):
    """Scales, any shape, unchanged. Its exact twin gives the index of the probability table instead."""

    def forward(self, sigma: Tensor) -> Tensor:
        """Scales."""
        return sigma

    def exact(self) -> nn.Module:
        """The twin that gives indices."""
        return ExactLinearScale()


class ExactLinearScale(nn.Module):
    """Scales -> index of the nearest table in the logarithm, any shape."""

    thresholds: Tensor

    def __init__(self) -> None:
        super().__init__()
        middles = exact.exp(_LOG_MIN + _STEP * (np.arange(SCALES - 1, dtype=np.float64) + 0.5))
        self.register_buffer("thresholds", torch.from_numpy(middles))

    def forward(self, sigma: Tensor) -> Tensor:
        """Scales of any sign; all below 0.11 share the first table."""
        return torch.bucketize(sigma.contiguous(), self.thresholds)
