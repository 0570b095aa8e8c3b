"""Latents independent of each other: a normal distribution around zero a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lichen.coding.coder import Coder, code_batch
from lichen.layers.bounds import straight_through
from lichen.priors import gaussian
from lichen.priors.conditional import Conditional


class ZeroMeanNormal(nn.Module):
    """z ~ N(0, |sigma|) * U(-1/2, 1/2) with one sigma a channel: (B, h, w, N) -> z_hat of the same shape, bits (B,)."""

    def __init__(self, channels: int, part: str = "z") -> None:
        """part: what its bits are of."""
        super().__init__()
        self.part = part
        self.sigma = nn.Parameter(torch.ones(channels))
        self.scale = gaussian.LinearScale()

    def forward(self, z: Tensor, level: Any = None) -> tuple[Tensor, Tensor]:
        """Training: z_hat = round(z) with straight-through gradients, and the bits of z with uniform noise."""
        bits = gaussian.noisy_bits(z, self.scale(self.sigma.abs())).flatten(1).sum(1)
        return straight_through(torch.round(z), z), bits

    def conditional(self, level: Any = None) -> Conditional:
        """What is expected of z."""
        sigma = self.scale(self.sigma.abs())
        return Conditional(torch.zeros_like(sigma), lambda z: gaussian.bits(z, sigma))

    def code(self, coders: Sequence[Coder], z: Tensor | None, level: Any, shape: tuple[int, int]) -> Tensor:
        """Frozen: code z (B, h, w, N), or read it where z is None; `shape` is (h, w). Returns z_hat, float64."""
        index = self.scale(self.sigma.abs()).expand(len(coders), *shape, -1)
        return code_batch(self.part, coders, gaussian.tables(), index, None if z is None else torch.round(z.double()))
