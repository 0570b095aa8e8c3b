"""How much a model computes: parameters, and multiply-accumulates a pixel, part by part.

What is counted is what runs: the analysis and the synthesis, and the prior while it writes and while it reads a file's
latents. No part of a model is known by name, so the same count serves every model of the registry. It is taken twice,
over some pictures and over twice as many, and the difference is what pixels cost: kernels made of other parameters and
all else that is done once a call drop out.

A product counts one, whether of a matrix product or a convolution, all taps of it, or element by element (depthwise
contexts are such; in GDN two a value). Additions alone, divisions, roots, exponentials, table look-ups and the range
coder do not count, nor does NumPy, which makes probability tables. Of a context model those taps count that the codec
looks at, the causal ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lichen.coding.coder import Coder, Decoder, Encoder
from lichen.models.base import Model

SIDE = 128
"""Of the pictures that are counted, in pixels: a multiple of any stride, those of hyper-latents included."""

PICTURES = 4
"""At first, then twice as many. Fronts of a wavefront are filled up to multiples of 4 rows: with 4 pictures by none."""


@dataclass(frozen=True)
class Complexity:
    """Parameters, and thousands of multiply-accumulates a pixel (kMAC/px)."""

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
    _count(model, 1)  # what is made at first use, such as the frozen prior and probability tables, is made now
    few, many = _count(model, PICTURES), _count(model, 2 * PICTURES)
    model.train(training)
    analysis, write, read, synthesis = (
        (b - a) / 1000 / (PICTURES * SIDE * SIDE) for a, b in zip(few, many, strict=True)
    )
    parameters = sum(p.numel() for n, p in model.named_parameters() if not n.startswith(model.training_only))
    return Complexity(parameters, analysis, synthesis, write - read, read)


def _count(model: Model, n: int) -> list[float]:
    """Products of n pictures: analysis, writing latents, reading them, synthesis."""
    x = torch.rand(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    quality = torch.full((n,), 50.0) if model.variable_rate else None
    one = None if quality is None else quality[:1]
    y, analysis = products(lambda: model.analyse(x, quality))
    encoders = [Encoder() for _ in range(n)]
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
