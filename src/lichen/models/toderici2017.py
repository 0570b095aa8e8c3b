"""Progressive coding by recurrent networks: every iteration sends a few binary maps of what is still missing.

    Toderici, Vincent, Johnston, Hwang, Minnen, Shor, Covell: Full resolution image compression with recurrent neural
    networks. CVPR 2017

    x --(-)--> r_t --* g_t--> E --> B --> b_t --> D --/ g_t--> out_t --> x_t --+
         ^                    ^                   ^                            |
         |                    | state             | state                     |
         +--------------------|-------------------|----------------------------+        t = 1..iterations

    r_t = x - x_(t-1), x_0 = 0                      what iteration t is shown
    b_t = B(E(g_t r_t)) in {-1, 1}                  32 maps at 1/16 of the size: 1/8 bit a pixel before entropy coding
    out_t = D(b_t) / g_t

    reconstruction      x_t                 g_t
    one-shot            out_t               1
    additive            x_(t-1) + out_t     1
    residual-scaling    x_(t-1) + out_t     G(x_(t-1)) > 1, one a block of 32x32 pixels, g_1 = 1

E and D are stacks of recurrent cells (`layers/recurrent.py`) whose states carry over from iteration to iteration.
The bits are coded by the authors' progressive entropy coder (`priors/binary.py`), every iteration a layer of the file,
which may end after any of them. Pixels are 0..1 outside and -1/2..1/2 inside; tensors (B, C, H, W).

Widths after the authors' public residual GRU. Not stated in the public code, but after the paper as we know it: the
other cells and reconstructions, the network G, and that associative LSTMs serve in the decoder alone, with plain ones
in the encoder. The entropy coder is trained along with the codec, to which it sends no gradient; the authors train it
afterwards, on the codes of a finished codec. They trained on tiles of 32x32 that compress badly; of their optimizer the
public code says nothing.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.layers.bounds import straight_through
from lichen.layers.gain import lmbda_between
from lichen.layers.recurrent import CELLS
from lichen.models.base import PAPERS, Model, Preset
from lichen.priors.binary import BinaryPrior

Cell = Literal["lstm", "associative-lstm", "gru", "residual-gru"]
Reconstruction = Literal["one-shot", "additive", "residual-scaling"]

GAIN_STRIDE = 32  # pixels that share a gain, to each side
LMBDAS = 0.0018, 0.18  # what one iteration and all of them stand for, about


@dataclass(frozen=True)
class Config:
    """Cells, reconstruction and widths; the defaults are the authors' public model. ValueError for unknown names."""

    cell: Cell = "residual-gru"
    reconstruction: Reconstruction = "one-shot"
    iterations: int = 16
    bits: int = 32  # binary maps an iteration
    encoder: tuple[int, ...] = (64, 256, 512, 512)  # channels of a convolution and three cells, at 1/2, 1/4, 1/8, 1/16
    decoder: tuple[int, ...] = (512, 512, 512, 256, 128)  # of a 1x1 convolution and four cells, at 1/16, ..., 1/2
    decoder_hidden: tuple[int, ...] = (1, 1, 3, 3)  # kernels of the decoder's cells over their own state
    context: int = 64  # channels of the entropy coder

    def __post_init__(self) -> None:
        for name in ("encoder", "decoder", "decoder_hidden"):  # JSON makes lists of them
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for value, kind in ((self.cell, Cell), (self.reconstruction, Reconstruction)):
            if value not in get_args(kind):
                raise ValueError(f"{value} is none of {', '.join(get_args(kind))}")
        if self.iterations < 1 or any(c % 4 for c in self.decoder[1:]):
            raise ValueError("there has to be an iteration, and the decoder's cells need multiples of 4 channels")


