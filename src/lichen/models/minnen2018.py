"""Joint autoregressive and hierarchical priors, and the four simpler priors that the paper compares them with.

    Minnen, Balle, Toderici: Joint autoregressive and hierarchical priors for learned image compression. NeurIPS 2018
    Balle, Minnen, Singh, Hwang, Johnston: Variational image compression with a scale hyperprior. ICLR 2018

    x --> g_a --> y --+--> h_a --> z --> z_hat --> h_s --> psi --------+
                      |                                                +--> entropy parameters --> mu, sigma
                      +--> y_hat (positions before) --> g_cm --> phi --+
                      |
                      +--> y_hat = mu + round(y - mu) --> g_s --> x_hat

    p(y) = N(mu, sigma) * U(-1/2, 1/2),  p(z) = deep factorized density * U(-1/2, 1/2)

    prior           h_a, h_s    g_cm    mu, sigma
    factorized                          none: p(y) is the deep factorized density itself (ICLR 2018)
    scale           ReLU, |y|           0, psi (ICLR 2018)
    mean-scale      leaky               psi
    context                     x       entropy parameters of phi
    joint           leaky       x       entropy parameters of psi and phi

Layers after the paper's table 1; where it leaves something open, after CompressAI, whose weights fit (see
`models/compressai.py`). Transforms and hyper transforms are (B, C, H, W), priors (B, h, w, C). Pixels are 0..1.

Trained by CompressAI for lmbda * 255^2 * MSE + bpp with lmbda = 0.0018, 0.0035, 0.0067, 0.013 (preset "low"), 0.025
("low" of factorized and scale, else "high"), 0.0483, 0.0932, 0.18 (preset "high"): Adam with a rate of 1e-4, batches of
16 or 32 crops of 256x256, 4 to 5 million steps.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lichen.layers.convolutions import conv, deconv
from lichen.layers.gain import Gain
from lichen.layers.gdn import GDN
from lichen.models.base import PAPERS, PlainModel, Preset
from lichen.priors import gaussian
from lichen.priors.deep_factorized import DeepFactorized, FactorizedPrior
from lichen.priors.joint import JointPrior
from lichen.priors.masked_context import FullContext

Prior = Literal["factorized", "scale", "mean-scale", "context", "joint"]


@dataclass(frozen=True)
class Config:
    """Which prior, and widths. ValueError for an unknown prior or widths below 1."""

    prior: Prior = "joint"
    N: int = 192  # channels of the transforms and of the hyper-latents
    M: int = 192  # channels of the latents
    levels: int = 0  # qualities between which gains are interpolated; 0 for a network of one quality, as published
    lmbda_min: float = 0.0035  # of the first and the last level
    lmbda_max: float = 0.0483

    def __post_init__(self) -> None:
        if self.prior not in get_args(Prior):
            raise ValueError(f"no prior is called {self.prior}: there are {', '.join(get_args(Prior))}")
        if min(self.N, self.M) < 1:
            raise ValueError(f"N = {self.N}, M = {self.M}: widths have to be positive")


LMBDAS = (0.0018, 0.0035, 0.0067, 0.013, 0.025, 0.0483, 0.0932, 0.18)


def _presets(prior: Prior, low: int) -> dict[str, Preset]:
    recipe = {**PAPERS, "batch": 16, "crop": 256, "lr": 1e-4, "steps": 5_000_000}
    split = 5 if low == 128 and prior != "mean-scale" else 4
    return {
        "low": Preset(Config(prior, low, 192), f"as published for low rates: N = {low}, M = 192",
                      {**recipe, "lmbda": LMBDAS[:split]}),
        "high": Preset(Config(prior, 192, 320), "as published for high rates: N = 192, M = 320",
                       {**recipe, "lmbda": LMBDAS[split:]}),
        "small": Preset(Config(prior, 40, 64, levels=4), "trains on two cores: N = 40, M = 64, four levels of quality"),
    }  # fmt: skip


PRESETS: dict[str, dict[str, Preset]] = {
    "minnen2018-factorized": _presets("factorized", 128),
    "minnen2018-scale": _presets("scale", 128),
    "minnen2018-mean-scale": _presets("mean-scale", 128),
    "minnen2018-context": _presets("context", 192),
    "minnen2018-joint": _presets("joint", 192),
}
"""Model name -> preset name -> hyper-parameters."""


def analysis(N: int, M: int) -> nn.Sequential:
    """g_a: pixels (B, 3, H, W) -> y (B, M, H/16, W/16)."""
    return nn.Sequential(conv(3, N), GDN(N), conv(N, N), GDN(N), conv(N, N), GDN(N), conv(N, M))


def synthesis(N: int, M: int) -> nn.Sequential:
    """g_s: y_hat (B, M, H/16, W/16) -> pixels (B, 3, H, W)."""
    return nn.Sequential(
        deconv(M, N), GDN(N, inverse=True), deconv(N, N), GDN(N, inverse=True), deconv(N, N), GDN(N, inverse=True),
        deconv(N, 3),
    )  # fmt: skip


class HyperAnalysis(nn.Module):
    """h_a; the scale hyperprior's looks at magnitudes alone."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        N, M, self.magnitudes = cfg.N, cfg.M, cfg.prior == "scale"
        act = nn.ReLU if self.magnitudes else nn.LeakyReLU
        self.net = nn.Sequential(conv(M, N, 3, 1), act(), conv(N, N), act(), conv(N, N))

    def forward(self, y: Tensor, level: Any = None) -> Tensor:
        """y (B, h, w, M) -> z (B, h/4, w/4, N), rounded up."""
        z: Tensor = self.net((y.abs() if self.magnitudes else y).permute(0, 3, 1, 2))
        return z.permute(0, 2, 3, 1).to(y.dtype)


