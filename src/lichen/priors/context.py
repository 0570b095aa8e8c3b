"""Context models: what the latents already coded say about the next one.

A position may look at the positions before it in raster order within a 5x5 window. All positions with equal
`slope * row + column` then depend only on earlier such fronts, and are coded at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding import exact

KERNEL = 5


def causal_taps(kernel: int = KERNEL) -> list[tuple[int, int]]:
    """(row, column) offsets of the positions before the centre of a kernel x kernel window in raster order: 12 for 5x5."""
    r = kernel // 2
    return [(i, j) for i in range(-r, 1) for j in range(-r, r + 1) if (i, j) < (0, 0)]


class DepthwiseContext(nn.Module):
    """Masked depthwise 5x5 convolution over each latent channel and its absolute value, two outputs a channel.

    (B, h, w, M) -> (B, h, w, 2 M). A hundred times fewer products than the full masked convolution of Minnen et al.
    2018; what a channel tells its neighbours is left to the pointwise layers that follow.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(2 * channels, 2 * channels, KERNEL, groups=channels)
        r = KERNEL // 2
        taps = [conv.weight[:, :, i + r, j + r] for i, j in causal_taps()]
        self.weight = nn.Parameter(torch.stack(taps, dim=-1).detach().clone())  # (2 M, 2, 12): out, (value, abs), tap
        assert conv.bias is not None
        self.bias = conv.bias  # (2 M,)

    def forward(self, x: Tensor) -> Tensor:
        """All positions at once, zeros outside the picture."""
        n, taps = KERNEL * KERNEL, self.weight.shape[-1]
        kernel = F.pad(self.weight, (0, n - taps)).unflatten(-1, (KERNEL, KERNEL))
        x = x.permute(0, 3, 1, 2)
        x = torch.stack([x, x.abs()], dim=2).flatten(1, 2)
        phi = F.conv2d(x, kernel, self.bias, padding=KERNEL // 2, groups=x.shape[1] // 2)
        return phi.permute(0, 2, 3, 1)

    def exact(self) -> nn.Module:
        """The twin that works on gathered neighbours."""
        return ExactDepthwiseContext(self)


class ExactDepthwiseContext(nn.Module):
    """`DepthwiseContext` at some positions, from their neighbours: (n, 12, M) -> (n, 2 M)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, twin: DepthwiseContext) -> None:
        super().__init__()
        w = twin.weight.detach()  # (2 M, 2, 12)
        exact.check_rows(w.flatten(1))
        self.register_buffer("weight", w.unflatten(0, (-1, 2)).permute(1, 2, 3, 0).flatten(1, 2).contiguous())  # (2, 24, M)
        self.register_buffer("bias", twin.bias.detach())

    def forward(self, neighbours: Tensor) -> Tensor:
        """Taps in the order of `causal_taps`."""
        v = torch.cat([neighbours, neighbours.abs()], dim=1)  # (n, 24, M)
        phi = torch.stack([(v * self.weight[0]).sum(1), (v * self.weight[1]).sum(1)], dim=-1)  # (n, M, 2)
        return exact.snap_(phi.flatten(1) + self.bias)


@dataclass(frozen=True)
class Front:
    """Positions that are coded at once, of all pictures of a batch, picture by picture."""

    at: Tensor  # (n,): index into (B h w)
    padded: Tensor  # (n,): index into the buffer of height h + 2 and width w + 4, (B (h + 2) (w + 4))
    neighbours: Tensor  # (n 12,): indices into the same buffer


@functools.lru_cache(maxsize=64)
def fronts(B: int, h: int, w: int) -> list[Front]:
    """The wavefronts of B pictures of h x w positions: front f holds all positions with 3 row + column = f.

    Every causal neighbour of a 5x5 window lies on an earlier front: its 3 row + column is less by at least 1.
    """
    r = KERNEL // 2
    slope = max(j for i, j in causal_taps() if i < 0) + 1
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    number = (slope * rows + columns).flatten()
    order = torch.argsort(number, stable=True)
    sizes = torch.unique_consecutive(number[order], return_counts=True)[1].tolist()
    stride = w + 2 * r
    taps = torch.tensor([i * stride + j for i, j in causal_taps()])
    result = []
    for at in order.split(sizes):
        padded = (rows.flatten()[at] + r) * stride + columns.flatten()[at] + r
        batch = torch.arange(B)[:, None]
        at, padded = (batch * (h * w) + at).flatten(), (batch * ((h + r) * stride) + padded).flatten()
        result.append(Front(at, padded, (padded[:, None] + taps).flatten()))
    return result
