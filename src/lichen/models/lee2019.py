"""The context-adaptive entropy model.

    Lee, Cho, Beack: Context-adaptive entropy model for end-to-end optimized image compression. ICLR 2019

    x --> g_a --> y --+--> round --> h_a --> z --> z_hat --> h_s --> c' ---------------------------+
                      |                                                                            +--> f --> mu, sigma
                      +--> y_hat (the 14 positions before, in rows i-3..i, columns j-2..j+1) c'' --+
                      |
                      +--> y_hat = mu + round(y - mu) --> g_s --> x_hat

    p(y) = N(mu, sigma) * U(-1/2, 1/2),  p(z) = N(0, sigma_z) * U(-1/2, 1/2) with one sigma_z a channel

For each position (i, j), f sees two windows of 4x4: c'' holds decoded latents, zeros in place of the two that are not
there yet, and costs nothing ("bit-free"); c' is cut out of h_s(z_hat) and paid for with z ("bit-consuming"). The base
model codes all of y so. The hybrid model splits y: y_1 (M1 channels) is coded so, y_2 (M2 channels) ~ N(0, sigma_2),
with sigma_2 straight from h_s.

    preset           N    M1   M2     used by the paper at lambda
    base, published  128  192   0     0.5, 0.4, 0.3, 0.2, 0.12 (MSE), 0.5, 0.4, 0.3, 0.2, 0.1 (MS-SSIM)
    hybrid, 192      192  192  192    0.06 (MSE), 0.05, 0.03 (MS-SSIM)
    hybrid, 228      192  192  228    0.03 (MSE)
    hybrid, 408      192  192  408    0.017, 0.01 (both)

Nothing is padded to multiples of 64: before each convolution of stride 2 of the transforms at most one row and one
column is added (of the picture its edge, then zeros), and as much is cut off after each upsampling, so that a picture
of (H, W) has (H/16, W/16) latents, rounded up. For h_a these are filled up to multiples of 4 with their edges, as in
the public code.

What is ours. The paper codes round(y) and puts mu into the distribution; here y - mu is rounded, as everywhere in this
library, and deviations are 0.11 at least, likelihoods 1e-9 (`priors/gaussian.py`). The networks are not in the public
code (JooyoungLeeETRI/CA_Entropy_Model), which tells M1, M2, the windows, the masks, exp for sigma, the prior of z and
the padding: N, the 5x5 convolutions with GDN of the transforms, h_a, h_s (after Balle et al. 2018, whose work the paper
builds on) and f (three 3x3 convolutions, the second with stride 2, and a fully connected layer) are after the paper as
we know it.

The paper's lambda multiplies the rate, so that a larger one gives smaller files. Its published means over Kodak have
the slope -d MSE / d bpp = 600 to 750 lambda / (1 - lambda) over pixels of 0..255 (at the two largest lambda up to 950):
what minimises lambda bpp + (1 - lambda) 100 MSE over pixels of 0..1 would have 650. The presets' lmbda, in this
library's lmbda * 255^2 * MSE + bpp, are (1 - lambda) / (650 lambda) by that inference. Optimizer and data, not in the
public code either: Adam with a rate of 5e-5, batches of 8 crops of 256x256 of YFCC100m, some 7 million steps.

Published means over Kodak, MSE: 0.1005 bpp, 27.64 dB; 0.2982, 31.28; 0.6900, 35.17; 1.5926, 40.38.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.layers.bounds import straight_through
from lichen.layers.convolutions import conv, deconv
from lichen.layers.gain import Gain, lmbda_between
from lichen.layers.gdn import GDN
from lichen.models.base import PAPERS, Model, Preset
from lichen.priors import gaussian
from lichen.priors.joint import JointPrior
from lichen.priors.window import ABOVE4, WindowConv, WindowHead
from lichen.priors.zero_mean import ZeroMeanNormal

WINDOW = ABOVE4


@dataclass(frozen=True)
class Config:
    """Widths. ValueError for widths below 1, of y_2 below 0."""

    N: int = 128  # channels of the transforms and of the hyper-latents
    M1: int = 192  # channels of the latents y_1, which have a context; also of c' and of f
    M2: int = 0  # channels of the latents y_2, which have none; 0 for the base model
    levels: int = 0  # qualities between which gains are interpolated; 0 for a network of one quality, as published
    lmbda_min: float = 0.0035  # of the first and the last level
    lmbda_max: float = 0.0483

    def __post_init__(self) -> None:
        if min(self.N, self.M1) < 1 or self.M2 < 0:
            raise ValueError(f"N = {self.N}, M1 = {self.M1}, M2 = {self.M2}: widths have to be positive")


def _published(cfg: Config, *lambdas: float) -> Preset:
    widths = f"N = {cfg.N}, M = {cfg.M1}" + (f" + {cfg.M2}" if cfg.M2 else "")
    lmbda = tuple(round((1 - v) / (650 * v), 5) for v in lambdas)
    recipe = {**PAPERS, "lmbda": lmbda, "batch": 8, "crop": 256, "lr": 5e-5, "steps": 7_000_000}
    return Preset(cfg, f"as published for lambda = {', '.join(map(str, lambdas))}: {widths}", recipe)


PRESETS: dict[str, dict[str, Preset]] = {
    "lee2019-base": {
        "published": _published(Config(128, 192), 0.5, 0.4, 0.3, 0.2, 0.12),
        "small": Preset(Config(48, 64, levels=4), "trains on two cores: N = 48, M = 64, four levels of quality"),
    },
    "lee2019-hybrid": {
        "192": _published(Config(192, 192, 192), 0.06),
        "228": _published(Config(192, 192, 228), 0.03),
        "408": _published(Config(192, 192, 408), 0.017, 0.01),
        "small": Preset(
            Config(48, 48, 48, levels=4), "trains on two cores: N = 48, M = 48 + 48, four levels of quality"
        ),
    },
}
"""Model name -> preset name -> hyper-parameters."""


def analysis(N: int, M: int) -> nn.Sequential:
    """g_a: pixels (B, 3, H, W) -> y (B, M, H/16, W/16), rounded up."""
    return nn.Sequential(conv(3, N), GDN(N), conv(N, N), GDN(N), conv(N, N), GDN(N), conv(N, M))


class Synthesis(nn.Module):
    """g_s: y_hat (B, M, H/16, W/16), rounded up -> pixels (B, 3, H, W)."""

    def __init__(self, N: int, M: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(deconv(M, N), GDN(N, inverse=True)),
                nn.Sequential(deconv(N, N), GDN(N, inverse=True)),
                nn.Sequential(deconv(N, N), GDN(N, inverse=True)),
                deconv(N, 3),
            ]
        )

    def forward(self, y_hat: Tensor, size: tuple[int, int]) -> Tensor:
        """size: (H, W)."""
        H, W = size
        t = y_hat
        for scale, stage in zip((8, 4, 2, 1), self.stages, strict=True):
            t = stage(t)[..., : -(-H // scale), : -(-W // scale)]
        return t


class HyperAnalysis(nn.Module):
    """h_a, which looks at the latents rounded."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        N = cfg.N
        self.net = nn.Sequential(conv(cfg.M1 + cfg.M2, N, 3, 1), nn.ReLU(), conv(N, N), nn.ReLU(), conv(N, N))

    def forward(self, y: Tensor, level: Any = None) -> Tensor:
        """y (B, h, w, M1 + M2) -> z (B, h/4, w/4, N), rounded up."""
        rounded = straight_through(torch.round(y), y)
        return self.net(rounded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).to(y.dtype)