def _published(cell: Cell, reconstruction: Reconstruction, what: str) -> Preset:
    # batch and rate are those of a public re-implementation, which halves the rate at epochs 3, 10, 20, 50 and 100 of
    # 200; the number of steps is ours
    return Preset(Config(cell, reconstruction), f"{what}, {reconstruction} reconstruction: 16 iterations of 32 maps",
                  {**PAPERS, "batch": 32, "crop": 32, "lr": 5e-4, "steps": 1_000_000})  # fmt: skip


PRESETS = {
    "residual-gru": _published("residual-gru", "one-shot", "the authors' public model"),
    "residual-gru-additive": _published("residual-gru", "additive", "residual GRU"),
    "residual-gru-scaling": _published("residual-gru", "residual-scaling", "residual GRU"),
    "gru": _published("gru", "one-shot", "GRU without the linear paths"),
    "lstm": _published("lstm", "one-shot", "LSTM"),
    "lstm-additive": _published("lstm", "additive", "LSTM"),
    "lstm-scaling": _published("lstm", "residual-scaling", "LSTM"),
    "associative-lstm": _published("associative-lstm", "one-shot", "associative LSTM in the decoder"),
    "associative-lstm-scaling": _published("associative-lstm", "residual-scaling", "associative LSTM in the decoder"),
    "small": Preset(
        Config("residual-gru", "one-shot", 8, 32, (16, 32, 64, 64), (64, 96, 96, 32, 16), (1, 1, 1, 1), 20),
        "trains on two cores: 8 iterations of 32 maps",
    ),
}


class Binarizer(nn.Module):
    """B: a 1x1 convolution and tanh, then -1 or 1; while training 1 with the probability (1 + v) / 2."""

    def __init__(self, inputs: int, bits: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, bits, 1)

    def forward(self, t: Tensor) -> Tensor:
        """(B, inputs, h, w) -> b (B, bits, h, w); while training its gradient is handed on to v."""
        v = torch.tanh(self.conv(t).to(t.dtype))
        threshold = 2 * torch.rand_like(v) - 1 if self.training else torch.zeros_like(v)
        b = torch.where(v >= threshold, 1.0, -1.0) + 0 * v  # no number where v is none
        return straight_through(b, v) if self.training else b


class Encoder(nn.Module):
    """E: what is missing (B, 3, H, W) -> (B, encoder[-1], H/16, W/16)."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        cell, c = CELLS["lstm" if cfg.cell == "associative-lstm" else cfg.cell], cfg.encoder
        self.conv = nn.Conv2d(3, c[0], 3, 2, padding=1)
        self.cells = nn.ModuleList(cell(c[k], c[k + 1], 3, 1, 2) for k in range(3))

    def forward(self, r: Tensor, states: list[Any]) -> tuple[Tensor, list[Any]]:
        """`states`: of the three cells, None before the first iteration."""
        t, after = self.conv(r).to(r.dtype), []
        for cell, state in zip(self.cells, states, strict=True):
            t, state = cell(t, state)
            after.append(state)
        return t, after


class Decoder(nn.Module):
    """D: bits (B, bits, h, w) -> (B, 3, 16 h, 16 w) in -1/2..1/2. After each cell comes depth to space."""

    def __init__(self, cfg: Config) -> None:
        super().__init__()
        cell, d = CELLS[cfg.cell], cfg.decoder
        inputs = (d[0], d[1] // 4, d[2] // 4, d[3] // 4)
        self.conv = nn.Conv2d(cfg.bits, d[0], 1)
        self.cells = nn.ModuleList(cell(inputs[k], d[k + 1], 3, cfg.decoder_hidden[k]) for k in range(4))
        self.out = nn.Conv2d(d[4] // 4, 3, 1)

    def forward(self, b: Tensor, states: list[Any]) -> tuple[Tensor, list[Any]]:
        """`states`: of the four cells, None before the first iteration."""
        t, after = self.conv(b).to(b.dtype), []
        for cell, state in zip(self.cells, states, strict=True):
            t, state = cell(t, state)
            t = F.pixel_shuffle(t, 2)
            after.append(state)
        return torch.tanh(self.out(t).to(b.dtype)) / 2, after


class GainEstimator(nn.Module):
    """G: x_t (B, 3, H, W) -> (B, 1, H, W), above 1: by how much to scale up what is missing from it.

    Five 3x3 convolutions of stride 2 with ELU, which stays above -1, and 2 added; then every value fills its block.
    """

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, 2, padding=1) for before, after in itertools.pairwise((3, 32, 32, 32, 32, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Any size."""
        t = x
        for conv in self.convs:
            t = F.elu(conv(t))
        gain = F.interpolate(t.to(x.dtype) + 2, scale_factor=GAIN_STRIDE, mode="nearest")
        return gain[:, :, : x.shape[2], : x.shape[3]]


