"""Latents independent of each other: a density of any shape a channel, given by a small monotone network.

Balle, Minnen, Singh, Hwang, Johnston: "Variational image compression with a scale hyperprior", ICLR 2018, appendix 6.1.

    c(v) = sigmoid(f_K(... f_1(v)))     f_k(h) = g_k(softplus(H_k) h + b_k)     g_k(h) = h + tanh(a_k) tanh(h)

c is the cumulative distribution of a channel (the last layer has no g). Convolved with a unit uniform, a value v has
the probability c(v + 1/2) - c(v - 1/2).
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding import exact
from lichen.coding.coder import Coder, code_batch
from lichen.coding.exact import Array
from lichen.coding.tables import Tables
from lichen.layers.bounds import lower_bound, straight_through
from lichen.layers.gain import Gain
from lichen.priors.conditional import Conditional, Latents
from lichen.priors.gaussian import LIKELIHOOD_MIN

TAIL_LOGIT = 21.4164  # log(2 / 1e-9 - 1): beyond it lies half a tail mass of 1e-9
REACH = 2**10  # a table goes no further from the median


class DeepFactorized(nn.Module):
    """p(z) of channels-last latents (B, h, w, C), each channel with its own density.

    z_hat = median + round(z - median), so that a channel's likeliest values are not split between two bins. `median`
    (C,) is no weight to be trained: training mode finds it anew at every step.
    """

    def __init__(
        self, channels: int, widths: Sequence[int] = (3, 3, 3, 3), init_scale: float = 10.0, part: str = "z"
    ) -> None:
        """widths: of hidden layers. init_scale: the density's width at the start, about. part: what its bits are of."""
        super().__init__()
        self.part = part
        sizes = (1, *widths, 1)
        scale = init_scale ** (1 / (len(sizes) - 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for before, after in itertools.pairwise(sizes):
            start = math.log(math.expm1(1 / scale / after))
            self.matrices.append(nn.Parameter(torch.full((channels, after, before), start)))
            self.biases.append(nn.Parameter(torch.rand(channels, after, 1) - 0.5))
        for width in widths:
            self.factors.append(nn.Parameter(torch.zeros(channels, width, 1)))
        self.median = nn.Parameter(torch.zeros(channels), requires_grad=False)

    def logits(self, v: Tensor) -> Tensor:
        """v: (C, 1, n) -> the logits of c(v), same shape, increasing in v. In v's precision, autocast or not."""
        with torch.autocast(v.device.type, enabled=False):
            h = v
            for k, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
                h = F.softplus(matrix.to(v.dtype)) @ h + bias.to(v.dtype)
                if k < len(self.factors):
                    h = h + torch.tanh(self.factors[k].to(v.dtype)) * torch.tanh(h)
        return h

    def likelihood(self, z: Tensor, gain: Tensor | None = None) -> Tensor:
        """z: (B, h, w, C) -> c((z + 1/2) / gain) - c((z - 1/2) / gain), same shape, differentiable.

        gain: (B, 1, 1, C), where the density is that of z before a gain; else 1.
        """
        edges = torch.stack([z - 0.5, z + 0.5])
        if gain is not None:
            edges = edges / gain
        v = edges.permute(4, 0, 1, 2, 3)  # (C, 2, B, h, w)
        lower, upper = self.logits(v.reshape(len(v), 1, -1)).view(v.shape).unbind(1)
        # right of the median both are close to one: their complements keep the digits of the difference
        sign = torch.where((lower + upper).detach() > 0, -1.0, 1.0)
        p = (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()
        return p.permute(1, 2, 3, 0)

    @torch.no_grad()
    def update_median(self) -> None:
        """Set `median` to the point where c = 1/2, by bisection between +-2^13 (64 parts at a time) down to 2^-16."""
        low = torch.full_like(self.median, -(2.0**13), dtype=torch.float64)[:, None, None]
        parts, step = torch.arange(1, 64, dtype=torch.float64, device=low.device), 2.0**14
        for _ in range(5):
            step /= 64
            below = self.logits(low + step * parts) < 0
            low = low + step * below.sum(-1, keepdim=True)
        self.median.copy_(low.flatten())

    def forward(self, z: Tensor, level: Any = None, gain: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z: (B, h, w, C) -> z_hat, same shape, with straight-through gradients; bits (B,) of z with uniform noise.

        level: unused; one density serves all. gain: (B, 1, 1, C), as for `likelihood`.
        """
        if self.training:
            self.update_median()
        median = self.median if gain is None else self.median * gain
        z_hat = straight_through(median + torch.round(z - median), z)
        noisy = z + torch.rand_like(z) - 0.5
        return z_hat, self.bits(noisy, gain).flatten(1).sum(1)

    def bits(self, z: Tensor, gain: Tensor | None = None) -> Tensor:
        """-log2 of `likelihood`, which is taken as at least 1e-9."""
        return -torch.log2(lower_bound(self.likelihood(z.float(), gain), LIKELIHOOD_MIN))

    def conditional(self, level: Any = None, gain: Tensor | None = None) -> Conditional:
        """What is expected of z."""
        return Conditional(self.median if gain is None else self.median * gain, lambda z: self.bits(z, gain))

    def moments(self, reach: int, gain: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and deviation (1, 1, 1, C) of z_hat, from the integers up to `reach` from the median."""
        median = self.median if gain is None else (self.median * gain).flatten()
        steps = torch.arange(-reach, reach + 1, dtype=median.dtype, device=median.device)
        values = (median + steps[:, None])[None, None]  # (1, 1, n, C)
        p = self.likelihood(values, gain)
        p = p / p.sum(2, keepdim=True)
        mean = (p * values).sum(2, keepdim=True)
        return mean, (p * (values - mean) ** 2).sum(2, keepdim=True).sqrt()

    def exact(self) -> nn.Module:
        """The twin that codes."""
        return ExactDeepFactorized(self)


class ExactDeepFactorized(nn.Module):
    """`DeepFactorized` as probability tables, one a channel."""

    median: Tensor

    def __init__(self, twin: DeepFactorized) -> None:
        super().__init__()
        self.part = twin.part
        self.register_buffer("median", exact.snap(twin.median.detach().double()))
        density = copy.deepcopy(twin)
        self.tables_at = functools.lru_cache(maxsize=8)(lambda gain: _tables_at(density, gain))

    def code(
        self, coders: Sequence[Coder], z: Tensor | None, level: Any, shape: tuple[int, int], gain: Tensor | None = None
    ) -> Tensor:
        """Code z (B, h, w, C), or read it where z is None; `shape` is (h, w). Returns z_hat, float64.

        gain: (1, 1, 1, C), as for `DeepFactorized.likelihood`.
        """
        tables = self.tables_at(None if gain is None else tuple(gain.flatten().tolist()))
        median = self.median if gain is None else exact.snap(self.median * gain.flatten())
        index = torch.arange(len(median), device=median.device)
        values = None if z is None else torch.round(z.double() - median)
        size = (len(coders), *shape, len(median))
        return median + code_batch(self.part, coders, tables, index.expand(size), values)


def _tables_at(density: DeepFactorized, gain: tuple[float, ...] | None) -> Tables:
    """The tables of a density at a gain a channel, about the median on the grid."""
    median = density.median.detach().double()
    if gain is None:
        return tables(density, exact.snap(median).cpu().numpy())
    factor = np.asarray(gain, np.float64)
    centre = exact.snap(exact.snap(median) * torch.from_numpy(factor).to(median.device))
    return tables(density, centre.cpu().numpy(), factor)


class FactorizedPrior(nn.Module):
    """p(y) as a codec's whole prior, without hyper-latents or context: y ~ `DeepFactorized`, (B, h, w, M).

    With a `gain`, the density is that of y before it: one density serves all qualities.
    """

    def __init__(self, channels: int, gain: Gain | None = None) -> None:
        super().__init__()
        self.y_prior: Any = DeepFactorized(channels, part="y")
        self.gain = gain

    def condition(self, quality: Tensor | None) -> Any:
        """Qualities (B,) -> gain and inverse gain (B, 1, 1, M); None for a network of one quality."""
        return None if self.gain is None else self.gain(quality)

    def forward(self, y: Tensor, level: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Training: y_hat (B, h, w, M) with straight-through gradients, and the bits {"y": (B,)}."""
        y_hat, bits = self.y_prior(y, gain=None if level is None else level[0])
        return y_hat, {"y": bits}

    def look(self, y: Tensor, y_hat: Tensor, level: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Mean and deviation of each channel's density, at all positions (B, h, w, M); there are no hyper-latents."""
        mean, deviation = self.y_prior.moments(int(y_hat.abs().max()) + 32, None if level is None else level[0])
        return mean.expand_as(y_hat), deviation.clamp_min(1e-3).expand_as(y_hat), {}

    def hyper(self, y: Tensor, level: Any) -> dict[str, Tensor]:
        """There are no hyper-latents."""
        return {}

    def conditionals(self, latents: Latents, level: Any) -> tuple[dict[str, Conditional], Tensor]:
        """What is expected of "y", and y itself for the synthesis."""
        return {"y": self.y_prior.conditional(gain=None if level is None else level[0])}, latents["y"]

    def frozen(self) -> Self:
        """A copy whose `code` is exact."""
        return exact.freeze(self)

    @torch.no_grad()
    def code(self, coders: Sequence[Coder], latents: Latents | None, level: Any, shape: tuple[int, int]) -> Tensor:
        """Frozen: code "y" (B, h, w, M), or read it where latents is None. Returns y_hat, float64."""
        y = None if latents is None else latents["y"]
        y_hat: Tensor = self.y_prior.code(coders, y, None, shape, None if level is None else level[0])
        return y_hat


# ---- The same bits on every machine: element by element, sums in a fixed order, exp and log of coding/exact ----------


def logits_exact(density: DeepFactorized, v: Array) -> Array:
    """`DeepFactorized.logits` in reproducible float64: v (C, n) -> (C, n)."""
    h = [np.asarray(v, np.float64)]
    for k, (matrix, bias) in enumerate(zip(density.matrices, density.biases, strict=True)):
        w, b = _softplus(_numpy(matrix)), _numpy(bias)
        rows = []
        for i in range(w.shape[1]):
            row = w[:, i, :1] * h[0]
            for j in range(1, w.shape[2]):
                row = row + w[:, i, j : j + 1] * h[j]
            rows.append(row + b[:, i])
        if k < len(density.factors):
            a = exact.tanh(_numpy(density.factors[k]))
            rows = [row + a[:, i] * exact.tanh(row) for i, row in enumerate(rows)]
        h = rows
    return h[0]


def cumulative_exact(density: DeepFactorized, v: Array) -> Array:
    """c(v) in reproducible float64: v (C, n) -> (C, n) in 0..1."""
    return 1.0 / (1.0 + exact.exp(-logits_exact(density, v)))


def tables(density: DeepFactorized, median: Array, gain: Array | None = None) -> Tables:
    """For each channel the probabilities of the integers z - median, the same bits on every machine.

    median, gain: (C,); with a gain the density is that of z / gain. A table leaves out a tail mass of at most 1e-9 / 2
    to each side, and what is further than 2^10 from the median.
    """
    centre = np.asarray(median, np.float64)[:, None]
    scale = np.ones_like(centre) if gain is None else np.asarray(gain, np.float64)[:, None]
    low, high = np.full(centre.shape, -REACH), np.full(centre.shape, REACH)
    for step in (2 * REACH >> k for k in range(REACH.bit_length() + 1)):
        further = logits_exact(density, (centre + (low + step) - 0.5) / scale) <= -TAIL_LOGIT
        low = np.where(further & (low + step <= REACH), low + step, low)
        further = logits_exact(density, (centre + (high - step) + 0.5) / scale) >= TAIL_LOGIT
        high = np.where(further & (high - step >= -REACH), high - step, high)
    edges = np.arange(int((high - low).max()) + 2) - 0.5
    cumulative = cumulative_exact(density, (centre + low + edges) / scale)
    pmf = np.maximum(cumulative[:, 1:] - cumulative[:, :-1], 0.0)
    sizes = (high - low + 1).flatten().tolist()
    return Tables([p[:n] for p, n in zip(pmf, sizes, strict=True)], low.flatten().tolist())


def _numpy(parameter: Tensor) -> Array:
    array: Array = parameter.detach().cpu().double().numpy()
    return array


def _softplus(x: Array) -> Array:
    """log(1 + e^x), with the relative precision of e^x where x is far below zero."""
    e = exact.exp(-np.abs(x))
    u = 1.0 + e
    log1p = np.where(u == 1.0, e, exact.log(u) * (e / np.where(u == 1.0, 1.0, u - 1.0)))
    return np.maximum(x, 0.0) + log1p
