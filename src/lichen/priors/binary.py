"""Layers of binary maps, each predicted from the layers before it and from its own bits to the left and above.

The progressive "BRNN" of Toderici et al., "Full resolution image compression with recurrent neural networks", CVPR
2017, in the layout of the authors' public entropy coder; for the layer k of bits x_k in {-1, 1}:

    x_k (positions before, 7x7) --> tanh W_k --> a --+
                                                     +--> LSTM down the rows --> tanh --> v;  E[x_k] = tanh(v)
    s_k ---------------> tanh conv 3x3 --> features -+
     ^
     +-- tanh <-- tanh <-- LSTM over the layers <-- tanh conv 3x3 <-- tanh conv 3x3 <-- x_(k-1)

The LSTM down the rows sums, for its gates, over [a, features] at the position and to its left, and over its own last
output, that of the row above, at three positions. Each layer has its own weights but for the LSTM over the layers and
the two 1x1 convolutions behind it. Left out is what could not matter: the features of the first layer, whose s is zero,
and the state after the last one.

A position looks at the row above up to three columns to its right. All positions with equal `4 * row + column` then
depend on earlier such fronts alone, and are coded at once, 172 fronts a layer for a picture of 32 x 48 positions.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding import exact
from lichen.coding.coder import Coder, code_batch
from lichen.coding.tables import Tables
from lichen.errors import DamagedError
from lichen.layers.bounds import lower_bound
from lichen.layers.recurrent import ConvLSTM, LSTMStep, remember_at_first
from lichen.priors.conditional import Latents
from lichen.priors.context import Walk, causal_taps, wavefronts

KERNEL, SLOPE = 7, 4
TAPS = causal_taps(SLOPE, KERNEL)  # all 24 positions of the window before its centre
LEFT = TAPS.index((0, -1))
ABOVE = [TAPS.index((-1, d)) for d in (-1, 0, 1)]

LOG_ODDS_STEP = 0.125  # between tables: costs 0.02 % of the rate of bits that are hard to predict
LOG_ODDS_MAX = 61 * LOG_ODDS_STEP  # |E[x]| of 0.999, where the authors saturate it


@functools.cache
def tables() -> Tables:
    """Tables of 0 and 1 for log-odds of 1 of 0, 1/8, ... 61/8: whether a bit is what was thought likelier."""
    p = exact.sigmoid(np.arange(62, dtype=np.float64) * LOG_ODDS_STEP)
    return Tables([np.array([1.0 - q, q]) for q in p], [0] * len(p))


def code_length(v: Tensor, x: Tensor) -> Tensor:
    """Bits that x in {-1, 1} costs with E[x] = tanh(v), elementwise: log-odds 2 v, saturated."""
    right = lower_bound(2 * v * x, -LOG_ODDS_MAX).clamp(max=LOG_ODDS_MAX)
    return F.softplus(-right) * 1.4426950408889634


def causal_window(x: Tensor) -> Tensor:
    """(B, h, w, n) -> (B, h, w, 24 n): what lies before each position in its window, tap by tap, zeros outside."""
    B, h, w, n = x.shape
    r = KERNEL // 2
    windows = F.unfold(x.permute(0, 3, 1, 2), KERNEL, padding=r).view(B, n, KERNEL * KERNEL, h, w)
    at = [(i + r) * KERNEL + j + r for i, j in TAPS]
    return windows[:, :, at].permute(0, 3, 4, 2, 1).flatten(3)


class RowLSTM(nn.Module):
    """An LSTM that runs down the rows of a picture; its sums look one position to the left, and at three above."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.sums = nn.Linear(2 * inputs + 3 * hidden, 4 * hidden)
        self.step = LSTMStep(-1)
        remember_at_first(self.sums.bias)

    def at(self, near: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs left and here, outputs above (..., 2 inputs + 3 hidden); c above -> output, c (..., hidden)."""
        return self.step(self.sums(near).to(c.dtype), c)

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, inputs) -> (B, h, w, hidden)"""
        x = torch.cat([F.pad(x[:, :, :-1], (0, 0, 1, 0)), x], dim=-1)
        h = c = x.new_zeros(len(x), x.shape[2], self.hidden)
        rows = []
        for row in x.unbind(1):
            padded = F.pad(h, (0, 0, 1, 1))
            h, c = self.at(torch.cat([row, padded[:, :-2], h, padded[:, 2:]], dim=-1), c)
            rows.append(h)
        return torch.stack(rows, dim=1)


class Predictor(nn.Module):
    """What the bits of a layer are likely to be."""

    def __init__(self, bits: int, hidden: int, first: bool) -> None:
        super().__init__()
        self.hidden = hidden
        self.before = nn.Sequential(nn.Linear(len(TAPS) * bits, hidden), nn.Tanh())
        self.of_state = None if first else nn.Sequential(nn.Conv2d(bits, hidden, 3, padding=1), nn.Tanh())
        self.rows = RowLSTM(hidden if first else 2 * hidden, hidden)
        self.out = nn.Sequential(nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, bits))

    def features(self, s: Tensor | None) -> Tensor | None:
        """s (B, h, w, bits) -> (B, h, w, hidden); None for the first layer."""
        if self.of_state is None or s is None:
            return None
        features: Tensor = self.of_state(s.permute(0, 3, 1, 2))
        return features.permute(0, 2, 3, 1).to(s.dtype)

    def forward(self, x: Tensor, s: Tensor | None) -> Tensor:
        """x, s: (B, h, w, bits) -> v, same shape: half the log-odds of 1."""
        features, a = self.features(s), self.before(causal_window(x)).to(x.dtype)
        v: Tensor = self.out(self.rows(a if features is None else torch.cat([a, features], dim=-1)))
        return v.to(x.dtype)


