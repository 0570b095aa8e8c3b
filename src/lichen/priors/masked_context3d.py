"""A context model over volumes: masked convolutions in three dimensions, and the fronts that walk through them.

Mentzer, Agustsson, Tschannen, Timofte, Van Gool: "Conditional probability models for deep image compression", CVPR
2018, section 3.2.

Latents are one volume (C, h, w) with the raster order of a video: channel by channel, row by row. A filter of depth 2
at the position (c, i, j) looks at 3x3 positions of the channel before and at those of its own channel that come first:

    channel c - 1    x x x        channel c    x x x
                     x x x                     x o          o: the position itself, for all layers but the first
                     x x x

All of them but the position itself have a smaller 4 c + 2 i + j, by 7 at most. So have the taps of every further layer:
the positions of equal 4 c + 2 i + j are a front, none of which depends on another, and 32 channels of 64 x 96 latents
are 346 fronts where they are 196608 positions. On each front every layer is evaluated once, from its inputs on this
front and the seven before; nothing older is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding import exact
from lichen.coding.exact import snap

SLOPES = (4, 2)  # front = 4 channel + 2 row + column
KEPT = 8  # fronts whose features later ones may need: this one and the seven before
LAYERS = 4
DEPTH, SIDE = LAYERS + 1, 2 * LAYERS + 1  # the receptive field of all layers: 5 x 9 x 9


def taps(itself: bool) -> list[tuple[int, int, int]]:
    """(channel, row, column) offsets, in raster order, that a filter looks at; the position itself last, or not."""
    window = [(c, i, j) for c in (-1, 0) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return [t for t in window if t < (0, 0, 0) or (itself and t == (0, 0, 0))]


class MaskedConv3d(nn.Module):
    """Masked 2x3x3 convolution without padding: (B, in, C, h, w) -> (B, out, C - 1, h - 2, w - 2).

    13 taps, or 14 with the position itself; only these are stored.
    """

    def __init__(self, inputs: int, outputs: int, itself: bool = True) -> None:
        super().__init__()
        n = len(taps(itself))
        linear = nn.Linear(n * inputs, outputs)  # for its start, which looks at the number of inputs
        self.weight = nn.Parameter(linear.weight.detach().view(outputs, inputs, n).clone())  # (out, in, 13 or 14)
        self.bias = linear.bias  # (out,)

    def forward(self, x: Tensor) -> Tensor:
        """At least 2 x 3 x 3."""
        kernel = F.pad(self.weight, (0, 18 - self.weight.shape[2])).unflatten(2, (2, 3, 3))  # later taps are zero
        return F.conv3d(x, kernel, self.bias)

    def exact(self) -> nn.Module:
        """The twin that works on gathered neighbours."""
        return ExactMaskedConv3d(self)


class ExactMaskedConv3d(nn.Module):
    """`MaskedConv3d` at some positions: one matrix product."""

    weight: Tensor
    bias: Tensor

    def __init__(self, twin: MaskedConv3d) -> None:
        super().__init__()
        weight = twin.weight.detach().transpose(1, 2).flatten(1).contiguous()  # (out, taps in)
        exact.check_rows(weight)
        self.register_buffer("weight", weight)
        self.register_buffer("bias", twin.bias.detach())

    def forward(self, past: Tensor, neighbours: Tensor) -> Tensor:
        """past: (rows, in), on the grid; neighbours: (n, at least its taps), the rows of each position's taps.

        Gives (n, out), exact and on no grid.
        """
        x = past.index_select(0, neighbours[:, : self.weight.shape[1] // past.shape[1]].flatten())
        return F.linear(x.view(len(neighbours), self.weight.shape[1]), self.weight, self.bias)


class VolumeContext(nn.Module):
    """Values of symbols (B, h, w, C) -> logits of each position's symbol (B, h, w, C, L), from those before it.

    v -- conv, 13 taps -- relu --+-- conv -- relu -- conv --(+)-- conv -- relu --> logits
                                 +------------------------->|

    Source: the paper's section 3.2 with the sizes of its public code: 24 features, one residual block, and a ReLU at
    the end too, so that no logit is negative. The volume is padded once, by the receptive field, and no layer pads.
    The block's second convolution has no ReLU.
    """

    def __init__(self, features: int, levels: int) -> None:
        super().__init__()
        self.into = MaskedConv3d(1, features, itself=False)
        self.block1, self.block2 = MaskedConv3d(features, features), MaskedConv3d(features, features)
        self.out = MaskedConv3d(features, levels)

    def forward(self, v: Tensor, outside: Tensor) -> Tensor:
        """outside: (), what stands before the first channel and around all of them."""
        B, h, w, C = v.shape
        padded = outside.to(v.dtype).expand(B, 1, C + DEPTH - 1, h + SIDE - 1, w + SIDE - 1).clone()
        padded[:, 0, LAYERS:, LAYERS:-LAYERS, LAYERS:-LAYERS] = v.permute(0, 3, 1, 2)
        t = F.relu(self.into(padded))
        t = t[:, :, 2:, 2:-2, 2:-2] + self.block2(F.relu(self.block1(t)))
        return F.relu(self.out(t)).permute(0, 3, 4, 2, 1)

    def exact(self) -> nn.Module:
        """The twin that walks."""
        return ExactVolumeContext(self)


class ExactVolumeContext(nn.Module):
    """`VolumeContext` front by front."""

    def __init__(self, twin: VolumeContext) -> None:
        super().__init__()
        self.into, self.out = twin.into.exact(), twin.out.exact()
        self.block1, self.block2 = twin.block1.exact(), twin.block2.exact()

    def walk(self, size: tuple[int, int, int, int], outside: Tensor) -> Walk:
        """size: (B, h, w, C); outside: () on the grid."""
        return Walk(self, size, outside)


class Walk:
    """B volumes front by front: each step gives the logits of a front, then wants its values.

        for positions, logits in walk:
            walk.put(values)

    positions: (n,) places in raster order over (B, h, w, C), picture by picture, as many a picture; logits: (n, L),
    exact; values: (n,) on the grid.

    A layer's features of one front are a slab, of one row for each (picture, channel, row) within the pictures and
    around them; the column follows from the front. Eight slabs are kept, in turn. The channel before the first, and the
    fronts before the first, hold what a layer makes of `outside` alone.
    """

    def __init__(self, net: ExactVolumeContext, size: tuple[int, int, int, int], outside: Tensor) -> None:
        self.net, self.outside = net, outside
        (B, h, w, C), m, device = size, LAYERS - 1, outside.device
        every = torch.arange(B), torch.arange(C), torch.arange(-m, h + m)
        b, c, i = (t.flatten().to(device) for t in torch.meshgrid(*every, indexing="ij"))
        pitch = h + 2 * LAYERS
        self.slab = B * (C + 1) * pitch
        self.row = (b * (C + 1) + c + 1) * pitch + i + LAYERS  # of a place in its slab
        self.start = SLOPES[0] * c + SLOPES[1] * i  # the front of a place's column 0
        self.beyond = torch.maximum(-i, i - (h - 1)).clamp_(min=0)  # how far a place lies above or below the picture
        self.position, self.width, self.channels = (b * h + i) * w * C + c, w, C
        self.fronts = range(SLOPES[0] * (C - 1) + SLOPES[1] * (h - 1) + w)
        offsets = torch.tensor(taps(itself=True), device=device)
        self.tap_row = offsets[:, 0] * pitch + offsets[:, 1]
        self.tap_front = offsets @ torch.tensor([*SLOPES, 1], device=device)  # -7 .. 0
        alone = torch.zeros(1, len(offsets), dtype=torch.int64, device=device)
        a = snap(net.into(outside.view(1, 1), alone).relu_())
        t = snap(net.block1(a, alone).relu_())
        d = snap(a + net.block2(t, alone))
        features = (v.expand(KEPT * self.slab, -1).clone() for v in (outside.view(1, 1), a, t, d))
        self.values, self.a, self.t, self.d = features

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All fronts that hold positions, in order."""
        for front in self.fronts:
            column = front - self.start
            beyond = torch.maximum(torch.maximum(-column, column - (self.width - 1)), self.beyond)
            # places within the pictures, and up to 1, 2, 3 around them: layers to come look at those
            places = [(beyond <= k).nonzero().flatten() for k in range(LAYERS)]
            rows = [self.row[p] for p in places]
            slab = front % KEPT * self.slab
            neighbours = self.tap_row + (front + self.tap_front) % KEPT * self.slab
            logits = self._logits(rows, slab, neighbours)
            self.values[slab : slab + self.slab] = self.outside
            self.here = rows[0] + slab
            if len(self.here):
                yield self.position[places[0]] + column[places[0]] * self.channels, logits

    def _logits(self, rows: list[Tensor], slab: int, neighbours: Tensor) -> Tensor:
        """Every layer at the places of one front."""
        net, near, here = self.net, [r[:, None] + neighbours for r in rows], [r + slab for r in rows]
        self.a.index_copy_(0, here[3], snap(net.into(self.values, near[3]).relu_()))
        self.t.index_copy_(0, here[2], snap(net.block1(self.a, near[2]).relu_()))
        d = net.block2(self.t, near[1]).add_(self.a.index_select(0, here[1]))
        self.d.index_copy_(0, here[1], snap(d))
        logits: Tensor = net.out(self.d, near[0]).relu_()
        return logits

    def put(self, values: Tensor) -> None:
        """The values (n,) of the front last given."""
        self.values[self.here, 0] = values