class HyperSynthesis(nn.Module):
    """h_s, and the share of f's first convolution that c' takes."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        N, self.M1 = cfg.N, cfg.M1
        self.net = nn.Sequential(deconv(N, N), nn.ReLU(), deconv(N, N), nn.ReLU(), conv(N, cfg.M1 + cfg.M2, 3, 1))
        self.window = WindowConv(cfg.M1, cfg.M1, WINDOW)

    def forward(self, z_hat: Tensor, level: Any = None) -> Tensor:
        """z_hat (B, h, w, N) -> psi (B, 4 h, 4 w, 16 M1 + M2): of the windows of c', and sigma_2."""
        t = self.net(z_hat.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).to(z_hat.dtype)
        return torch.cat([self.window(t[..., : self.M1]), t[..., self.M1 :]], dim=-1)


class Estimator(nn.Module):
    """The rest of f for y_1, and sigma_2 as it comes for y_2."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.widths = [WINDOW.side**2 * cfg.M1, cfg.M2]
        self.head = WindowHead(cfg.M1, 2 * cfg.M1, WINDOW)
        self.exp, self.scale = gaussian.LogScale(), gaussian.LinearScale()

    def forward(self, psi: Tensor, phi: Tensor, level: Any = None) -> tuple[Tensor, Tensor]:
        """psi (B, h, w, 16 M1 + M2), phi (B, h, w, 16 M1) -> mu, sigma (B, h, w, M1 + M2)."""
        of_c, sigma_2 = psi.split(self.widths, dim=-1)
        mu, log_sigma = self.head(of_c + phi).to(psi.dtype).chunk(2, dim=-1)
        sigma = torch.cat([self.exp(log_sigma), self.scale(sigma_2)], dim=-1)
        return torch.cat([mu, torch.zeros_like(sigma_2)], dim=-1), sigma


class LeePrior(JointPrior):
    """y_1 given c' and c'', y_2 given sigma_2."""

    def __init__(self, cfg: Config, gain: Gain | None) -> None:
        super().__init__()
        self.channels, self.M1, self.gain = cfg.M1 + cfg.M2, cfg.M1, gain
        self.h_a, self.z_prior, self.h_s = HyperAnalysis(cfg), ZeroMeanNormal(cfg.N), HyperSynthesis(cfg)
        self.context = WindowConv(cfg.M1, cfg.M1, WINDOW, causal=True, bias=False)  # f's first convolution over c''
        self.entropy_parameters = Estimator(cfg)

    def condition(self, quality: Tensor | None) -> Any:
        """Qualities (B,) -> gain and inverse gain (B, 1, 1, M1 + M2); None for a network of one quality."""
        return None if self.gain is None else self.gain(quality)

    def seen(self, y_hat: Tensor, level: Any) -> Tensor:
        """y_1 alone, (B, h, w, M1)."""
        return super().seen(y_hat[..., : self.M1], level)


