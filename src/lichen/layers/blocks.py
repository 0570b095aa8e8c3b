"""Residual blocks of light transforms, channels last, so that pointwise layers are plain matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.layers.depthwise import Depthwise

BOUND = 0.7
"""Of a gated product's magnitude. Products of products would otherwise grow without bound on pictures unlike any in
training: with a bound of 4, a checkerboard and a fence full of noise came back as noise brighter than white. In
photographs hardly a product goes beyond it: the squared error is 0.05 % larger than with 4.
"""


class Block(nn.Module):
    """Pointwise, depthwise 5x5, pointwise; then a gated pointwise feed-forward. Both residual.

        x --+-- p1 -- lrelu -- d -- * (1 + scale) + shift -- lrelu -- p2 --(+)-- x'
            +--------------------------------------------------------------->|

        x' --+-- f1 -- a, b -- bounded lrelu(a) b -- f2 --(+)--
             +-------------------------------------------->|

    Both branches end in zeros at the start, so that a new block is the identity. Scale and shift are interpolated
    between `levels` of quality. The order pointwise-depthwise-pointwise follows MobileNetV2 (Sandler et al., CVPR
    2018), the gated feed-forward "GLU variants improve transformer" (Shazeer, 2020), the modulation by a condition
    FiLM (Perez et al., AAAI 2018).
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        self.p1 = nn.Linear(channels, channels)
        self.d = Depthwise(channels, 5)
        self.p2 = nn.Linear(channels, channels)
        self.f1 = nn.Linear(channels, 2 * channels)
        self.f2 = nn.Linear(channels, channels)
        self.film = nn.Parameter(torch.zeros(2, levels, channels))
        for last in (self.p2, self.f2):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """x: (B, H, W, C); level: (B, levels), the weights of interpolation between levels."""
        scale, shift = (level @ self.film[0])[:, None, None], (level @ self.film[1])[:, None, None]
        h = self.d(F.leaky_relu(self.p1(x))) * (1 + scale) + shift
        x = x + self.p2(F.leaky_relu(h))
        a, b = self.f1(x).chunk(2, dim=-1)
        return x + self.f2(F.hardtanh(F.leaky_relu(a) * b, -BOUND, BOUND))
