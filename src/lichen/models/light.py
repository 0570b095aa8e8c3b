"""Lichen's default codec: light transforms, a joint prior, and one network for all qualities.

The joint autoregressive and hierarchical prior is that of

    Minnen, Balle, Toderici: Joint autoregressive and hierarchical priors for learned image compression. NeurIPS 2018

on transforms of 19 thousand multiply-accumulates a pixel (the paper's cost 100 to 180 thousand), with gain
vectors interpolated between levels of quality after

    Cui et al.: Asymmetric gained deep image compression with continuous rate adaptation. CVPR 2021

and a start from data: the untrained network is a Karhunen-Loeve transform with the quantization steps that high-rate
theory asks for, its prior the regression of latent energies on their own principal components.

    x --s2d 8--> a_in --> blocks --s2d 2--> a_mid --> blocks --> a_out --> u --* g--> y
                                                                                      |  y_hat = mu + round(y - mu)
    x_hat <--d2s 8-- s_out <-- blocks <--d2s 2-- s_mid <-- blocks <-- s_in <--* 1/g'-- y_hat + pull

The synthesis takes latents not from the middle of the bin that they were rounded to, but from the mean of what the
prior expects in it: `pull` of `priors/gaussian.py`.

Tensors are (B, H, W, C) inside, so that pointwise layers are matrix products. Pixels are 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.coding.exact import ExactLinear, Exp, Snap, snap_
from lichen.layers.blocks import Block
from lichen.layers.depthwise import Depthwise
from lichen.layers.gain import QUALITY_MAX, QUALITY_MIN, level_weights, lmbda_between
from lichen.layers.resampling import depth_to_space, space_to_depth
from lichen.models.base import Model, Preset
from lichen.priors import gaussian
from lichen.priors.context import DepthwiseContext
from lichen.priors.joint import JointPrior
from lichen.priors.normal import NormalPrior

LMBDA_MIN, LMBDA_MAX = 0.0012, 0.18  # lmbda at quality 1 and 100, for lmbda * 255^2 * MSE + bpp


@dataclass(frozen=True)
class Config:
    """Widths and depths; the defaults are the shipped model."""

    c1: int = 128  # channels at 1/8
    c2: int = 320  # channels at 1/16, at least M
    M: int = 248  # latent channels
    N: int = 48  # hyper-latent channels
    n1: int = 3  # blocks at 1/8
    n2: int = 2  # blocks at 1/16
    h: int = 192  # channels of the hyper transforms
    e: int = 256  # channels of the entropy parameters
    levels: int = 8  # qualities between which gains are interpolated


PRESETS = {
    "default": Preset(Config(), "the one that ships: 18.8 kMAC/pixel, 248 latent channels"),
    "small": Preset(Config(c1=64, c2=128, M=128, N=24, n1=2, n2=1, h=96, e=128), "a sixth of the cost, 128 channels"),
}


@dataclass
class Level:
    """A quality as the prior needs it. w: (B, levels); the others (B, 1, 1, M) for y and (B, 1, 1, N) for z."""

    w: Tensor
    g: Tensor  # gain: y = u g
    log_gs: Tensor  # log of the gain times each channel's standard deviation at the start
    gs: Tensor
    unit: Tensor  # 1 / sqrt(1 + gs^2): brings y to unit size, whether it spreads over many steps or hides below one
    z_log_g: Tensor
    z_g: Tensor


class Levels(nn.Module):
    """Gain vectors of latents and hyper-latents, interpolated in the logarithm between levels."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.levels = cfg.levels
        self.log_gain = nn.Parameter(torch.zeros(cfg.levels, cfg.M))
        self.z_log_gain = nn.Parameter(torch.zeros(cfg.levels, cfg.N))
        self.log_scale = nn.Parameter(torch.zeros(cfg.M), requires_grad=False)
        self.exp, self.snap = Exp(), Snap()

    def forward(self, quality: Tensor) -> Level:
        """Qualities (B,) in 1..100."""
        w = self.snap(level_weights(quality.to(self.log_gain.dtype), self.levels))
        log_g, z_log_g = (w @ self.log_gain)[:, None, None], (w @ self.z_log_gain)[:, None, None]
        log_gs = log_g + self.log_scale
        gs = self.exp(log_gs)
        return Level(w, self.exp(log_g), log_gs, gs, 1 / (1 + gs * gs).sqrt(), z_log_g, self.exp(z_log_g))


