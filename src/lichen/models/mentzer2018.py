"""Conditional probability models: symbols of a learned alphabet, an importance map, and a context model in 3-D.

    Mentzer, Agustsson, Tschannen, Timofte, Van Gool: Conditional probability models for deep image compression.
    CVPR 2018

                +--> h ----> mask, m_c = clip(h - c, 0, 1)
    x --> g_a --+              |                     +--> symbols --> 3-D masked convolutions --> p(symbol)
                +--> z ------- * --> y --> Q(y) -----+
                                                     +--> y_hat --> g_s --> x_hat

    Q: the nearest of L = 6 learned numbers, with the gradient of a soft assignment

h, one number a position, says how many channels that position may use: the others are zero and cost next to nothing.
There are no hyper-latents: a symbol's probabilities come from the symbols before it, channel by channel (see
`priors/masked_context3d.py`). Latents are at an eighth of the picture's size. Pixels are 0..1.

Layers after the paper and its public code. Trained there for

    5000 (1 - MS-SSIM) + 500 max(H - H_target, 0) + L2,     H = (mean(bits) + mean(bits m)) / 2 in bits a symbol

on ImageNet, batches of 30 crops of 160x160, Adam with 8e-5 for the transforms and 1e-4 for the context model, both
divided by ten every two epochs. The context model learns from its bits, the transforms through m alone. H_target is
0.4 ("low") and 1.2 ("med") at 32 channels, and 1.0 ("hi") at 64: 0.2, 0.6 and 1 bit a pixel. Made for MS-SSIM: its PSNR
is that of JPEG or less. Lichen's trainer has one rate of learning for both parts. Convolutions with batch norm have no
bias, those of the context model do, as in that code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.layers.batch_norm import BatchNorm
from lichen.layers.ms_ssim import ms_ssim_error
from lichen.models.base import PAPERS, Model, Preset
from lichen.priors.symbols import SymbolPrior

MEAN = (121.85, 113.59, 100.64)  # of R, G, B in ImageNet's pixels, 0..255
VARIANCE = (4746.4, 4454.1, 4812.2)


@dataclass(frozen=True)
class Config:
    """Widths and what is minimised. ValueError for sizes below 1 or an alphabet of one."""

    C: int = 32  # channels of the latents
    H_target: float = 0.4  # bits a symbol, C / 64 of them a pixel
    n: int = 128  # channels of the transforms; half as many next to the pixels
    groups: int = 5  # of three residual blocks
    L: int = 6  # symbols
    features: int = 24  # channels of the context model
    K: float = 5000.0  # weight of 1 - MS-SSIM
    beta: float = 500.0  # weight of bits above the target
    decay: float = 0.005  # of the transforms' kernels
    decay_centres: float = 0.1

    def __post_init__(self) -> None:
        if min(self.C, self.n // 2, self.groups, self.features) < 1 or self.L < 2:
            raise ValueError(f"{self}: C, n / 2, groups and features have to be at least 1, and L at least 2")


_RECIPE = {**PAPERS, "batch": 30, "crop": 160, "lr": 8e-5}

PRESETS = {
    "low": Preset(Config(32, 0.4), "as published for low rates: 0.4 bits a symbol, 32 channels", _RECIPE),
    "med": Preset(Config(32, 1.2), "as published for middle rates: 1.2 bits a symbol, 32 channels", _RECIPE),
    "hi": Preset(Config(64, 1.0), "as published for high rates: 1.0 bits a symbol, 64 channels", _RECIPE),
    "small": Preset(
        Config(16, 1.6, n=48, groups=1, features=16), "trains on two cores: 1.6 bits a symbol, 16 channels, 48 wide"
    ),
}


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, H/stride, W/stride), batch norm in place of a bias."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), BatchNorm(outputs))


def deconv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """(B, inputs, H, W) -> (B, outputs, 2 H, 2 W), batch norm in place of a bias."""
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, output_padding=1, bias=False), BatchNorm(outputs)
    )


class Residual(nn.Module):
    """x + the layers of x, same shape."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(B, n, H, W)"""
        out: Tensor = x + self.layers(x)
        return out


def block(n: int) -> Residual:
    """Two 3x3 convolutions, a ReLU between."""
    return Residual(conv(n, n, 3), nn.ReLU(), conv(n, n, 3))


def trunk(n: int, groups: int) -> Residual:
    """Groups of three blocks, each group residual; one more block without a ReLU; the whole residual."""
    return Residual(
        *(Residual(block(n), block(n), block(n)) for _ in range(groups)), Residual(conv(n, n, 3), conv(n, n, 3))
    )