class HyperSynthesis(nn.Module):
    """h_s; the scale hyperprior's ends in scales."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        N, M = cfg.N, cfg.M
        if cfg.prior == "scale":
            self.net = nn.Sequential(deconv(N, N), nn.ReLU(), deconv(N, N), nn.ReLU(), conv(N, M, 3, 1), nn.ReLU())
        else:
            H = M * 3 // 2
            self.net = nn.Sequential(
                deconv(N, M), nn.LeakyReLU(), deconv(M, H), nn.LeakyReLU(), conv(H, 2 * M, 3, 1)
            )  # fmt: skip

    def forward(self, z_hat: Tensor, level: Any = None) -> Tensor:
        """z_hat (B, h, w, N) -> psi (B, 4 h, 4 w, 2 M), of the scale hyperprior (B, 4 h, 4 w, M)."""
        psi: Tensor = self.net(z_hat.permute(0, 3, 1, 2))
        return psi.permute(0, 2, 3, 1).to(z_hat.dtype)


class ScaleParameters(nn.Module):
    """The scale hyperprior's: mu = 0, sigma = psi."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = gaussian.LinearScale()

    def forward(self, psi: Tensor, phi: None, level: Any = None) -> tuple[Tensor, Tensor]:
        """psi (B, h, w, M) -> mu, sigma (B, h, w, M)."""
        return torch.zeros_like(psi), self.scale(psi)


class EntropyParameters(nn.Module):
    """Three 1x1 convolutions over what there is of psi and phi; without a context, psi holds sigma and mu already.

    The paper tells the widths of the joint model, 640 and 512 at M = 192; with the context alone they are kept.
    """

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        M = cfg.M
        widths = {"mean-scale": [], "context": [2 * M], "joint": [4 * M]}[cfg.prior]
        widths += [M * 10 // 3, M * 8 // 3, 2 * M] if widths else []
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.LeakyReLU()]
        self.net = nn.Sequential(*layers[:-1])
        self.scale = gaussian.LinearScale()

    def forward(self, psi: Tensor | None, phi: Tensor | None, level: Any = None) -> tuple[Tensor, Tensor]:
        """psi, phi (B, h, w, 2 M) or None -> mu, sigma (B, h, w, M)."""
        features = torch.cat([t for t in (psi, phi) if t is not None], dim=-1)
        sigma, mu = self.net(features).to(features.dtype).chunk(2, dim=-1)
        return mu, self.scale(sigma)


class GaussianPrior(JointPrior):
    """Latents with means and scales from hyper-latents, from a context, or from both."""

    def __init__(self, cfg: Config, gain: Gain | None = None) -> None:
        super().__init__()
        self.channels, self.gain = cfg.M, gain
        hyper, context = cfg.prior != "context", cfg.prior in ("context", "joint")
        self.h_a = HyperAnalysis(cfg) if hyper else None
        self.z_prior = DeepFactorized(cfg.N) if hyper else None
        self.h_s = HyperSynthesis(cfg) if hyper else None
        self.context = FullContext(cfg.M) if context else None
        self.entropy_parameters = ScaleParameters() if cfg.prior == "scale" else EntropyParameters(cfg)

    def condition(self, quality: Tensor | None) -> Any:
        """Qualities (B,) -> gain and inverse gain (B, 1, 1, M); None for a network of one quality."""
        return None if self.gain is None else self.gain(quality)


class Minnen2018(PlainModel):
    """A codec of this file: transforms of four 5x5 convolutions with GDN, and one of five priors."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg, self.variable_rate = cfg, cfg.levels > 0
        self.g_a, self.g_s = analysis(cfg.N, cfg.M), synthesis(cfg.N, cfg.M)
        gain = Gain(cfg.M, cfg.levels, cfg.lmbda_min, cfg.lmbda_max) if cfg.levels else None
        self.prior = FactorizedPrior(cfg.M, gain) if cfg.prior == "factorized" else GaussianPrior(cfg, gain)
