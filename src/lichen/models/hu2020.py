"""The coarse-to-fine hyperprior: two levels of hyper-latents, no context, and a picture made of all of them.

    Hu, Yang, Liu: Coarse-to-fine hyper-prior modeling for learned image compression. AAAI 2020
    Hu, Yang, Ma, Liu: Learning end-to-end lossy image compression: a benchmark. TPAMI 2021

    x --> g_a --> y --round--> h_a2 --> z2 --round--> h_a1 --> z1 --round--> z1_hat
                                                                               |
    p(z1) = N(0, sigma a channel)                                psi1 <------ h_s1
    p(z2) = N(mu, sigma) of each 5x5 window of psi1 (predict2)     |
    p(y)  = N(mu, sigma) of each 5x5 window of psi2 (predict)      |      z2_hat --> h_s2 --> psi2
                                                                   |                           |
    y_hat --> g_s: three up-samplings --> u (N, H/2, W/2) --(+)<-- aggregation --+-------------+
                                                             |
                                                             +--> residual block --> up-sampling --> x_hat

Layers after the authors' public code (huzi96/Coarse2Fine-PyTorch), where y is called z3. Not stated there, after the
paper as we know it: which multipliers it was trained for, the one in the code apart.

The hyper transforms keep the signal: in place of large kernels with a stride, each followed by a ReLU, a 3x3 layer of 2
E channels (twice the signal's as published for y, as many or fewer for z2), space to depth, and pointwise layers, with
no ReLU before the first of these (`hyper="plain"` undoes that, with layers in the manner of Balle et al. 2018 and about
as many parameters). In `small`, y has three times E channels: there the 3x3 layer narrows it. The picture is made of
y_hat and of the features psi1 and psi2 (`reconstruction="plain"`: of y_hat alone, by a last up-sampling right behind
g_s).

Where this file departs from the paper: y_hat is mu + round(y - mu), and the same for z2 (`priors/coarse_to_fine.py`).
Latents of an odd size are filled up with zeros before a hyper analysis, in place of pictures to multiples of 64.
Deviations are 0.11 at least and likelihoods 1e-9 (`priors/gaussian.py`). All convolutions and pointwise layers begin as
Glorot and Bengio's; in the authors' code the hyper syntheses are transposed convolutions of 1x1, which that leaves out,
and begin about half as large a layer. With `levels`, gain vectors scale y (Cui et al. 2021, `layers/gain.py`), and a
factor a level and channel the features that the reconstruction sees. Nothing tells the hyper transforms the level: it
shows in the size of y.

Training goes through four stages (`Hu2020.staged`), with parts that only they need (`Helping`, and the plain
reconstruction's last layer where there is an aggregation). The paper's distortion is over pixels in -1..1 times 255^2,
four times this library's: its multiplier 0.004 is lmbda = 0.016.

Transforms are (B, C, H, W), hyper transforms and priors (B, h, w, C). Pixels are 0..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lichen.layers.gain import Gain, level_weights, lmbda_between
from lichen.layers.gdn import GDN
from lichen.layers.resampling import depth_to_space, space_to_depth
from lichen.models.base import PAPERS, Model, Preset
from lichen.priors.coarse_to_fine import CoarseToFinePrior, MeanAndScale, joined
from lichen.priors.window import AROUND5, WindowConv, WindowPredictor
from lichen.priors.zero_mean import ZeroMeanNormal

Hyper = Literal["signal-preserving", "plain"]
Reconstruction = Literal["aggregation", "plain"]

SLOPE = 0.2  # of leaky ReLUs
EPOCHS = 5500
STAGES = tuple(epoch / EPOCHS for epoch in (1001, 1201, 1301))
"""Shares of the training after which the second, third and fourth stage begin."""


@dataclass(frozen=True)
class Config:
    """Widths, and the two parts that ablations replace. ValueError for unknown ones or impossible widths."""

    N: int = 192  # channels of the transforms and of the aggregation
    M: int = 192  # channels of y; N as published
    E: int = 192  # channels of psi2; the fine hyper transforms are 4 E wide; N as published
    C2: int = 256  # channels of z2 and of psi1
    K: int = 256  # width of the coarse hyper transforms
    C1: int = 128  # channels of z1
    hyper: Hyper = "signal-preserving"
    reconstruction: Reconstruction = "aggregation"
    levels: int = 0  # qualities between which gains are interpolated; 0 for a network of one quality, as published
    lmbda_min: float = 0.0035  # of the first and the last level
    lmbda_max: float = 0.0483

    def __post_init__(self) -> None:
        if self.hyper not in get_args(Hyper):
            raise ValueError(f"no hyper transforms are called {self.hyper}: there are {', '.join(get_args(Hyper))}")
        if self.reconstruction not in get_args(Reconstruction):
            known = ", ".join(get_args(Reconstruction))
            raise ValueError(f"no reconstruction is called {self.reconstruction}: there are {known}")
        if min(self.N, self.M, self.E, self.C2, self.K, self.C1) < 1:
            raise ValueError("widths have to be positive")
        if self.C2 % 4 or self.K % 4:
            raise ValueError(f"C2 = {self.C2}, K = {self.K}: depth to space asks for multiples of 4")


def _small(summary: str, hyper: Hyper = "signal-preserving", reconstruction: Reconstruction = "aggregation") -> Preset:
    return Preset(Config(40, 96, 32, 32, 32, 16, hyper, reconstruction, levels=4), summary)


_RECIPE = {**PAPERS, "batch": 16, "crop": 256, "lr": 1e-4, "steps": 550_000, "clip": 10.0}

PRESETS = {
    "low": Preset(Config(), "as published for low rates: N = 192", {**_RECIPE, "lmbda": ()}),
    "high": Preset(
        Config(384, 384, 384, K=512), "as published for high rates: N = 384", {**_RECIPE, "lmbda": (0.016,)}
    ),
    "small": _small("trains on two cores: N = 40, M = 96, four levels of quality"),
    "small-plain": _small("as small, with plain hyper transforms", hyper="plain"),
    "small-no-aggregation": _small("as small, the picture from y alone", reconstruction="plain"),
}


def conv(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H/2, W/2), kernel 5x5, for even H and W.

    Zeros: one row above and one column to the left, two below and to the right, TensorFlow's "same".
    """
    return nn.Sequential(nn.ZeroPad2d((1, 2, 1, 2)), nn.Conv2d(inputs, outputs, 5, 2))


