"""Latents independent of each other: one distribution a channel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lichen.coding.coder import Coder, code_batch
from lichen.coding.exact import Snap
from lichen.layers.bounds import straight_through
from lichen.priors import gaussian
from lichen.priors.conditional import Conditional


class NormalPrior(nn.Module):
    """z ~ N(mean, std) a channel, both scaled by the level's gain for z.

    (B, h, w, N), level -> z_hat of the same shape, bits (B,).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(channels))
        self.log_std = nn.Parameter(torch.zeros(channels))
        self.snap, self.scale = Snap(), gaussian.LogScale()

    def parameters_at(self, level: Any) -> tuple[Tensor, Tensor]:
        """Means and scales (B, 1, 1, N)."""
        return self.snap(self.mean * level.z_g), self.scale(self.log_std + level.z_log_g)

    def forward(self, z: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        """Training: rounded with straight-through gradients, and its bits."""
        mu, sigma = self.parameters_at(level)
        z_hat = straight_through(mu + torch.round(z - mu), z)
        return z_hat, gaussian.rounded_bits(z - mu, sigma).flatten(1).sum(1)

    def conditional(self, level: Any) -> Conditional:
        """What is expected of z."""
        mu, sigma = self.parameters_at(level)
        return Conditional(mu, lambda z: gaussian.bits(z - mu, sigma))

    def code(self, coders: Sequence[Coder], z: Tensor | None, level: Any, shape: tuple[int, int]) -> Tensor:
        """Frozen: code z (B, h, w, N), or read it where z is None; `shape` is (h, w). Returns z_hat, float64."""
        mu, index = self.parameters_at(level)
        size = (len(coders), *shape, mu.shape[-1])
        values = None if z is None else torch.round(z.double() - mu)
        return mu + code_batch("z", coders, gaussian.tables(), index.expand(size), values)
