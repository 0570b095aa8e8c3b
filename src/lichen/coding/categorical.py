"""Symbols that have a distribution each: logits on a grid -> integer frequencies -> the coder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lichen.coding import exact
from lichen.coding.coder import Array, Coder, Integers
from lichen.coding.tables import PRECISION


def softmax_frequencies(logits: Array) -> Array:
    """Logits (n, L) -> frequencies (n, L), integers of at least 1 whose sums are 2^24: softmax(logits) 2^24, nearly.

    Each symbol gets 1 and its share of the rest rounded down; the likeliest gets what is left. Exact logits give the
    same integers on every machine: element by element, sums in a fixed order, `exp` of coding/exact.
    """
    e = exact.exp(logits - logits.max(axis=1, keepdims=True))
    total = e[:, 0].copy()
    for column in e.T[1:]:
        total += column
    L = logits.shape[1]
    k = np.floor(e / total[:, None] * float(2**PRECISION - L)) + 1.0
    k[np.arange(len(k)), logits.argmax(axis=1)] += float(2**PRECISION) - k.sum(axis=1)  # integers: any order is exact
    return k


def code_each(part: str, coders: Sequence[Coder], logits: Tensor, values: Tensor | None) -> Tensor:
    """Code symbols of several pictures: logits (n, L) in exact float64, values (n,) in 0..L-1 or None to read them.

    The pictures' shares of n are equal and in order. Returns the values (n,), int64, on the logits' device.
    """
    frequencies = np.split(softmax_frequencies(logits.cpu().numpy()), len(coders))
    integers: Sequence[Integers | None] = [None] * len(coders)
    if values is not None:
        integers = np.split(values.cpu().numpy().astype(np.int32), len(coders))
    coded = [c.code_each(part, f, v) for c, f, v in zip(coders, frequencies, integers, strict=True)]
    flat = coded[0] if len(coded) == 1 else np.concatenate(coded)
    return torch.from_numpy(flat.astype(np.int64)).to(logits.device)