def deconv(inputs: int, outputs: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, 2 H, 2 W), kernel 5x5: the transpose of `conv`."""
    return nn.Sequential(
        nn.ZeroPad2d((1, 0, 1, 0)), nn.ConvTranspose2d(inputs, outputs, 5, 2, padding=3, output_padding=1)
    )


def analysis(N: int, M: int) -> nn.Sequential:
    """g_a: pixels (B, 3, H, W) -> y (B, M, H/16, W/16)."""
    return nn.Sequential(conv(3, N), GDN(N), conv(N, N), GDN(N), conv(N, N), GDN(N), conv(N, M))


def synthesis(N: int, M: int) -> nn.Sequential:
    """g_s: y_hat (B, M, H/16, W/16) -> u (B, N, H/2, W/2)."""
    return nn.Sequential(
        deconv(M, N), GDN(N, inverse=True), deconv(N, N), GDN(N, inverse=True), deconv(N, N), GDN(N, inverse=True)
    )


class ChannelsLast(nn.Module):
    """A network of (B, C, H, W) between tensors (B, H, W, C)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.net = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Sizes as the layers change them."""
        y: Tensor = self.net(x.permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1).to(x.dtype)


def conv3(inputs: int, outputs: int) -> ChannelsLast:
    """3x3 convolution of (B, H, W, inputs)."""
    return ChannelsLast(nn.Conv2d(inputs, outputs, 3, padding=1))


class SpaceToDepth(nn.Module):
    """(B, H, W, C) -> (B, H/2, W/2, 4 C)"""

    def forward(self, x: Tensor) -> Tensor:
        """H and W even."""
        return space_to_depth(x, 2)


class DepthToSpace(nn.Module):
    """(B, H, W, 4 C) -> (B, 2 H, 2 W, C)"""

    def forward(self, x: Tensor) -> Tensor:
        """Any size."""
        return depth_to_space(x, 2)


def preserving_analysis(inputs: int, expanded: int, hidden: int, outputs: int) -> nn.Sequential:
    """(B, h, w, inputs) -> (B, h/2, w/2, outputs). No nonlinearity before there are 4 `expanded` channels."""
    return nn.Sequential(
        conv3(inputs, expanded), SpaceToDepth(), nn.Linear(4 * expanded, hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs),
    )  # fmt: skip


def preserving_synthesis(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """(B, h, w, inputs) -> (B, 2 h, 2 w, outputs)."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        DepthToSpace(), conv3(hidden // 4, outputs),
    )  # fmt: skip