class Normalise(nn.Module):
    """Pixels 0..1 -> ImageNet's mean and variance in 0..255 made 0 and 1, and the way back. (B, 3, H, W)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        mean, variance = torch.tensor(MEAN)[:, None, None], torch.tensor(VARIANCE)[:, None, None]
        self.register_buffer("mean", mean / 255, persistent=False)
        self.register_buffer("deviation", variance.sqrt() / 255, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels -> what the network sees."""
        return (x - self.mean) / self.deviation

    def back(self, t: Tensor) -> Tensor:
        """What the network gives -> pixels, clipped to 0..1."""
        return (t * self.deviation + self.mean).clamp(0, 1)


class Analysis(nn.Module):
    """g_a: pixels (B, 3, H, W) -> z, mask (B, C, H/8, W/8)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.C, self.normalise = cfg.C, Normalise()
        self.layers = nn.Sequential(
            conv(3, cfg.n // 2, 5, 2), nn.ReLU(), conv(cfg.n // 2, cfg.n, 5, 2), nn.ReLU(), trunk(cfg.n, cfg.groups),
            conv(cfg.n, cfg.C + 1, 5, 2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """H and W divide by 8. The importance map is the first channel: h = C sigmoid(.), m_c = clip(h - c, 0, 1)."""
        t = self.layers(self.normalise(x)).to(x.dtype)
        h = self.C * torch.sigmoid(t[:, :1])
        return t[:, 1:], (h - torch.arange(self.C, device=t.device)[:, None, None]).clamp(0, 1)


class Synthesis(nn.Module):
    """g_s: y_hat (B, C, H/8, W/8) -> pixels (B, 3, H, W), clipped to 0..1."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        self.normalise = Normalise()
        self.layers = nn.Sequential(
            deconv(cfg.C, cfg.n, 3), nn.ReLU(), trunk(cfg.n, cfg.groups),
            deconv(cfg.n, cfg.n // 2, 5), nn.ReLU(), deconv(cfg.n // 2, 3, 5),
        )  # fmt: skip

    def forward(self, y_hat: Tensor) -> Tensor:
        """Any size."""
        return self.normalise.back(self.layers(y_hat).to(y_hat.dtype))


class Mentzer2018(Model):
    """The codec of this file: one target of bits a symbol, one network."""

    stride = 8

    def __init__(self, cfg: Config = PRESETS["low"].config) -> None:
        super().__init__()
        self.cfg = cfg
        self.reach = 3 * cfg.groups + 3  # a block's two kernels at 1/4 see a latent
        self.g_a, self.g_s = Analysis(cfg), Synthesis(cfg)
        self.prior = SymbolPrior(cfg.C, cfg.L, cfg.features)

    def analyse(self, x: Tensor, quality: Tensor | None = None) -> Tensor:
        """y = m z: (B, 3, H, W) -> (B, H/8, W/8, C)."""
        z, mask = self.g_a(x)
        return (z * mask).permute(0, 2, 3, 1)

    def synthesise(self, y_hat: Tensor, quality: Tensor | None = None) -> Tensor:
        """x_hat = g_s(y_hat): (B, H/8, W/8, C) -> (B, 3, H, W), clipped to 0..1."""
        x_hat: Tensor = self.g_s(y_hat.permute(0, 3, 1, 2))
        return x_hat

    def own_loss(self, x: Tensor, quality: Tensor | None, lmbda: Tensor, done: float) -> tuple[Tensor, Tensor, Tensor]:
        """K (1 - MS-SSIM) + beta max(H - H_target, 0) + L2 (); bits per pixel (B,); x_hat (B, 3, H, W).

        H weighs the bits of each symbol by its share of the importance map, half of the way. The bits themselves tell
        the transforms nothing (see `SymbolPrior.bits`), the map tells them where to spend less. lmbda is not used: a
        network's rate is its configuration's. x: (B, 3, H, W), at least 33 pixels to each side.
        """
        cfg = self.cfg
        z, mask = (t.permute(0, 2, 3, 1) for t in self.g_a(x))
        y_hat, symbols = self.prior.quantization(z * mask)
        bits = self.prior.bits(y_hat, symbols)
        x_hat = self.synthesise(y_hat)
        H = 0.5 * (bits.mean() + (bits * mask).mean())
        loss = cfg.K * ms_ssim_error(x, x_hat).mean() + cfg.beta * F.relu(H - cfg.H_target) + self._decay()
        return loss, bits.flatten(1).sum(1).detach() / (x.shape[2] * x.shape[3]), x_hat

    def _decay(self) -> Tensor:
        """L2 of the transforms' kernels and of the centres, () ."""
        kernels = [p.square().sum() for g in (self.g_a, self.g_s) for p in g.parameters() if p.ndim == 4]
        centres = self.prior.quantization.centres.square().sum()
        return 0.5 * (self.cfg.decay * torch.stack(kernels).sum() + self.cfg.decay_centres * centres)
