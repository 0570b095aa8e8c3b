"""Transforms of three convolutions, and the nonlinearities that the paper compares; latents independent of each other.

    Balle: Efficient nonlinear transforms for lossy image compression. PCS 2018
    Balle, Laparra, Simoncelli: End-to-end optimized image compression. ICLR 2017

    x --> conv 9x9 /4 --> f --> conv 5x5 /2 --> f --> conv 5x5 /2 --> y
                                                                      |  y_hat = median + round(y - median)
    x_hat <-- deconv 9x9 *4 <-- f' <-- deconv 5x5 *2 <-- f' <-- deconv 5x5 *2 <-- y_hat

    p(y) = deep factorized density * U(-1/2, 1/2)

    f                   f'
    gdn                 x / sqrt(beta + sum gamma x^2)    x * sqrt(...)    ICLR 2017
    simplified-gdn      x / (beta + sum gamma |x|)        x * (...)        the public code's default today
    relu, leaky-relu, tanh                                the same         PCS 2018's comparison

Layers after the authors' public code (TensorFlow Compression): all have N outputs, all but the last of the analysis a
bias. It holds kernels as real Fourier spectra (the paper's "Sadam", `layers/spectral_conv.py`): `kernels="rdft"`. The
density is that of Balle et al., ICLR 2018, as in that code.

Not stated in the public code; after the paper as we know it: the list of nonlinearities, N of 128 and 192 for each, the
slope 0.2 of leaky ReLU (TensorFlow's default), and f' of the last three.

(B, C, H, W) inside, pixels 0..1. Trained for lmbda * 255^2 * MSE + bpp: Adam with a rate of 1e-4, a million steps of 8
crops of 256x256; lmbda is 0.01 unless told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from torch import nn

from lichen.layers.gain import Gain
from lichen.layers.gdn import GDN, SimplifiedGDN
from lichen.layers.spectral_conv import SpectralConv2d, SpectralConvTranspose2d
from lichen.models.base import PAPERS, PlainModel, Preset
from lichen.priors.deep_factorized import FactorizedPrior

Activation = Literal["gdn", "simplified-gdn", "relu", "leaky-relu", "tanh"]
Kernels = Literal["plain", "rdft"]


@dataclass(frozen=True)
class Config:
    """Nonlinearity, how kernels are held, and widths. ValueError for unknown names and widths below 1."""

    activation: Activation = "gdn"
    kernels: Kernels = "rdft"
    N: int = 128  # channels of the transforms
    M: int = 128  # channels of the latents; the paper's has N
    levels: int = 0  # qualities between which gains are interpolated; 0 for a network of one quality, as published
    lmbda_min: float = 0.0035  # of the first and the last level
    lmbda_max: float = 0.0483

    def __post_init__(self) -> None:
        if self.activation not in get_args(Activation):
            raise ValueError(f"no activation is called {self.activation}: there are {', '.join(get_args(Activation))}")
        if self.kernels not in get_args(Kernels):
            raise ValueError(f"kernels are held as {' or '.join(get_args(Kernels))}, not as {self.kernels}")
        if min(self.N, self.M) < 1:
            raise ValueError(f"N = {self.N}, M = {self.M}: widths have to be positive")


RECIPE = {**PAPERS, "lmbda": (0.01,), "batch": 8, "crop": 256, "lr": 1e-4, "steps": 1_000_000}


def _published(activation: Activation, N: int, what: str) -> Preset:
    return Preset(Config(activation, "rdft", N, N), f"{what}, N = {N}", RECIPE)


def _small(activation: Activation, kernels: Kernels, what: str) -> Preset:
    return Preset(Config(activation, kernels, 80, 128, levels=4), f"trains on two cores: {what}, N = 80, M = 128")


PRESETS = {
    "gdn-128": _published("gdn", 128, "as published: GDN"),
    "gdn-192": _published("gdn", 192, "as published: GDN"),
    "relu-128": _published("relu", 128, "as published: ReLU"),
    "relu-192": _published("relu", 192, "as published: ReLU"),
    "leaky-relu-128": _published("leaky-relu", 128, "as published: leaky ReLU"),
    "leaky-relu-192": _published("leaky-relu", 192, "as published: leaky ReLU"),
    "tanh-128": _published("tanh", 128, "as published: tanh"),
    "tanh-192": _published("tanh", 192, "as published: tanh"),
    "simplified-gdn-128": _published("simplified-gdn", 128, "the public code's default today: simplified GDN"),
    "small": _small("gdn", "plain", "GDN, four levels of quality"),
    "small-rdft": _small("gdn", "rdft", "GDN, kernels held as spectra, four levels"),
    "small-relu": _small("relu", "plain", "ReLU, four levels"),
}


def conv(cfg: Config, inputs: int, outputs: int, kernel: int, stride: int, bias: bool = True) -> nn.Module:
    """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride), rounded up."""
    layer = SpectralConv2d if cfg.kernels == "rdft" else nn.Conv2d
    return layer(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)


def deconv(cfg: Config, inputs: int, outputs: int, kernel: int, stride: int) -> nn.Module:
    """(B, inputs, H, W) -> (B, outputs, stride H, stride W), for odd kernels."""
    layer = SpectralConvTranspose2d if cfg.kernels == "rdft" else nn.ConvTranspose2d
    return layer(inputs, outputs, kernel, stride, padding=kernel // 2, output_padding=stride - 1)


def activation(cfg: Config, inverse: bool = False) -> nn.Module:
    """f, or f' of the synthesis: (B, N, H, W) -> (B, N, H, W)."""
    match cfg.activation:
        case "gdn":
            return GDN(cfg.N, inverse)
        case "simplified-gdn":
            return SimplifiedGDN(cfg.N, inverse)
        case "relu":
            return nn.ReLU()
        case "leaky-relu":
            return nn.LeakyReLU(0.2)
        case "tanh":
            return nn.Tanh()


def analysis(cfg: Config) -> nn.Sequential:
    """g_a: pixels (B, 3, H, W) -> y (B, M, H/16, W/16)."""
    N, M = cfg.N, cfg.M
    return nn.Sequential(
        conv(cfg, 3, N, 9, 4), activation(cfg), conv(cfg, N, N, 5, 2), activation(cfg),
        conv(cfg, N, M, 5, 2, bias=False),
    )  # fmt: skip


def synthesis(cfg: Config) -> nn.Sequential:
    """g_s: y_hat (B, M, H/16, W/16) -> pixels (B, 3, H, W)."""
    N, M = cfg.N, cfg.M
    return nn.Sequential(
        deconv(cfg, M, N, 5, 2), activation(cfg, inverse=True), deconv(cfg, N, N, 5, 2), activation(cfg, inverse=True),
        deconv(cfg, N, 3, 9, 4),
    )  # fmt: skip


class Balle2018(PlainModel):
    """A codec of this file: one nonlinearity, and the factorized prior."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.cfg, self.variable_rate = cfg, cfg.levels > 0
        self.g_a, self.g_s = analysis(cfg), synthesis(cfg)
        gain = Gain(cfg.M, cfg.levels, cfg.lmbda_min, cfg.lmbda_max) if cfg.levels else None
        self.prior = FactorizedPrior(cfg.M, gain)