def plain_analysis(inputs: int, expanded: int, hidden: int, outputs: int) -> ChannelsLast:
    """(B, h, w, inputs) -> (B, h/2, w/2, outputs): a 5x5 kernel with a stride between 3x3 kernels, ReLU after each."""
    return ChannelsLast(
        nn.Conv2d(inputs, expanded, 3, padding=1), nn.ReLU(),
        nn.Conv2d(expanded, hidden, 5, 2, padding=2), nn.ReLU(),
        nn.Conv2d(hidden, outputs, 3, padding=1),
    )  # fmt: skip


def plain_synthesis(inputs: int, hidden: int, outputs: int) -> ChannelsLast:
    """(B, h, w, inputs) -> (B, 2 h, 2 w, outputs)."""
    return ChannelsLast(
        nn.ConvTranspose2d(inputs, hidden, 5, 2, padding=2, output_padding=1), nn.ReLU(),
        nn.Conv2d(hidden, hidden, 3, padding=1), nn.ReLU(),
        nn.Conv2d(hidden, outputs, 3, padding=1),
    )  # fmt: skip


def predictor(features: int, channels: int) -> MeanAndScale:
    """(B, h, w, features) -> mu, sigma (B, h, w, channels), each position's from its own 5x5 window alone."""
    return MeanAndScale(WindowPredictor(features, features, 2 * channels, AROUND5), reach=2)


class Prior(CoarseToFinePrior):
    """The hyper transforms and the conditional models."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        M, E, C2, K, C1 = cfg.M, cfg.E, cfg.C2, cfg.K, cfg.C1
        if cfg.hyper == "plain":
            self.h_a2, self.h_s2 = plain_analysis(M, 2 * E, E, C2), plain_synthesis(C2, E, E)
            self.h_a1, self.h_s1 = plain_analysis(C2, K, K // 2, C1), plain_synthesis(C1, K // 2, C2)
        else:
            self.h_a2, self.h_s2 = preserving_analysis(M, 2 * E, 4 * E, C2), preserving_synthesis(C2, 4 * E, E)
            self.h_a1, self.h_s1 = preserving_analysis(C2, K, K // 2, C1), preserving_synthesis(C1, K, C2)
        self.z1_prior = ZeroMeanNormal(C1, "z1")
        self.predict2, self.predict = predictor(C2, C2), predictor(E, M)
        self.gain = Gain(M, cfg.levels, cfg.lmbda_min, cfg.lmbda_max) if cfg.levels else None

    def condition(self, quality: Tensor | None) -> Any:
        """Qualities (B,) -> gain and inverse gain (B, 1, 1, M); None for a network of one quality."""
        return None if self.gain is None else self.gain(quality)


class Aggregation(nn.Module):
    """u (B, N, H/2, W/2) of y_hat, and features of the hyper-latents (B, C, H/16, W/16) -> pixels (B, 3, H, W)."""

    def __init__(self, N: int, features: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            deconv(features, N), deconv(N, N), nn.LeakyReLU(SLOPE), deconv(N, N), nn.LeakyReLU(SLOPE)
        )
        self.residual = nn.Sequential(
            nn.Conv2d(2 * N, N, 3, padding=1), nn.LeakyReLU(SLOPE),
            nn.Conv2d(N, N, 3, padding=1), nn.LeakyReLU(SLOPE),
            nn.Conv2d(N, 2 * N, 3, padding=1), nn.LeakyReLU(SLOPE),
        )  # fmt: skip
        a, b = -(-N // 3), -(-N // 12)
        self.out = nn.Sequential(
            deconv(2 * N, a), nn.Conv2d(a, b, 3, padding=1), nn.LeakyReLU(SLOPE), nn.Conv2d(b, 3, 1)
        )

    def forward(self, u: Tensor, features: Tensor) -> Tensor:
        """Any size."""
        t = torch.cat([u, self.up(features)], dim=1)
        x_hat: Tensor = self.out(t + self.residual(t))
        return x_hat


class Helping(nn.Module):
    """What the first stages need beside the codec: heads that guess latents from features, a density for z2 alone."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.to_y, self.to_z2 = conv3(cfg.E, cfg.M), conv3(cfg.C2, cfg.C2)
        self.z2_prior = ZeroMeanNormal(cfg.C2, "z2")