class Lee2019(Model):
    """The base model (M2 = 0) or the hybrid one."""

    any_size = True

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg, self.variable_rate = cfg, cfg.levels > 0
        M = cfg.M1 + cfg.M2
        self.g_a, self.g_s = analysis(cfg.N, M), Synthesis(cfg.N, M)
        self.prior = LeePrior(cfg, Gain(M, cfg.levels, cfg.lmbda_min, cfg.lmbda_max) if cfg.levels else None)

    def analyse(self, x: Tensor, quality: Tensor | None = None) -> Tensor:
        """y = g_a(x): (B, 3, H, W) of any size -> (B, H/16, W/16, M1 + M2), rounded up."""
        even = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2), mode="replicate")
        y: Tensor = self.g_a(even).permute(0, 2, 3, 1).to(x.dtype)
        return y * self.prior.condition(quality)[0] if self.variable_rate else y

    def synthesise(self, y_hat: Tensor, quality: Tensor | None = None) -> Tensor:
        """x_hat = g_s(y_hat) for the largest picture of so many latents: (B, h, w, M1 + M2) -> (B, 3, 16 h, 16 w)."""
        return self.synthesise_to(y_hat, quality, (16 * y_hat.shape[1], 16 * y_hat.shape[2]))

    def synthesise_to(self, y_hat: Tensor, quality: Tensor | None, size: tuple[int, int]) -> Tensor:
        """x_hat = g_s(y_hat): (B, H/16, W/16, M1 + M2), rounded up -> (B, 3, H, W)."""
        u = y_hat * self.prior.condition(quality)[1] if self.variable_rate else y_hat
        x_hat: Tensor = self.g_s(u.permute(0, 3, 1, 2), size)
        return x_hat.to(y_hat.dtype)

    def lmbda_of(self, quality: Tensor) -> Tensor:
        """Quality -> lmbda, even in the logarithm."""
        return lmbda_between(quality, self.cfg.lmbda_min, self.cfg.lmbda_max)
