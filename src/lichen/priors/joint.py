"""Gaussian latents whose means and scales come from hyper-latents, from a context, or from both.

Minnen, Balle, Toderici: "Joint autoregressive and hierarchical priors for learned image compression", NeurIPS 2018.

    y --+--> h_a --> z --> z_hat --> h_s --> psi --+
        |                                         +--> entropy parameters --> mu, sigma;  y_hat = mu + round(y - mu)
        +--> y_hat (positions before) -> context -> phi --+
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding.coder import Coder, code_batch
from lichen.coding.exact import Snap, freeze
from lichen.layers.bounds import straight_through
from lichen.priors import gaussian
from lichen.priors.conditional import Conditional, Latents
from lichen.priors.context import all_at_once, wavefronts


class JointPrior(nn.Module):
    """p(y) = p(z) prod_i N(y_i; mu_i, sigma_i) * U, channels last.

    The parts are modules; `level` is whatever `condition` makes of a quality (None for a network of one quality):
        h_a(y, level) -> z                                   (B, h, w, M) -> (B, h/4, w/4, N)
        z_prior(z, level) -> z_hat, bits                     bits: (B,)
        h_s(z_hat, level) -> psi                             (B, h, w, P)
        context(seen(y_hat, level)) -> phi                   (B, h, w, Q)
        entropy_parameters(psi, phi, level) -> mu, sigma     (B, h, w, M) each
    Without hyper-latents (h_a None) psi is None; without a context phi is None.
    """

    channels: int  # M
    h_a: Any
    h_s: Any
    z_prior: Any
    context: Any
    entropy_parameters: Any

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def condition(self, quality: Tensor | None) -> Any:
        """Qualities (B,) -> what the parts need to know of them."""
        return None

    def __init__(self) -> None:
        super().__init__()
        self.snap = Snap()

    def seen(self, y_hat: Tensor, level: Any) -> Tensor:
        """Latents (B, h, w, M) as the context reads them, on the grid when frozen."""
        seen: Tensor = self.snap(y_hat)
        return seen

    def parameters_of(self, psi: Tensor | None, y_hat: Tensor, level: Any) -> tuple[Tensor, Tensor]:
        """mu, sigma at all positions (B, h, w, M), given all of y_hat."""
        phi = None if self.context is None else self.context(self.seen(y_hat, level))
        mu, sigma = self.entropy_parameters(psi, phi, level)
        return mu, sigma

    def training_bits(self, v: Tensor, sigma: Tensor) -> Tensor:
        """Bits of each latent's deviation v from mu, (B, h, w, M), with uniform noise in place of rounding."""
        return gaussian.noisy_bits(v, sigma)

    def handed_on(self, y_hat: Tensor, residual: Tensor, index: Tensor) -> Tensor:
        """What the synthesis takes, (B, h, w, M or more): y_hat, and behind it what a prior has to add.

        residual: y_hat - mu. index: of the probability tables. All (B, h, w, M), or of any shape with channels last.
        """
        return y_hat

    def forward(self, y: Tensor, level: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Training: what is handed on, with straight-through gradients, and the bits {"y": (B,), "z": (B,)}.

        The context is shown what the decoder will see, mu + round(y - mu); a first pass without gradients finds mu.
        """
        bits: dict[str, Tensor] = {}
        psi = None
        if self.h_a is not None:
            z_hat, bits["z"] = self.z_prior(self.h_a(y, level), level)
            psi = self.h_s(z_hat, level)
        seen = y
        if self.context is not None:
            with torch.no_grad():
                mu, _ = self.parameters_of(psi, torch.round(y), level)
                seen = mu + torch.round(y - mu)
            seen = straight_through(seen, y)
        mu, sigma = self.parameters_of(psi, seen, level)
        bits["y"] = self.training_bits(y - mu, sigma).flatten(1).sum(1)
        mu, index = mu.detach(), gaussian.index_of(sigma.detach().log())
        residual = torch.round(y.detach() - mu)
        rounded = self.handed_on(mu + residual, residual, index)
        return straight_through(rounded, self.handed_on(y, y - mu, index)), bits

    def hyper(self, y: Tensor, level: Any) -> dict[str, Tensor]:
        """y (B, h, w, M) of any size -> the hyper-latents that the encoder chooses: {"z": (B, h/4, w/4, N)}, rounded
        up, before rounding; none without h_a."""
        return {} if self.h_a is None else {"z": self.h_a(_pad_to_multiple(y, 4), level)}

    def conditionals(self, latents: Latents, level: Any) -> tuple[dict[str, Conditional], Tensor]:
        """What is expected of "z" and "y", given values of all latents, and what the synthesis takes; in the float
        arithmetic of training, differentiable, but for what is handed on behind y."""
        y, found, psi = latents["y"], {}, None
        if self.h_a is not None:
            found["z"] = self.z_prior.conditional(level)
            psi = self.h_s(latents["z"], level)[:, : y.shape[1], : y.shape[2]]
        mu, sigma = self.parameters_of(psi, y, level)
        found["y"] = Conditional(mu, lambda v: gaussian.bits(v - mu, sigma))
        return found, self.handed_on(y, (y - mu).detach(), gaussian.index_of(sigma.detach().log()))

    def look(self, y: Tensor, y_hat: Tensor, level: Any) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """mu, sigma (B, h, w, M) and the rounded hyper-latents {"z"}, in the float arithmetic of training."""
        hyper, psi = self.hyper(y, level), None
        if self.h_a is not None:
            hyper["z"], _ = self.z_prior(hyper["z"], level)
            psi = self.h_s(hyper["z"], level)[:, : y.shape[1], : y.shape[2]]
        mu, sigma = self.parameters_of(psi, y_hat, level)
        return mu, sigma.clamp_min(gaussian.SIGMA_MIN), hyper

    def frozen(self) -> Self:
        """A copy whose `condition` and `code` are exact, without h_a, which only the encoder runs."""
        others = copy.copy(self)
        others._modules = {name: module for name, module in self._modules.items() if name != "h_a"}
        return freeze(others)

    @torch.no_grad()
    def code(self, coders: Sequence[Coder], latents: Latents | None, level: Any, shape: tuple[int, int]) -> Tensor:
        """Frozen: code "y" (B, h, w, M) and what `hyper` has, or read all where latents is None, one coder a picture,
        all of one quality.

        `shape` is (h, w), any size. Returns what `handed_on` makes of y_hat, (B, h, w, M or more) float64, the same
        bits wherever it runs. The walk is one for encoder, decoder and meter: front by front, the latents of a front
        sorted by table.
        """
        (h, w), B, context = shape, len(coders), self.context
        psi, y = None, None if latents is None else latents["y"]
        if self.h_s is not None:
            z = None if latents is None else latents["z"]
            z_hat = self.z_prior.code(coders, z, level, (-(-h // 4), -(-w // 4)))
            psi = self.h_s(z_hat, level)[:, :h, :w].flatten(0, 2)
        walk = all_at_once(B, h, w) if context is None else wavefronts(B, h, w, context.slope, context.taps)
        order = walk.order.to(self.device)
        filled_up = F.pad(order, (0, 3))  # walks fill fronts up by at most 3 rows
        y = None if y is None else y.flatten(0, 2)[order].double()
        y_hat = torch.empty(B * h * w, self.channels, dtype=torch.float64, device=self.device)
        residuals, indices = torch.empty_like(y_hat), torch.empty_like(y_hat)
        if context is not None:
            outside = y_hat.new_zeros(1, 1, 1, self.channels)
            past = context.keep(self.seen(outside, level)[0, 0]).repeat(B * h * w + 1, 1)
        for f, front in enumerate(walk.fronts):
            rows, n, phi = front, front.stop - front.start, None
            if context is not None:
                neighbours = walk.neighbours[f].to(self.device)
                rows = slice(front.start, front.start + len(neighbours))
                phi = context(past, neighbours)[None, None]
            here = None if psi is None else psi.index_select(0, filled_up[rows])[None, None]
            mu, index = self.entropy_parameters(here, phi, level)
            mu, index = mu[0, 0, :n], index[0, 0, :n]
            residual = None if y is None else y[front].sub_(mu).round_()
            residual = code_batch("y", coders, gaussian.tables(), index, residual)
            values = residual + mu
            y_hat[front], residuals[front], indices[front] = values, residual, index
            if context is not None:
                past[front] = context.keep(self.seen(values[None, None], level)[0, 0])
        return self.handed_on(y_hat, residuals, indices)[walk.rank.to(self.device)].view(B, h, w, -1)


def _pad_to_multiple(y: Tensor, n: int) -> Tensor:
    """(B, h, w, M), edges repeated at the bottom and on the right."""
    _, h, w, _ = y.shape
    if h % n == 0 and w % n == 0:
        return y
    return F.pad(y.permute(0, 3, 1, 2), (0, -w % n, 0, -h % n), mode="replicate").permute(0, 2, 3, 1)
