"""Integer probability tables over runs of consecutive integers, with an escape for what lies outside."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

PRECISION = 24
"""Frequencies of a table add up to 2^24, the precision of constriction's default coder."""


def integer_frequencies(pmf: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Probabilities (n,) that sum to at most 1 -> frequencies (n,) of at least 1 that sum to 2^24.

    Each gets 1 and its share of the rest rounded down; what is left goes by one to those that lost most, and beyond
    that to the most likely. Element by element and sorting alone: exact for exact input.
    """
    n = len(pmf)
    share = np.asarray(pmf, np.float64) * float(2**PRECISION - n)
    k = np.floor(share).astype(np.int64) + 1
    left = 2**PRECISION - int(k.sum())
    if left < 0:
        raise ValueError("probabilities sum to more than 1")
    k[np.argsort(np.floor(share) - share, kind="stable")[:left]] += 1
    k[int(np.argmax(k))] += max(0, left - n)
    return k


class Tables:
    """Probability tables by index: table i covers low[i] .. high[i], and one escape symbol covers everything else.

    pmfs: for each table the probabilities of its integers from low[i] upwards, exact and summing to at most 1; the
    rest is the escape's.
    """

    def __init__(self, pmfs: Sequence[npt.NDArray[np.float64]], low: Sequence[int]) -> None:
        self.low = np.asarray(low, np.int32)
        self.high = self.low + np.asarray([len(p) for p in pmfs], np.int32) - 1
        self.escape = self.high - self.low + 1  # the symbol of the escape; an integer's symbol is integer - low
        self.frequencies = []
        bits = []
        for p in pmfs:
            escape = max(0.0, 1.0 - math.fsum(p.tolist()))  # fsum rounds once, so the same bits on every machine
            self.frequencies.append(integer_frequencies(np.append(p, escape)))
            bits.append(-np.log2(np.maximum(np.append(p, escape), 2.0**-PRECISION)))
        self.bits = np.concatenate(bits)
        self.information = PRECISION - np.log2(np.concatenate(self.frequencies))  # bits, of each symbol as it is coded
        self.bits_at = np.concatenate([[0], np.cumsum([len(b) for b in bits])])[:-1]

    @functools.cached_property
    def models(self) -> list[Any]:
        """constriction's models, each symbol with exactly its integer frequency.

        constriction turns n weights of the sum 2^24 - n into frequencies by 1 + floor(weight), cumulated in float64:
        for the weights k - 1 that is k.
        """
        import constriction

        return [
            constriction.stream.model.Categorical((k - 1).astype(np.float64), perfect=False) for k in self.frequencies
        ]

    def __len__(self) -> int:
        return len(self.models)
