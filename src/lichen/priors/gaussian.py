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


def index_of(log_sigma: Tensor) -> Tensor:
    """Natural logarithms of scales -> the index of the nearest table, as a number of the same kind; any shape."""
    return (log_sigma - _LOG_MIN).div_(_STEP).round_().clamp_(0, SCALES - 1)


FAR = 3
"""Residuals from here on have one column of `pulls`: latents have heavier tails than the normal distribution."""


@functools.cache
def pulls() -> Tensor:
    """(SCALES, FAR + 1): how far below the middle k of its bin the mean of N(0, sigma) in that bin lies.

    Columns are k = 0, 1, 2, and 3 with all beyond. With the density p of N(0, sigma) the mean is
    sigma^2 (p(k - 1/2) - p(k + 1/2)) / P(k - 1/2 < v < k + 1/2). Reconstruction there, for other densities: Sullivan,
    "Efficient scalar quantization of exponential and Laplacian random variables", IEEE Trans. Information Theory, 1996.
    """
    k = np.arange(1, FAR + 1, dtype=np.float64)
    rows = []
    for sigma in exact.exp(_LOG_MIN + _STEP * np.arange(SCALES, dtype=np.float64)):
        low, high = (k - 0.5) / sigma, (k + 0.5) / sigma
        p_low, p_high = (exact.exp(-np.minimum(z * z, 1000) / 2) / math.sqrt(2 * math.pi) for z in (low, high))
        P = exact.normal_cdf(-low) - exact.normal_cdf(-high)
        tail = low > 6  # there p falls off within the bin, and the mean is its lower end plus sigma^2 over that
        mean = sigma * np.where(tail, low + 1 / low, (p_low - p_high) / np.where(tail, 1, P))
        rows.append(np.append(0, k - mean))
    return torch.from_numpy(np.round(np.stack(rows) * 1024) / 1024)


def pull(residual: Tensor, index: Tensor) -> Tensor:
    """What takes y_hat from the middle of its bin to the mean of the values in it; any shape.

    residual: y_hat - mu; between whole ones the pull is linear, so that it has a slope, and at whole ones that towards
    zero. index: of the table, integral.
    """
    residual = residual.clamp(-FAR, FAR)
    sign, below = residual.detach().sign(), (residual.detach().abs().ceil() - 1).clamp(min=0)
    table, at = pulls().to(residual).flatten(), (index * (FAR + 1) + below).long()
    return -(table[at] * sign + (table[at + 1] - table[at]) * (residual - below * sign))


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
        return index_of(log_sigma)


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