class HyperAnalysis(nn.Module):
    """(B, h, w, M) -> (B, h/4, w/4, N): principal components of the log energies of 4x4 latents, plus a network."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.linear = nn.Linear(cfg.M, cfg.N)
        self.net1, self.depthwise = nn.Linear(cfg.M, cfg.h), Depthwise(cfg.h)
        self.net2, self.net3 = nn.Linear(4 * cfg.h, cfg.h), nn.Linear(4 * cfg.h, cfg.N)
        nn.init.zeros_(self.net3.weight)
        nn.init.zeros_(self.net3.bias)

    @staticmethod
    def log_energy(y: Tensor, level: Level) -> Tensor:
        """(B, h, w, M) -> (B, h/4, w/4, M): log of the mean magnitude of 4x4 latents, in the start's deviations."""
        B, h, w, M = y.shape
        return ((y.abs().view(B, h // 4, 4, w // 4, 4, M).mean((2, 4)) / level.gs.to(y.dtype)) + 0.02).log()

    def forward(self, y: Tensor, level: Level) -> Tensor:
        """h and w divide by 4."""
        unit, z_g = level.unit.to(y.dtype), level.z_g.to(y.dtype)
        t = F.leaky_relu(self.net1(y * unit))
        t = F.leaky_relu(self.net2(space_to_depth(self.depthwise(t), 2)))
        energy = F.linear(self.log_energy(y, level), self.linear.weight, self.linear.bias)
        return (self.net3(space_to_depth(t, 2)) + energy) * z_g


class DepthToSpace(nn.Module):
    """(B, H, W, 4 C) -> (B, 2 H, 2 W, C)"""

    def forward(self, x: Tensor) -> Tensor:
        """Any size."""
        return depth_to_space(x, 2)


class HyperSynthesis(nn.Module):
    """(B, h/4, w/4, N) -> (B, h, w, e + M): features for the entropy parameters, and a guess of the log scales."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.linear = nn.Linear(cfg.N, cfg.M)
        self.net = nn.Sequential(
            nn.Linear(cfg.N, 4 * cfg.h),
            DepthToSpace(),
            nn.LeakyReLU(),
            nn.Linear(cfg.h, 4 * cfg.h),
            DepthToSpace(),
            nn.LeakyReLU(),
            Depthwise(cfg.h),
            nn.LeakyReLU(),
            nn.Linear(cfg.h, cfg.e),
        )
        self.level, self.snap = nn.Linear(cfg.levels, cfg.e, bias=False), Snap()

    def forward(self, z_hat: Tensor, level: Level) -> Tensor:
        """Any size."""
        z_hat = self.snap(z_hat / level.z_g)
        guess = self.linear(z_hat).to(z_hat.dtype).permute(0, 3, 1, 2)
        guess = self.snap(F.interpolate(guess, scale_factor=4, mode="bilinear").permute(0, 2, 3, 1))
        features = self.net(z_hat) + self.level(level.w)[:, None, None]
        return torch.cat([features, guess + level.log_gs], dim=-1)


class EntropyParameters(nn.Module):
    """psi (B, h, w, e + M), phi (B, h, w, 2 M) -> mu, sigma (B, h, w, M)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.e, self.M = cfg.e, cfg.M
        self.context = nn.Linear(2 * cfg.M, cfg.e)
        self.lrelu, self.snap, self.scale = nn.LeakyReLU(), Snap(), gaussian.LogScale()
        self.hidden, self.out = nn.Linear(cfg.e, cfg.e), nn.Linear(cfg.e, 2 * cfg.M)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, psi: Tensor, phi: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """Scales in the log, around the guess that comes with psi."""
        features, guess = psi.split([self.e, self.M], dim=-1)
        t = self.lrelu(features + self.context(phi))
        mu, log_sigma = self.out(self.lrelu(self.hidden(t))).to(guess.dtype).chunk(2, dim=-1)
        return self.snap(level.gs * mu), self.scale(log_sigma + guess)

    def exact(self) -> nn.Module:
        """The twin that gives indices of tables, with as few operations as it takes: it runs once a front."""
        return ExactEntropyParameters(self)


class ExactEntropyParameters(nn.Module):
    """`EntropyParameters` on the grid: the same layers, in place wherever they may be."""

    def __init__(self, twin: EntropyParameters) -> None:
        super().__init__()
        self.split, self.slope = [twin.e, twin.M], twin.lrelu.negative_slope
        self.scale = gaussian.ExactLogScale()
        self.context, self.hidden, self.out = (
            ExactLinear(t.weight, t.bias) for t in (twin.context, twin.hidden, twin.out)
        )

    def forward(self, psi: Tensor, phi: Tensor, level: Level) -> tuple[Tensor, Tensor]:
        """psi (1, 1, n, e + M), phi (1, 1, n, 2 M), which is overwritten -> mu, index (1, 1, n, M)."""
        features, guess = psi.split(self.split, dim=-1)
        t = F.linear(snap_(phi), self.context.weight, self.context.bias).add_(features)
        t = F.linear(snap_(F.leaky_relu_(t, self.slope)), self.hidden.weight, self.hidden.bias)
        t = F.linear(snap_(F.leaky_relu_(t, self.slope)), self.out.weight, self.out.bias)
        mu, log_sigma = t.chunk(2, dim=-1)
        return snap_(level.gs * mu), self.scale(log_sigma + guess)


class LightPrior(JointPrior):
    """The joint prior with gains; `condition` turns qualities (B,) into a `Level`."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.channels = cfg.M
        self.levels = Levels(cfg)
        self.h_a, self.z_prior, self.h_s = HyperAnalysis(cfg), NormalPrior(cfg.N), HyperSynthesis(cfg)
        self.context, self.entropy_parameters = DepthwiseContext(cfg.M), EntropyParameters(cfg)

    def condition(self, quality: Tensor | None) -> Level:
        """Qualities (B,) in 1..100 -> their gains."""
        assert quality is not None
        level: Level = self.levels(quality)
        return level

    def training_bits(self, v: Tensor, sigma: Tensor) -> Tensor:
        """Bits as files have them: scales learn from rounded latents."""
        return gaussian.rounded_bits(v, sigma)

    def handed_on(self, y_hat: Tensor, residual: Tensor, index: Tensor) -> Tensor:
        """y_hat, and what takes it to the mean of its bin: (B, h, w, 2 M)."""
        return torch.cat([y_hat, gaussian.pull(residual, index)], dim=-1)

    def seen(self, y_hat: Tensor, level: Level) -> Tensor:
        """Latents of unit size."""
        seen: Tensor = self.snap(y_hat * level.unit)
        return seen


class Full(nn.Linear):
    """A linear layer in float32, autocast or not: what passes beside all blocks, and with it the blocks' sums.

    In bfloat16 its weights are up to 0.4 % off, and all of one channel by the same: training makes up for it, and in
    float32 what it learned is an error. Flat bright places came out 1.7 of 255 too dark.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)"""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.weight.dtype))


class Analysis(nn.Module):
    """Pixels (B, H, W, 3) -> u (B, H/16, W/16, M), before gains."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.into, self.mid, self.out = Full(192, cfg.c1), Full(4 * cfg.c1, cfg.c2), Full(cfg.c2, cfg.M)
        self.fine = nn.ModuleList(Block(cfg.c1, cfg.levels) for _ in range(cfg.n1))
        self.coarse = nn.ModuleList(Block(cfg.c2, cfg.levels) for _ in range(cfg.n2))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """H and W divide by 16; w: (B, levels)."""
        t = self.into(space_to_depth(x, 8))
        for block in self.fine:
            t = block(t, w)
        t = self.mid(space_to_depth(t, 2))
        for block in self.coarse:
            t = block(t, w)
        out: Tensor = self.out(t)
        return out


class Synthesis(nn.Module):
    """u_hat (B, H/16, W/16, M) -> pixels (B, H, W, 3): the mirror image of the analysis."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.into, self.mid, self.out = Full(cfg.M, cfg.c2), Full(cfg.c2, 4 * cfg.c1), Full(cfg.c1, 192)
        self.coarse = nn.ModuleList(Block(cfg.c2, cfg.levels) for _ in range(cfg.n2))
        self.fine = nn.ModuleList(Block(cfg.c1, cfg.levels) for _ in range(cfg.n1))
        self.log_gain = nn.Parameter(torch.zeros(cfg.levels, cfg.M))  # a correction of the inverse gain, log

    def forward(self, y_hat: Tensor, level: Level) -> Tensor:
        """y_hat comes with its gain, which is taken off here."""
        t = self.into(y_hat / level.g * (level.w @ self.log_gain)[:, None, None].exp())
        for block in self.coarse:
            t = block(t, level.w)
        t = depth_to_space(self.mid(t), 2)
        for block in self.fine:
            t = block(t, level.w)
        return depth_to_space(self.out(t), 8)


class Light(Model):
    """The codec of this file: one network for the qualities 1 to 100.

    A picture of a single latent is shown to the transforms among eight of its like: of one with nothing around it but
    the border's zeros they know nothing, and its colours would come back ten levels wrong.
    """

    variable_rate = True

    def __init__(self, cfg: Config = PRESETS["default"].config) -> None:
        super().__init__()
        if cfg.c2 < cfg.M:
            raise ValueError(f"c2 = {cfg.c2} is less than M = {cfg.M}: the start would have empty channels")
        self.cfg = cfg
        self.reach = cfg.n1 + 2 * cfg.n2  # kernels of 5x5: a block at 1/8 sees a latent further, one at 1/16 two
        self.g_a, self.g_s, self.prior = Analysis(cfg), Synthesis(cfg), LightPrior(cfg)

    def analyse(self, x: Tensor, quality: Tensor | None) -> Tensor:
        """y = g g_a(x): (B, 3, H, W) -> (B, H/16, W/16, M)."""
        if alone := x.shape[2:] == (16, 16):
            x = x.repeat(1, 1, 3, 3)
        level = self.prior.condition(quality)
        y: Tensor = self.g_a(x.permute(0, 2, 3, 1), level.w) * level.g
        return y[:, 1:2, 1:2] if alone else y

    def synthesise(self, y_hat: Tensor, quality: Tensor | None) -> Tensor:
        """x_hat = g_s((y_hat + pull) / g): (B, H/16, W/16, 2 M), the pull behind y_hat -> (B, 3, H, W)."""
        if alone := y_hat.shape[1:3] == (1, 1):
            y_hat = y_hat.repeat(1, 3, 3, 1)
        y_hat, pull = y_hat.chunk(2, dim=-1)
        x_hat: Tensor = self.g_s(y_hat + pull, self.prior.condition(quality)).permute(0, 3, 1, 2)
        return x_hat[:, :, 16:32, 16:32] if alone else x_hat

    def lmbda_of(self, quality: Tensor) -> Tensor:
        """Quality -> lmbda, log-uniform from 0.0012 to 0.18."""
        return lmbda_between(quality, LMBDA_MIN, LMBDA_MAX)

    @torch.no_grad()
    def start_from(self, crops: Tensor) -> None:
        """Karhunen-Loeve transform and log-energy hyperprior. crops: (B, 3, H, W) in 0..1, some thousands of 64x64.

        Steps after high-rate theory: with gain g the rounding error of u has the variance 1 / (12 g^2), and
        dD/dR = 0 at lmbda * 255^2 * MSE + bits asks for g = sqrt(lmbda / 4e-4) over orthonormal coefficients.
        """
        cfg, a, s, p = self.cfg, self.g_a, self.g_s, self.prior
        v = space_to_depth(crops.permute(0, 2, 3, 1), 8)
        m, q = _principal_components(v.reshape(-1, 192), cfg.c1)
        _set(a.into, q.T, -(m @ q))
        _set(s.out, q, m)
        v = space_to_depth(a.into(v), 2)
        m, q = _principal_components(v.reshape(-1, 4 * cfg.c1), cfg.c2)
        _set(a.mid, q.T, -(m @ q))
        _set(s.mid, q, m)
        _set(a.out, torch.eye(cfg.M, cfg.c2), torch.zeros(cfg.M))
        _set(s.into, torch.eye(cfg.c2, cfg.M), torch.zeros(cfg.c2))
        u = a.out(a.mid(v))
        lmbda = self.lmbda_of(torch.linspace(QUALITY_MIN, QUALITY_MAX, cfg.levels))
        p.levels.log_gain.copy_((0.5 * (lmbda / 4e-4).log())[:, None].expand(-1, cfg.M))
        p.levels.z_log_gain.copy_((0.25 * (lmbda / lmbda[cfg.levels // 2]).log())[:, None].expand(-1, cfg.N))
        p.levels.log_scale.copy_(u.reshape(-1, cfg.M).std(0).log())
        # Hyper-latents: principal components of the log energies of 4x4 latents, weighted by how often a channel is
        # coded at all at a middle quality; back to the log energies by ridge regression.
        level = p.condition(torch.linspace(QUALITY_MIN, QUALITY_MAX, cfg.levels)[cfg.levels // 2 : cfg.levels // 2 + 1])
        energy = p.h_a.log_energy(u * level.g, level).reshape(-1, cfg.M)
        weight = (level.gs**2 / (1 + level.gs**2)).flatten()
        m, q = _principal_components(energy * weight, cfg.N)
        _set(p.h_a.linear, (weight[:, None] * q).T, -(m @ q))
        z = F.linear(energy, p.h_a.linear.weight, p.h_a.linear.bias)
        A = torch.cat([z, torch.ones(len(z), 1)], dim=1).double()
        back = torch.linalg.solve(A.T @ A + 1e-3 * torch.eye(cfg.N + 1), A.T @ energy.double()).float()
        # E log|v| of a normal v lies below log(sigma) by a constant: 0.23 for the mean magnitude, log(sqrt(pi / 2))
        _set(p.h_s.linear, back[:-1].T, back[-1] + 0.5 * math.log(math.pi / 2))
        p.z_prior.log_std.copy_(z.std(0).log())
        p.z_prior.mean.zero_()


def _principal_components(v: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Rows (S, D) -> their mean (D,) and the n leading eigenvectors of their covariance (D, n)."""
    m = v.mean(0)
    _, q = torch.linalg.eigh(((v - m).T @ (v - m) / len(v)).double())
    return m, q.flip(1)[:, :n].float()


def _set(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
