"""Latents of a few learned values: symbols, the logits of each from the symbols before it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding.categorical import code_each
from lichen.coding.coder import Coder
from lichen.coding.exact import freeze, snap
from lichen.errors import WeightsError
from lichen.layers.soft_quantization import SoftQuantization
from lichen.priors.conditional import Latents
from lichen.priors.masked_context3d import VolumeContext

LN2 = math.log(2)


class SymbolPrior(nn.Module):
    """p(y_hat) = prod_k p(symbol_k | symbols before it in the volume), channels last: y (B, h, w, C).

    Source: Mentzer et al., "Conditional probability models for deep image compression", CVPR 2018, sections 3.1, 3.2.
    """

    def __init__(self, channels: int, levels: int, features: int) -> None:
        super().__init__()
        self.channels = channels
        self.quantization = SoftQuantization(levels)
        self.network: Any = VolumeContext(features, levels)

    def condition(self, quality: Tensor | None) -> None:
        """Nothing: such a network has one quality."""

    def bits(self, y_hat: Tensor, symbols: Tensor) -> Tensor:
        """Bits of each symbol (B, h, w, C). Their gradient is the network's alone, none reaches y_hat."""
        y_hat, outside = y_hat.detach(), self.quantization.centres.detach()[0]
        logits: Tensor = self.network(y_hat, outside).float()
        return F.cross_entropy(logits.flatten(0, 3), symbols.flatten(), reduction="none").view_as(y_hat) / LN2

    def forward(self, y: Tensor, level: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Training: y_hat (B, h, w, C) with the gradients of the soft quantization, and the bits {"y": (B,)}."""
        y_hat, symbols = self.quantization(y)
        return y_hat, {"y": self.bits(y_hat, symbols).flatten(1).sum(1)}

    def hyper(self, y: Tensor, level: Any) -> dict[str, Tensor]:
        """There are no hyper-latents."""
        return {}

    def frozen(self) -> Self:
        """A copy whose `code` is exact."""
        return freeze(self)

    @torch.no_grad()
    def code(self, coders: Sequence[Coder], latents: Latents | None, level: Any, shape: tuple[int, int]) -> Tensor:
        """Frozen: code "y" (B, h, w, C), or read it where latents is None. Returns y_hat, float64.

        WeightsError for NaN.
        """
        size = (len(coders), *shape, self.channels)
        symbols = None
        if latents is not None:
            y = latents["y"]
            if not bool(torch.isfinite(y).all()):
                raise WeightsError("a latent is no number: the network's output has blown up, its weights are broken")
            symbols = self.quantization.symbols(y.double()).flatten()
        centres = self.quantization.centres
        seen = snap(centres)
        y_hat = centres.new_empty(size).flatten()
        walk = self.network.walk(size, seen[0])
        for positions, logits in walk:
            coded = code_each("y", coders, logits, None if symbols is None else symbols[positions])
            y_hat[positions] = centres[coded]
            walk.put(seen[coded])
        return y_hat.view(size)