class BinaryPrior(nn.Module):
    """p(y) of y (B, h, w, iterations * bits) in {-1, 1}, layer by layer.

    A `level` says how many layers each picture has, (B,); None stands for all that there are.
    """

    def __init__(self, iterations: int, bits: int, hidden: int) -> None:
        super().__init__()
        self.iterations, self.bits = iterations, bits
        self.predictors: Any = nn.ModuleList(Predictor(bits, hidden, first=k == 0) for k in range(iterations))
        self.readers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(bits, hidden, 3, padding=1), nn.Tanh(),
                nn.Conv2d(hidden, bits, 3, padding=1), nn.Tanh(),
            )
            for _ in range(iterations - 1)
        )  # fmt: skip
        self.memory: Any = None
        if iterations > 1:
            self.memory = ConvLSTM(bits, hidden, kernel=1)
            self.recall = nn.Sequential(nn.Conv2d(hidden, hidden, 1), nn.Tanh(), nn.Conv2d(hidden, bits, 1), nn.Tanh())

    def condition(self, quality: Tensor | None) -> Tensor | None:
        """Qualities (B,) in 1..100 -> layers (B,): 1 at quality 1, all at 100, even in the logarithm between."""
        if quality is None:
            return None
        return (self.iterations ** ((quality.double() - 1) / 99)).round().long()

    def quality_of(self, layers: int) -> float:
        """The inverse of `condition`, for 1 to `iterations` layers."""
        return 100.0 if layers == self.iterations else 1 + 99 * float(np.log(layers) / np.log(self.iterations))

    def state_after(self, k: int, x: Tensor, memory: Any) -> tuple[Tensor, Any]:
        """The layer k, x (B, h, w, bits), and the LSTM's state before -> s for the next layer, the LSTM's state."""
        h, memory = self.memory(self.readers[k](x.permute(0, 3, 1, 2)).to(x.dtype), memory)
        return self.recall(h).permute(0, 2, 3, 1).to(x.dtype), memory

    def bits_of_layers(self, y: Tensor) -> Tensor:
        """y (B, h, w, T bits) -> what each of its layers costs, (B, T). No gradient to y."""
        costs, s, memory = [], None, None
        layers = y.detach().unflatten(-1, (-1, self.bits)).unbind(-2)
        for k, x in enumerate(layers):
            costs.append(code_length(self.predictors[k](x, s).float(), x.float()).flatten(1).sum(1))
            if k + 1 < len(layers):
                s, memory = self.state_after(k, x, memory)
        return torch.stack(costs, dim=1)

    def forward(self, y: Tensor, level: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Training: y as it is, and the bits {"b": (B,)} of its layers, without a gradient to y."""
        bits = self.bits_of_layers(y)
        if level is not None:
            bits = bits * (torch.arange(bits.shape[1], device=bits.device) < level[:, None])
        return y, {"b": bits.sum(1)}

    def hyper(self, y: Tensor, level: Any) -> dict[str, Tensor]:
        """There are no hyper-latents."""
        return {}

    def frozen(self) -> Self:
        """A copy whose `code` is exact."""
        return exact.freeze(self)

    @torch.no_grad()
    def code(
        self, coders: Sequence[Coder], latents: Latents | None, level: Tensor | None, shape: tuple[int, int]
    ) -> Tensor:
        """Frozen: code the layers of "y" (B, h, w, T bits), or read them where latents is None; of one level (1,).

        Returns y_hat (B, h, w, T bits) float64, zero where y has more layers than the level. DamagedError for what is
        no bit.
        """
        n = self.iterations if level is None else int(level.max())
        (h, w), B, device = shape, len(coders), next(self.buffers()).device
        given: Sequence[Tensor | None] = [None] * n
        y = None if latents is None else latents["y"]
        if y is not None:
            given = y.double().unflatten(-1, (-1, self.bits)).unbind(-2)[:n]
        walk = wavefronts(B, h, w, SLOPE, tuple(causal_taps(SLOPE, KERNEL)))
        rank = walk.rank.to(device)
        coded: list[Tensor] = []
        s, memory = None, None
        for k, x in enumerate(given):
            if k:
                s, memory = self.state_after(k - 1, coded[-1], memory)
            bits = self._code_layer(coders, self.predictors[k], x, s, walk)
            coded.append(bits[rank].view(B, h, w, self.bits))
            for coder in coders:
                coder.end_layer()
        y_hat = torch.cat(coded, dim=-1)
        return y_hat if y is None else F.pad(y_hat, (0, y.shape[-1] - y_hat.shape[-1]))

    def _code_layer(
        self, coders: Sequence[Coder], p: Predictor, x: Tensor | None, s: Tensor | None, walk: Walk
    ) -> Tensor:
        """x, s: (B, h, w, bits) or None -> the layer's bits (B h w, bits) in the walk's order."""
        device = next(self.buffers()).device
        order, (P, e) = walk.order.to(device), (len(walk.order), p.hidden)
        # in the walk's order; a last row of zeros is all that is outside
        past = torch.zeros(P + 1, self.bits, dtype=torch.float64, device=device)
        outputs, c, inputs = past.new_zeros(P + 1, e), past.new_zeros(P + 1, e), past.new_zeros(P + 1, e)
        features = p.features(s)
        if features is not None:
            inputs = torch.cat([inputs, F.pad(features.flatten(0, 2)[order], (0, 0, 0, 1))], dim=-1)
        x = None if x is None else x.flatten(0, 2)[order]
        for front, neighbours in zip(walk.fronts, walk.neighbours, strict=True):
            n = front.stop - front.start
            near = neighbours[:n].to(device)
            inputs[front, :e] = p.before(past.index_select(0, near.flatten()).view(n, -1))
            left, above = inputs.index_select(0, near[:, LEFT]), outputs.index_select(0, near[:, ABOVE].flatten())
            around = torch.cat([left, inputs[front], above.view(n, -1)], dim=-1)
            outputs[front], c[front] = p.rows.at(around, c.index_select(0, near[:, ABOVE[1]]))
            v = p.out(outputs[front])
            likely = torch.where(v < 0, -1.0, 1.0).double()
            index = v.abs_().mul_(2 / LOG_ODDS_STEP).round_().clamp_(max=len(tables()) - 1)
            right = None if x is None else (x[front] * likely > 0).double()
            right = code_batch("b", coders, tables(), index, right)
            if bool((right * (right - 1)).any()):
                raise DamagedError("a coded bit is neither 0 nor 1: the file is damaged, get another copy")
            past[front] = likely * (2 * right - 1)
        return past[:-1]
