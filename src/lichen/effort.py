"""Fewer bits for more time: the latents of this very picture, refined against its rate and distortion.

The encoder's networks choose latents at one glance. Decoders read others as well, so an encoder may look for better
ones. This one lowers

    cost = bits(y_hat, z_hat) + lmbda 255^2 sum (x_hat - x)^2 / 3

(with weights trained for MS-SSIM bits(y_hat, z_hat) + lmbda pixels (1 - MS-SSIM), with that objective's lmbda) of the
one picture in two stages, by as many steps as the level of effort says.

annealing   y and z move by Adam. Each is rounded at random to one of its two neighbours, in a relaxed manner that
            hardens with time: Yang, Bamler, Mandt: "Improving inference for neural image compression", NeurIPS 2020.
            Where the further neighbour costs much more than the nearer one (a latent that is expected to be zero and
            has hardly a choice), halves of both would be cheap and come to nothing in a file: such a latent stays.
rounding    Each y may go one step up or down. What that saves is its own bits, which are known, against the gradient
            of the distortion and its curvature, which is measured a channel. What it does to the bits of others is
            not known; only steps that promise some bits are taken, and about half of them at a time, for neighbours
            answer to the same error.

Nothing of this is in the file: what comes out is coded as any latents are. Level 0's stay where they are no worse.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lichen.coding.coder import Meter
from lichen.errors import EffortError
from lichen.layers.ms_ssim import NEEDED, SIDE_MIN, ms_ssim_error, ms_ssim_lmbda
from lichen.models.base import Model
from lichen.priors.conditional import Conditional, Latents

STEPS = ((0, 0), (0, 1), (0, 3), (3, 3), (6, 4), (12, 5), (24, 6), (45, 8), (80, 8), (150, 10))
"""Level of effort -> steps of annealing, steps of rounding."""

LEVELS = range(len(STEPS))

RATE, DAMPING = 0.2, 30.0  # of Adam: a latent whose slopes are far below 30 bits a step hardly moves
BETAS = (0.5, 0.99)
HOT, COLD = 0.5, 0.1  # temperatures of the annealing, first and last
STUCK = 4.0  # bits that the further neighbour costs more where a latent stays
WORTH = 6.0  # bits that a step of the rounding has to promise
SHARE = 0.6  # of these steps are taken
PROBE = 0.5  # of a step: how far latents are moved to measure curvature
BITS_A_STEP = 6 / math.log(2)
"""What an error of one step costs where a step s, of distortion s^2 / 12 and rate -log2 s, is well chosen."""

Tick = Callable[[], None]


@dataclass(frozen=True)
class Objective:
    """What weights were trained for, as a picture has it."""

    error: Callable[[Tensor, Tensor], Tensor]  # x, x_hat (1, 3, H, W) in 0..1 -> the sum over pixels ()
    lmbda_of: Callable[[Tensor], Tensor]  # lmbda for the mean squared error -> lmbda
    side_min: int  # pixels


OBJECTIVES = {
    "mse": Objective(lambda x, x_hat: ((x_hat - x) ** 2).sum() * (255**2 / 3), lambda lmbda: lmbda, 1),
    "ms-ssim": Objective(
        lambda x, x_hat: ms_ssim_error(x, x_hat).sum() * (x.shape[2] * x.shape[3]), ms_ssim_lmbda, SIDE_MIN
    ),
}


def check(effort: int, model: Model) -> int:
    """The level itself. EffortError for one that there is not, or that cannot be had of a model."""
    if effort not in LEVELS:
        raise EffortError(f"effort {effort} is not one of {LEVELS[0]} to {LEVELS[-1]}")
    if effort and not hasattr(model.prior, "conditionals"):
        raise EffortError(f"the latents of {model.name} cannot be refined: it takes effort 0 alone")
    if effort and model.objective == "ms-ssim" and importlib.util.find_spec("pytorch_msssim") is None:
        raise EffortError(NEEDED)
    return effort


class Refiner:
    """Refines latents of one model at one quality; several threads may share one."""

    def __init__(self, model: Model, quality: Tensor | None, effort: int) -> None:
        """quality: (1,), or None where the model has one alone. EffortError as of `check`."""
        self.annealing, self.rounding = STEPS[check(effort, model)]
        self.coding, self.quality = model, quality
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.level = self.model.prior.condition(quality)

    @property
    def steps(self) -> int:
        """How often a call ticks."""
        return self.annealing + self.rounding

    def __call__(self, x: Tensor, y: Tensor, tile: tuple[slice, slice], tick: Tick | None = None) -> Latents:
        """Latents to be coded for a tile.

        x: (1, 3, H, W) in 0..1, the tile's pixels with some around. y: (1, h, w, M), their latents as the analysis
        gives them. tile: the rows and columns of y that are the tile's. tick: called after each step.
        """
        with torch.inference_mode(False), torch.no_grad():
            x, y = x.clone(), y.clone()
            tick = tick or _nothing
            task = _Task(self, x, y, tile)
            y = y[:, tile[0], tile[1]]
            start = {"y": y, **self.model.prior.hyper(y, self.level)}
            if min(x.shape[2:]) < OBJECTIVES[self.model.objective].side_min:
                return start
            task.weigh(start)
            found = task.rounded(task.annealed(start, self.annealing, tick), self.rounding, tick)
            return found if task.cost(found) < task.cost(start) else start


def _nothing() -> None:
    pass


class _Task:
    """One tile's refinement."""

    def __init__(self, by: Refiner, x: Tensor, y: Tensor, tile: tuple[slice, slice]) -> None:
        self.by, self.x, self.tile = by, x, tile
        whole = y[:, tile[0], tile[1]].shape == y.shape
        self.around = None if whole else by.coding.code([Meter()], y, by.quality).clone()
        self.generator = torch.Generator().manual_seed(0)
        self.weight = math.nan  # lmbda
        self.curvature = torch.empty(0)  # (M,): what an error of one step of a latent adds to `error`

    # ---- The cost ----------------------------------------------------------------------------------------------------

    def expected(self, latents: Latents) -> tuple[dict[str, Conditional], Tensor]:
        """What the prior expects of each part, and what the synthesis takes."""
        found: tuple[dict[str, Conditional], Tensor] = self.by.model.prior.conditionals(latents, self.by.level)
        return found

    def error(self, s: Tensor) -> Tensor:
        """The objective's, summed over pixels, given what the synthesis takes of the tile (1, h, w, C)."""
        if self.around is not None:
            tile, s = s, self.around.clone()
            s[:, self.tile[0], self.tile[1]] = tile
        x_hat = self.by.model.synthesise_to(s, self.by.quality, (self.x.shape[2], self.x.shape[3]))
        error: Tensor = OBJECTIVES[self.by.model.objective].error(self.x, x_hat)
        return error

    def coded(self, latents: Latents) -> tuple[Tensor, float]:
        """What the synthesis takes when these latents are coded, and how many bits that takes."""
        meter = Meter()
        s = self.by.coding.code([meter], latents, self.by.quality)
        return s, sum(meter.bits.values())

    def cost(self, latents: Latents) -> float:
        """As a file has it, in bits."""
        s, bits = self.coded(latents)
        return bits + self.weight * float(self.error(s))

    def slope(self, latents: Latents) -> tuple[Tensor, Conditional, float]:
        """The gradient of the error (1, h, w, M), what is expected of y, and the error."""
        y = latents["y"].detach().requires_grad_()
        with torch.enable_grad():
            found, s = self.expected({**latents, "y": y})
            error = self.error(s)
            (slope,) = torch.autograd.grad(error, y)
        return slope, found["y"], float(error.detach())

    def weigh(self, latents: Latents) -> None:
        """Measure the curvature, and find lmbda: of the quality, or where there is one alone, of the curvature.

        A network's latents have about the steps that its lmbda asks for, each of them an error of `BITS_A_STEP`.
        """
        y = torch.round(latents["y"])
        sign = torch.randint(0, 2, y.shape, generator=self.generator).to(y) * 2 - 1
        here, there = (self.slope({**latents, "y": v})[0] for v in (y, y + PROBE * sign))
        self.curvature = ((there - here) * sign).mean((0, 1, 2)) / PROBE / 2
        if self.by.quality is not None:
            lmbda_of = OBJECTIVES[self.by.model.objective].lmbda_of
            self.weight = float(lmbda_of(self.by.model.lmbda_of(self.by.quality)))
        else:
            used = y.abs().clamp(max=1).mean((0, 1, 2))
            self.weight = BITS_A_STEP * float(used.sum() / (self.curvature * used).sum())
        # Half a step is far for channels that are hardly ever used: some measure less than nothing, and each of their
        # latents would step away.
        self.curvature = self.curvature.clamp(min=max(0.0, float(self.curvature.median()) / 2))

    # ---- The two stages ----------------------------------------------------------------------------------------------

    def annealed(self, latents: Latents, steps: int, tick: Tick) -> Latents:
        """Latents, not on the grid."""
        if not steps:
            return latents
        moving = {part: v.clone().requires_grad_() for part, v in latents.items()}
        adam = torch.optim.Adam(moving.values(), lr=RATE, betas=BETAS, eps=DAMPING)
        found, _ = self.expected({part: torch.round(v) for part, v in latents.items()})
        for i in range(steps):
            heat = HOT * (COLD / HOT) ** (i / max(1, steps - 1))
            adam.param_groups[0]["lr"] = RATE * (1 - i / steps)
            adam.zero_grad()
            with torch.enable_grad():
                soft = {part: self._softly_rounded(v, found[part], heat) for part, v in moving.items()}
                found, s = self.expected(soft)
                rate = torch.stack([found[part].bits(v).sum() for part, v in soft.items()]).sum()
                (rate + self.weight * self.error(s)).backward()
            adam.step()
            tick()
        return {part: v.detach() for part, v in moving.items()}

    def _softly_rounded(self, v: Tensor, found: Conditional, heat: float) -> Tensor:
        """A sample between the two neighbours of v, nearly one of them where it is cold; the nearer one of latents that
        stay. Neighbours lie around the centre that was found a step ago."""
        centre = found.centre.detach()
        below = centre + torch.floor(v.detach() - centre)
        share = (v - below).clamp(1e-4, 1 - 1e-4)
        u = torch.rand(v.shape, generator=self.generator).to(v).clamp(1e-6, 1 - 1e-6)
        odds = (torch.atanh(share) - torch.atanh(1 - share)) / heat + torch.logit(u)
        with torch.no_grad():
            near, far = below + torch.round(share), below + 1 - torch.round(share)
            stuck = found.bits(far) - found.bits(near) > STUCK
        return torch.where(stuck, near, below + torch.sigmoid(odds / heat))

    def rounded(self, latents: Latents, steps: int, tick: Tick) -> Latents:
        """The best latents that steps on the grid lead to."""
        if not steps:
            return latents
        hyper_hat, best, least = self._hyper_hat(latents), latents, math.inf
        for _ in range(steps):
            s, bits = self.coded(latents)
            y_hat = s[..., : latents["y"].shape[-1]]
            slope, found, error = self.slope({**hyper_hat, "y": y_hat})
            if bits + self.weight * error < least:
                best, least = latents, bits + self.weight * error
            latents = {**latents, "y": latents["y"] + self._steps_worth_it(y_hat, slope, found)}
            tick()
        return latents if self.cost(latents) < least else best

    def _hyper_hat(self, latents: Latents) -> Latents:
        """The hyper-latents as a decoder has them, but for the last bits of exact arithmetic."""
        hyper = {part: v for part, v in latents.items() if part != "y"}
        rounded = dict(hyper)
        for _ in hyper:  # a centre may depend on another part
            found, _ = self.expected({**rounded, "y": latents["y"]})
            rounded = {p: found[p].centre + torch.round(v - found[p].centre) for p, v in hyper.items()}
        return rounded

    def _steps_worth_it(self, y_hat: Tensor, slope: Tensor, found: Conditional) -> Tensor:
        """-1, 0 or 1 for each latent."""
        now = found.bits(y_hat)
        up, down = (found.bits(y_hat + d) - now + self.weight * (d * slope + self.curvature) for d in (1.0, -1.0))
        drawn = torch.rand(y_hat.shape, generator=self.generator).to(y_hat) < SHARE
        return torch.where(up < down, 1.0, -1.0) * (drawn & (torch.minimum(up, down) < -WORTH))