@dataclass(frozen=True)
class Received:
    """What the decoder has after some iterations, and the encoder too."""

    x_hat: Tensor  # x_t, (B, 3, H, W) in -1/2..1/2
    gain: Tensor | float = 1.0  # g_(t+1), (B, 1, H, W)
    states: list[Any] = field(default_factory=lambda: [None] * 4)


class Toderici2017(Model):
    """The codec of this file. Latents y are the bits (B, H/16, W/16, T bits) of T iterations, in their order.

    Quality 1 is one iteration and quality 100 all of them; between, their number is even in the logarithm,
    round(iterations^((quality - 1) / 99)). Pictures of a batch may have different qualities: y is zero where one has
    fewer iterations than another.
    """

    variable_rate = True
    reach = 8  # every iteration sees 3 more; what comes from beyond 8 is below what a seam would need to show

    def __init__(self, cfg: Config = PRESETS["residual-gru"].config) -> None:
        super().__init__()
        self.cfg = cfg
        self.encoder, self.binarizer = Encoder(cfg), Binarizer(cfg.encoder[-1], cfg.bits)
        self.decoder = Decoder(cfg)
        self.gain = GainEstimator() if cfg.reconstruction == "residual-scaling" else None
        self.prior = BinaryPrior(cfg.iterations, cfg.bits, cfg.context)

    @torch.no_grad()
    def start_from(self, crops: Tensor) -> None:
        """Scale the convolutions from layer to layer so that their outputs deviate by 1 from each channel's mean at the
        first iteration, the last by 1/5.

        Otherwise all that reaches the binarizer from new weights is noise. Mishkin, Matas: "All you need is a good
        init", ICLR 2016. crops: (B, 3, H, W) in 0..1, of which 32 are used.
        """
        x = crops[:32] - 0.5
        nothing = Received(torch.zeros_like(x))
        cells = [*self.encoder.cells, self.binarizer, self.decoder, *self.decoder.cells]
        for conv in [self.encoder.conv, *(_first_conv(cell) for cell in cells), self.decoder.out]:
            outputs: list[Tensor] = []
            hook = conv.register_forward_hook(lambda module, inputs, output, to=outputs: to.append(output))
            self.receive(self.send(x, nothing, [None] * 3)[0], nothing)
            hook.remove()
            conv.weight.div_((outputs[0] - outputs[0].mean((0, 2, 3), keepdim=True)).std())
        self.decoder.out.weight.mul_(0.2)

    def send(self, x: Tensor, so_far: Received, states: list[Any]) -> tuple[Tensor, list[Any]]:
        """b_t (B, bits, H/16, W/16) of x (B, 3, H, W) in -1/2..1/2, and the encoder's states."""
        t, states = self.encoder(so_far.gain * (x - so_far.x_hat), states)
        return self.binarizer(t), states

    def receive(self, b: Tensor, so_far: Received) -> Received:
        """x_t from b_t (B, bits, H/16, W/16)."""
        out, states = self.decoder(b, so_far.states)
        x_hat = out if self.cfg.reconstruction == "one-shot" else so_far.x_hat + out / so_far.gain
        return Received(x_hat, 1.0 if self.gain is None else self.gain(x_hat), states)

    def analyse(self, x: Tensor, quality: Tensor | None) -> Tensor:
        """The bits (B, H/16, W/16, T bits) of as many iterations as the highest quality asks for."""
        count, x = self.layers(quality), x - 0.5
        so_far, states, y = Received(torch.zeros_like(x)), [None] * 3, []
        for t in range(count):
            b, states = self.send(x, so_far, states)
            y.append(b)
            if t + 1 < count:
                so_far = self.receive(b, so_far)
        level = self.prior.condition(quality)
        if level is not None:
            y = [b * _per_picture(t < level) for t, b in enumerate(y)]
        return _in_order(y)

    def synthesise(self, y_hat: Tensor, quality: Tensor | None) -> Tensor:
        """x_T from bits (B, h, w, T bits), of each picture after as many of them as its quality asks for."""
        level = self.prior.condition(quality)
        B, h, w, _ = y_hat.shape
        so_far = Received(y_hat.new_zeros(B, 3, self.stride * h, self.stride * w))
        x_hat = so_far.x_hat
        for t, b in enumerate(y_hat.permute(0, 3, 1, 2).split(self.cfg.bits, dim=1)):
            so_far = self.receive(b, so_far)
            x_hat = so_far.x_hat if level is None else torch.where(_per_picture(t < level), so_far.x_hat, x_hat)
        return x_hat + 0.5

    def own_loss(self, x: Tensor, quality: Tensor | None, lmbda: Tensor, done: float) -> tuple[Tensor, Tensor, Tensor]:
        """The mean of |x - x_t| over all iterations, and the mean code length of a bit, in bits.

        The two are of one order and share no weight, so neither weighs against the other, nor does lmbda (B,) weigh
        anything. All iterations count alike; the quality (B,) decides what bits per pixel (B,) and x_hat (B, 3, H, W)
        are told.
        """
        level, x = self.prior.condition(quality), x - 0.5
        so_far, states = Received(torch.zeros_like(x)), [None] * 3
        y, errors, x_hat = [], [], so_far.x_hat
        for t in range(self.cfg.iterations):
            b, states = self.send(x, so_far, states)
            so_far = self.receive(b, so_far)
            y.append(b)
            errors.append((x - so_far.x_hat).abs().mean())
            x_hat = so_far.x_hat if level is None else torch.where(_per_picture(t < level), so_far.x_hat, x_hat)
        bits = self.prior.bits_of_layers(_in_order(y))  # (B, T)
        code_length = bits.mean() / b[0].numel()
        if level is not None:
            bits = bits * (torch.arange(len(y), device=x.device) < level[:, None])
        bpp = bits.sum(1) / (x.shape[2] * x.shape[3])
        return torch.stack(errors).mean() + code_length, bpp.detach(), (x_hat + 0.5).detach()

    def layers(self, quality: Tensor | None) -> int:
        """As many as iterations."""
        level = self.prior.condition(quality)
        return self.cfg.iterations if level is None else int(level.max())

    def quality_of(self, layers: int) -> Tensor:
        """Of 1 to `iterations` layers."""
        return torch.tensor([self.prior.quality_of(layers)])

    def lmbda_of(self, quality: Tensor) -> Tensor:
        """What other models take for such a quality, even in the logarithm; nothing here is weighed by it."""
        return lmbda_between(quality, *LMBDAS)


def _per_picture(which: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1)"""
    return which[:, None, None, None]


def _in_order(maps: list[Tensor]) -> Tensor:
    """b_1 ... b_T (B, bits, h, w) -> (B, h, w, T bits)"""
    return torch.cat(maps, dim=1).permute(0, 2, 3, 1)


def _first_conv(module: nn.Module) -> nn.Conv2d:
    return next(m for m in module.modules() if isinstance(m, nn.Conv2d))
