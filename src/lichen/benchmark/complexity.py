"""How much a model computes: parameters, and multiply-accumulates a pixel, part by part.

What is counted is what runs: the analysis and the synthesis, and the prior while it writes and while it reads a file's
latents. No part of a model is known by name, so the same count serves every model of the registry. It is taken over
pictures of four sizes, and their mixed difference is what a pixel far from the border costs:

    pixels(a x b) * cost = count(2a x 2b) - count(2a x b) - count(a x 2b) + count(a x b)

What is done once a call or a picture, such as making kernels or gains, drops out, and so does all that grows with a
picture's sides alone, such as what a context model computes around its borders.

A product counts one, whether of a matrix product or a convolution, all taps of it, or element by element (depthwise
contexts are such; in GDN two a value). Additions alone, divisions, roots, exponentials, table look-ups and the range
coder do not count, nor does NumPy, which makes probability tables. Of a context model those taps count that the codec
looks at, the causal ones; of networks over overlapping windows, what the codec does not share between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lichen.coding.coder import Coder, Decoder, Encoder
from lichen.models.base import Model

SIDE = 64
"""a and b in pixels: a multiple of any stride, those of hyper-latents included."""

PICTURES = 4
"""Counted at once: the fronts of a wavefront are filled up to multiples of 4 rows, with 4 pictures by none."""


@dataclass(frozen=True)
class Complexity:
    """Parameters without those for training alone, and thousands of multiply-accumulates a pixel (kMAC/px)."""

    parameters: int
    analysis: float  # g_a
    synthesis: float  # g_s
    hyper_analysis: float  # what the prior computes in the encoder alone, such as h_a
    prior: float  # what it computes in both, such as h_s, context and entropy parameters

    @property
    def encoder(self) -> float:
        """All that an encoder runs."""
        return self.analysis + self.hyper_analysis + self.prior

    @property
    def decoder(self) -> float:
        """All that a decoder runs."""
        return self.prior + self.synthesis


@torch.no_grad()
def complexity(model: Model) -> Complexity:
    """Count a model's products on pictures of noise; seconds for small models, half a minute for the largest.

    The model comes back in the mode, training or not, that it came in.
    """
    training = model.training
    model.eval()
    _count(model, SIDE, SIDE)  # what is made at first use, such as the frozen prior and probability tables, is made now
    counts = [_count(model, i * SIDE, j * SIDE) for i, j in ((2, 2), (2, 1), (1, 2), (1, 1))]
    model.train(training)
    pixels = PICTURES * SIDE * SIDE
    analysis, write, read, synthesis = ((a - b - c + d) / 1000 / pixels for a, b, c, d in zip(*counts, strict=True))
    parameters = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(model.training_only))
    return Complexity(parameters, analysis, synthesis, write - read, read)


def _count(model: Model, height: int, width: int) -> list[float]:
    """Products of some pictures of a size: analysis, writing latents, reading them, synthesis."""
    x = torch.rand(PICTURES, 3, height, width, generator=torch.Generator().manual_seed(0))
    quality = torch.full((PICTURES,), 50.0) if model.variable_rate else None
    one = None if quality is None else quality[:1]
    y, analysis = products(lambda: model.analyse(x, quality))
    encoders = [Encoder() for _ in x]
    y_hat, write = products(lambda: model.code(encoders, y, one))
    decoders: Sequence[Coder] = [Decoder(e.finish()) for e in encoders]
    _, read = products(lambda: model.code(decoders, None, one, (y.shape[1], y.shape[2])))
    _, synthesis = products(lambda: model.synthesise(y_hat, quality))
    return [analysis, write, read, synthesis]


def products(run: Callable[[], Tensor]) -> tuple[Tensor, float]:
    """What `run` gives, and how many products it takes (torch's FlopCounterMode, which counts two operations each)."""
    with FlopCounterMode(display=False, custom_mapping=_BY_ELEMENT) as counter:
        result = run()
    return result, counter.get_total_flops() / 2


def _by_element(*args: object, out_val: Tensor, **kwargs: object) -> int:
    return 2 * out_val.numel() if out_val.is_floating_point() else 0  # integers are places, not values


_by_element._get_raw = True  # type: ignore[attr-defined] # FlopCounterMode then gives tensors in place of shapes
_aten = torch.ops.aten
_BY_ELEMENT = dict.fromkeys((_aten.mul, _aten.mul_, _aten.addcmul, _aten.addcmul_), _by_element)
