"""One network for several qualities: gain vectors, interpolated between levels.

Cui, Wang, Gao, Guo, Feng, Bai: "Asymmetric gained deep image compression with continuous rate adaptation", CVPR 2021.
Each latent channel has a gain and an inverse gain a level; a quality between two levels takes the geometric mean of
theirs, weighted by its distance to both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lichen.coding.exact import Exp, Snap

QUALITY_MIN, QUALITY_MAX = 1.0, 100.0


def lmbda_between(quality: Tensor, low: float, high: float) -> Tensor:
    """Quality 1..100 -> lmbda, `low` at 1 and `high` at 100, even in the logarithm. Any shape."""
    return low * torch.exp((quality - QUALITY_MIN) / (QUALITY_MAX - QUALITY_MIN) * math.log(high / low))


def level_weights(quality: Tensor, levels: int) -> Tensor:
    """Quality (B,) in 1..100 -> (B, levels): weights of a linear interpolation between levels spaced evenly."""
    t = (quality - QUALITY_MIN) / (QUALITY_MAX - QUALITY_MIN) * (levels - 1)
    return (1 - (t[:, None] - torch.arange(levels, device=t.device)).abs()).clamp(min=0)


class Gain(nn.Module):
    """Gains of latents: quality (B,) -> gain, inverse gain (B, 1, 1, channels).

    y = u gain before coding, u_hat = y_hat inverse before the synthesis. At the start gain = sqrt(lmbda / middle), the
    ratio of steps that high-rate theory asks for, and inverse = 1 / gain. Exact when frozen.
    """

    def __init__(self, channels: int, levels: int, low: float, high: float) -> None:
        """low, high: lmbda of the first and the last level."""
        super().__init__()
        log_gain = torch.linspace(-0.25, 0.25, levels)[:, None] * math.log(high / low)
        self.levels = levels
        self.log_gain = nn.Parameter(log_gain.repeat(1, channels))
        self.log_inverse = nn.Parameter(-log_gain.repeat(1, channels))
        self.exp, self.snap = Exp(), Snap()

    def forward(self, quality: Tensor) -> tuple[Tensor, Tensor]:
        """Qualities (B,) in 1..100."""
        w = self.snap(level_weights(quality.to(self.log_gain.dtype), self.levels))
        return self.exp(w @ self.log_gain)[:, None, None], self.exp(w @ self.log_inverse)[:, None, None]
