"""Gaussian latents whose means and scales come from hyper-latents that have hyper-latents themselves; no context.

Hu, Yang, Liu: "Coarse-to-fine hyper-prior modeling for learned image compression", AAAI 2020.

    y --round--> h_a2 --> z2 --round--> h_a1 --> z1 --round--> z1_hat
                                                                  |
    p(z1) = N(0, sigma a channel)                          psi1 <-- h_s1
    p(z2) = N(mu, sigma) of predict2(psi1)         z2_hat = mu + round(z2 - mu) --> h_s2 --> psi2
    p(y)  = N(mu, sigma) of predict(psi2)                                y_hat = mu + round(y - mu)

The paper rounds to integers whatever the mean, and uses the mean in the probabilities alone. Here y_hat is
mu + round(y - mu), as in all of this library; what the hyper analyses look at, which the encoder alone computes, is
round(y) and round(z2) as in the paper.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding.coder import Coder, code_batch
from lichen.coding.exact import freeze
from lichen.layers.bounds import straight_through
from lichen.layers.resampling import depth_to_space
from lichen.priors import gaussian
from lichen.priors.conditional import Conditional, Latents
from lichen.priors.zero_mean import ZeroMeanNormal

POSITIONS = 2048
"""A frozen predictor works on bands of rows with about so many positions, so that its memory is bounded."""


@dataclass
class Relaxed:
    """What training sees of B pictures."""

    y_hat: Tensor  # (B, h, w, M), with straight-through gradients
    z2: Tensor  # (B, h/2, w/2, C2), before rounding
    psi1: Tensor | None  # (B, h/2, w/2, P1); None where z2 was coded alone
    psi2: Tensor  # (B, h, w, P2)
    bits: dict[str, Tensor]  # {"y": (B,), "z2": (B,), "z1": (B,)}, with uniform noise in place of rounding


class MeanAndScale(nn.Module):
    """A network's outputs (B, h, w, 2 C), means and log scales -> mu, sigma (B, h, w, C)."""

    def __init__(self, net: nn.Module, reach: int) -> None:
        """net: (B, h, w, P) -> (B, h, w, 2 C), where no output depends on features further away than `reach`."""
        super().__init__()
        self.net, self.reach, self.scale = net, reach, gaussian.LogScale()

    def forward(self, psi: Tensor) -> tuple[Tensor, Tensor]:
        """Any size."""
        mu, log_sigma = self.net(psi).chunk(2, dim=-1)
        return mu, self.scale(log_sigma)

    def in_bands(self, psi: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, picture by picture and a few rows at a time."""
        _, h, w, _ = psi.shape
        rows = max(1, POSITIONS // w)
        pictures = []
        for picture in psi.split(1):
            bands = [self._band(picture, top, min(top + rows, h)) for top in range(0, h, rows)]
            pictures.append([torch.cat(t, dim=1) for t in zip(*bands, strict=True)])
        mu, sigma = (torch.cat(t) for t in zip(*pictures, strict=True))
        return mu, sigma

    def _band(self, psi: Tensor, top: int, bottom: int) -> tuple[Tensor, Tensor]:
        start = max(0, top - self.reach)
        mu, sigma = self(psi[:, start : bottom + self.reach])
        return mu[:, top - start : bottom - start], sigma[:, top - start : bottom - start]


class CoarseToFinePrior(nn.Module):
    """p(y, z2, z1) = p(z1) p(z2 | z1) p(y | z2), channels last.

    The parts are modules:
        h_a2(round(y)) -> z2                        (B, h, w, M) -> (B, h/2, w/2, C2), h and w even
        h_a1(round(z2)) -> z1                       (B, h, w, C2) -> (B, h/2, w/2, C1), h and w even
        h_s1(z1_hat) -> psi1                        (B, h, w, C1) -> (B, 2 h, 2 w, P1)
        predict2(psi1) -> mu, sigma of z2
        h_s2(z2_hat) -> psi2                        (B, h, w, C2) -> (B, 2 h, 2 w, P2)
        predict(psi2) -> mu, sigma of y
    """

    h_a2: Any
    h_a1: Any
    h_s1: Any
    h_s2: Any
    z1_prior: Any  # ZeroMeanNormal
    predict2: Any  # MeanAndScale
    predict: Any
    channels: int  # M

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def condition(self, quality: Tensor | None) -> Any:
        """Qualities (B,) -> what the parts need to know of them."""
        return None

    def hyper_analysis(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """y (B, h, w, M) -> z2, z1 at a half and a quarter of h and w, rounded up; rounding by straight-through."""
        z2 = self.h_a2(_to_even(_rounded(y)))
        return z2, self.h_a1(_to_even(_rounded(z2)))

    def relaxed(self, y: Tensor, z2_prior: ZeroMeanNormal | None = None) -> Relaxed:
        """Training, with h and w multiples of 4. z2_prior: in place of z1 and what comes of it."""
        bits: dict[str, Tensor] = {}
        psi1 = None
        if z2_prior is not None:
            z2 = self.h_a2(_rounded(y))
            z2_hat, bits["z2"] = z2_prior(z2)
        else:
            z2, z1 = self.hyper_analysis(y)
            z1_hat, bits["z1"] = self.z1_prior(z1)
            psi1 = self.h_s1(z1_hat)
            z2_hat, bits["z2"] = _relaxed_gaussian(z2, *self.predict2(psi1))
        psi2 = self.h_s2(z2_hat)
        y_hat, bits["y"] = _relaxed_gaussian(y, *self.predict(psi2))
        return Relaxed(y_hat, z2, psi1, psi2, bits)

    def forward(self, y: Tensor, level: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Training: latents and features for the synthesis (see `joined`), and the bits {"y", "z2", "z1"}, (B,)."""
        found = self.relaxed(y)
        assert found.psi1 is not None
        return joined(found.y_hat, found.psi2, found.psi1), found.bits

    def hyper(self, y: Tensor, level: Any) -> dict[str, Tensor]:
        """y (B, h, w, M) of any size -> the hyper-latents that the encoder chooses, {"z2", "z1"}, before rounding."""
        z2, z1 = self.hyper_analysis(y)
        return {"z2": z2, "z1": z1}

    def conditionals(self, latents: Latents, level: Any) -> tuple[dict[str, Conditional], Tensor]:
        """What is expected of "z1", "z2" and "y", given values of all latents, and what `joined` makes of them; in the
        float arithmetic of training, differentiable."""
        y, z2 = latents["y"], latents["z2"]
        psi1 = self.h_s1(latents["z1"])[:, : z2.shape[1], : z2.shape[2]]
        mu2, sigma2 = self.predict2(psi1)
        psi2 = self.h_s2(z2)[:, : y.shape[1], : y.shape[2]]
        mu, sigma = self.predict(psi2)
        found = {
            "z1": self.z1_prior.conditional(),
            "z2": Conditional(mu2, lambda v: gaussian.bits(v - mu2, sigma2)),
            "y": Conditional(mu, lambda v: gaussian.bits(v - mu, sigma)),
        }
        return found, joined(y, psi2, psi1)

    def look(self, y: Tensor, y_hat: Tensor, level: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """mu, sigma of y (B, h, w, M), and the rounded {"z2", "z1"}, in the float arithmetic of training."""
        h, w = y.shape[1:3]
        z2, z1 = self.hyper_analysis(y)
        z1_hat, _ = self.z1_prior(z1)
        mu2, _ = self.predict2(self.h_s1(z1_hat)[:, : z2.shape[1], : z2.shape[2]])
        z2_hat = mu2 + torch.round(z2 - mu2)
        mu, sigma = self.predict(self.h_s2(z2_hat)[:, :h, :w])
        return mu, sigma.clamp_min(gaussian.SIGMA_MIN), {"z2": z2_hat, "z1": z1_hat}

    def frozen(self) -> Self:
        """A copy whose `code` is exact, without the hyper analyses, which only the encoder runs."""
        others = copy.copy(self)
        others._modules = {name: module for name, module in self._modules.items() if name not in ("h_a2", "h_a1")}
        return freeze(others)

    @torch.no_grad()
    def code(self, coders: Sequence[Coder], latents: Latents | None, level: Any, shape: tuple[int, int]) -> Tensor:
        """Frozen: code "y" (B, h, w, M), "z2" and "z1", or read them where latents is None, one coder a picture.

        `shape` is (h, w), any size; z2 and z1 have a half and a quarter of it, rounded up. Three batches a picture,
        z1, z2 and y. Returns what `joined` makes of them, float64, the same bits wherever it runs.
        """
        h, w = shape
        h2, w2 = -(-h // 2), -(-w // 2)
        y, z2, z1 = (None, None, None) if latents is None else (latents["y"], latents["z2"], latents["z1"])
        z1_hat = self.z1_prior.code(coders, z1, level, (-(-h2 // 2), -(-w2 // 2)))
        psi1 = self.h_s1(z1_hat)[:, :h2, :w2]
        z2_hat = _code_gaussian("z2", coders, z2, *self.predict2.in_bands(psi1))
        psi2 = self.h_s2(z2_hat)[:, :h, :w]
        y_hat = _code_gaussian("y", coders, y, *self.predict.in_bands(psi2))
        return joined(y_hat, psi2, psi1)


def joined(y_hat: Tensor, psi2: Tensor, psi1: Tensor) -> Tensor:
    """All that a synthesis may see: y_hat (B, h, w, M), psi2 (B, h, w, P2) and psi1 (B, h/2, w/2, P1), the latter
    brought to y's size by depth to space -> (B, h, w, M + P2 + P1 / 4). h and w may be odd."""
    _, h, w, _ = y_hat.shape
    return torch.cat([y_hat, psi2, depth_to_space(psi1, 2)[:, :h, :w]], dim=-1)


def _rounded(y: Tensor) -> Tensor:
    return straight_through(torch.round(y), y)


def _to_even(y: Tensor) -> Tensor:
    """(B, h, w, C), zeros at the bottom and on the right."""
    return F.pad(y, (0, 0, 0, y.shape[2] % 2, 0, y.shape[1] % 2))


def _relaxed_gaussian(y: Tensor, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """y_hat with straight-through gradients, and bits (B,) with uniform noise."""
    y_hat = straight_through(mu + torch.round(y - mu), y)
    return y_hat, gaussian.noisy_bits(y - mu, sigma).flatten(1).sum(1)


def _code_gaussian(part: str, coders: Sequence[Coder], y: Tensor | None, mu: Tensor, index: Tensor) -> Tensor:
    """Code y (B, h, w, M), or read it where y is None, given its means and the indices of its tables."""
    values = None if y is None else torch.round(y.double() - mu)
    return mu + code_batch(part, coders, gaussian.tables(), index, values)