class Hu2020(Model):
    """The codec of this file. What `code` returns and `synthesise` takes is y_hat with psi2 and psi1 beside it."""

    reach = 3

    def __init__(self, cfg: Config = PRESETS["low"].config) -> None:
        super().__init__()
        self.cfg, self.variable_rate = cfg, cfg.levels > 0
        self.g_a, self.g_s, self.prior = analysis(cfg.N, cfg.M), synthesis(cfg.N, cfg.M), Prior(cfg)
        self.plain_out = deconv(cfg.N, 3)
        self.helping = Helping(cfg)
        self.aggregation, self.log_factor, self.training_only = None, None, ("helping.",)
        if cfg.reconstruction == "aggregation":
            features = cfg.E + cfg.C2 // 4
            self.aggregation = Aggregation(cfg.N, features)
            self.training_only += ("plain_out.",)
            if cfg.levels:
                self.log_factor = nn.Parameter(self.prior.gain.log_inverse[:, :1].detach().repeat(1, features))
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear | WindowConv):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def analyse(self, x: Tensor, quality: Tensor | None = None) -> Tensor:
        """y = g_a(x): (B, 3, H, W) -> (B, H/16, W/16, M)."""
        y: Tensor = self.g_a(2 * x - 1).permute(0, 2, 3, 1).to(x.dtype)
        return y * self.prior.condition(quality)[0] if self.variable_rate else y

    def synthesise(self, y_hat: Tensor, quality: Tensor | None = None) -> Tensor:
        """y_hat, psi2, psi1 (B, H/16, W/16, M + E + C2/4) -> x_hat (B, 3, H, W)."""
        return self._picture(y_hat, quality, aggregate=self.aggregation is not None)

    def _picture(self, joint: Tensor, quality: Tensor | None, aggregate: bool) -> Tensor:
        y_hat, features = joint[..., : self.cfg.M], joint[..., self.cfg.M :]
        if self.variable_rate:
            y_hat = y_hat * self.prior.condition(quality)[1]
        u = self.g_s(y_hat.permute(0, 3, 1, 2))
        if not aggregate:
            return (self.plain_out(u).to(joint.dtype) + 1) / 2
        if self.log_factor is not None:
            assert quality is not None
            w = level_weights(quality.to(self.log_factor.dtype), self.cfg.levels)
            features = features * (w @ self.log_factor).exp()[:, None, None]
        assert self.aggregation is not None
        return (self.aggregation(u, features.permute(0, 3, 1, 2)).to(joint.dtype) + 1) / 2

    def lmbda_of(self, quality: Tensor) -> Tensor:
        """Quality -> lmbda, even in the logarithm."""
        return lmbda_between(quality, self.cfg.lmbda_min, self.cfg.lmbda_max)

    def staged(self, x: Tensor, quality: Tensor | None, done: float) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """x_hat, bits and the helping terms (B,), by the stages of the authors' training.

            stage 1    z2 by a zero-mean density of its own, no z1; the picture from y_hat alone; + |y - guess(psi2)|^2
            stage 2    all latents; + |z2 - guess(psi1)|^2
            stage 3    the picture from the aggregation
            stage 4    without the two helping terms

        They begin at shares 0, 1001/5500, 1201/5500 and 1301/5500 of the training. The authors begin stages 2 and 3
        with a new optimizer, and halve the rate four times late in the last; the trainer goes on with one Adam, at the
        rate of its schedule.
        """
        stage = 1 + sum(done >= share for share in STAGES)
        y = self.analyse(x, quality)
        found = self.prior.relaxed(y, self.helping.z2_prior if stage == 1 else None)
        helping = torch.zeros(len(x), device=x.device)
        if stage < 4:
            helping = guess_error(self.helping.to_y(found.psi2), y)
            if found.psi1 is not None:
                helping = helping + guess_error(self.helping.to_z2(found.psi1), found.z2)
        if stage < 3 or self.aggregation is None:
            x_hat = self._picture(found.y_hat, quality, aggregate=False)
        else:
            x_hat = self._picture(joined(found.y_hat, found.psi2, found.psi1), quality, aggregate=True)
        return x_hat, found.bits, helping


def guess_error(guess: Tensor, latents: Tensor) -> Tensor:
    """Mean squared error (B,) of a guess of latents (B, h, w, C), which are not moved by it."""
    return ((guess - latents.detach()) ** 2).flatten(1).mean(1)
