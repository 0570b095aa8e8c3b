"""The range coder, and its two companions of one interface.

A prior walks over its latents once and hands each batch of symbols to a coder: the `Encoder` writes them, the
`Decoder` returns them, the `Meter` counts their bits. Encoding, decoding and estimating are thereby one piece of code.

Order within a batch: symbols sorted by table, stable in their order of position; then the escapes in order of position.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lichen.coding.tables import Tables
from lichen.errors import DamagedError

Integers = npt.NDArray[np.int64]
Indices = npt.NDArray[np.uint16]

MAX_BATCHES = 100  # sorted at once: a key (batch, table) has 16 bits
ESCAPE_BITS = 31  # an escape reaches up to 2^31 beyond its table


class Coder(Protocol):
    """Codes a batch of integers, each by the table of its index."""

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None) -> Integers:
        """part: "y", "z", ...; index (n,), values (n,) or None when decoding; returns the values (n,)."""
        ...


def _by_key(key: npt.NDArray[Any]) -> tuple[npt.NDArray[np.intp], list[tuple[int, int, int]]]:
    """The order (n,) that sorts symbols by key, and the runs (key, start, end) of equal keys in it."""
    order = np.argsort(key.astype(np.uint16), kind="stable")  # 16 bits: a radix sort
    counts = np.bincount(key)
    present = np.flatnonzero(counts)
    ends = np.cumsum(counts[present])
    return order, list(zip(present.tolist(), (ends - counts[present]).tolist(), ends.tolist(), strict=True))


@functools.cache
def _uniform(n: int) -> Any:
    import constriction

    return constriction.stream.model.Uniform(n)


def _ints(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


class Encoder:
    """Writes integers to a range coder (Martin 1979; constriction's `RangeEncoder`, words of 32 bits).

    `code` only takes note; `finish` writes everything at once.
    """

    def __init__(self) -> None:
        self._batches: list[tuple[Tables, Indices, Integers]] = []

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None) -> Integers:
        """Write the values. ValueError where one is 2^32 or more outside its table."""
        assert values is not None
        self._batches.append((tables, index, values))
        return values

    def finish(self) -> bytes:
        """All that was written: words of 32 bits, little endian."""
        import constriction

        self._coder = constriction.stream.queue.RangeEncoder()
        start = 0
        while start < len(self._batches):
            tables, end = self._batches[start][0], start + 1
            while end < len(self._batches) and self._batches[end][0] is tables and end - start < MAX_BATCHES:
                end += 1
            self._write(tables, self._batches[start:end])
            start = end
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())

    def _write(self, tables: Tables, batches: list[tuple[Tables, Indices, Integers]]) -> None:
        """Batches of the same tables: one sort by (batch, table) for all of them."""
        index = np.concatenate([i for _, i, _ in batches])
        values = np.concatenate([v for _, _, v in batches])
        batch = np.repeat(np.arange(len(batches)), [len(i) for _, i, _ in batches])
        symbols, escape = values - tables.low[index], tables.escape[index]
        outside = np.flatnonzero(symbols.view(np.uint64) >= escape.view(np.uint64))  # negative ones too
        symbols[outside] = escape[outside]
        order, runs = _by_key(batch * len(tables) + index)
        ordered, models = symbols[order].astype(np.int32), tables.models
        ends = np.searchsorted(batch[outside], np.arange(len(batches)), side="right").tolist()
        at, done = 0, 0
        for key, start, end in runs:
            while key // len(tables) > at:
                done, at = self._write_escapes(tables, index, values, outside[done : ends[at]], ends[at]), at + 1
            self._coder.encode(ordered[start:end], models[key % len(tables)])
        self._write_escapes(tables, index, values, outside[done:], len(outside))

    def _write_escapes(self, tables: Tables, index: Indices, values: Integers, at: Any, end: int) -> int:
        """Elias-gamma of how far a value lies outside (1 or more): side, length in bits, bits below the leading one."""
        for i in at.tolist():
            value, low, high = int(values[i]), int(tables.low[index[i]]), int(tables.high[index[i]])
            excess = low - value if value < low else value - high
            length = excess.bit_length() - 1
            if length > ESCAPE_BITS:
                raise ValueError(f"a latent of {value} cannot be written: the network's output has blown up")
            self._coder.encode(_ints(int(value < low)), _uniform(2))
            self._coder.encode(_ints(length), _uniform(ESCAPE_BITS + 1))
            rest = excess - (1 << length)
            self._coder.encode(_ints(rest & 0xFFFF, rest >> 16), _uniform(2**16))
        return end


class Decoder:
    """Reads what an `Encoder` wrote, asked with the same tables and indices in the same order."""

    def __init__(self, data: bytes) -> None:
        import constriction

        if len(data) % 4:
            raise DamagedError("a coded stream is no whole number of words: the file is damaged, get another copy")
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None = None) -> Integers:
        """Read as many values as there are indices."""
        try:
            return self._read(tables, index)
        except (AssertionError, ValueError) as e:  # constriction's words for impossible input
            raise DamagedError("the coded latents make no sense: the file is damaged, get another copy") from e

    def _read(self, tables: Tables, index: Indices) -> Integers:
        order, runs = _by_key(index)
        ordered, models = np.empty(len(index), np.int64), tables.models
        for table, start, end in runs:
            ordered[start:end] = self._coder.decode(models[table], end - start)
        values = np.empty_like(ordered)
        values[order] = ordered
        outside = np.flatnonzero(values == tables.escape[index])
        values += tables.low[index]
        for i in outside.tolist():
            below, excess = self._escape()
            values[i] = tables.low[index[i]] - excess if below else tables.high[index[i]] + excess
        return values

    def _escape(self) -> tuple[bool, int]:
        below = bool(self._coder.decode(_uniform(2), 1)[0])
        length = int(self._coder.decode(_uniform(ESCAPE_BITS + 1), 1)[0])
        low, high = (int(v) for v in self._coder.decode(_uniform(2**16), 2))
        return below, (1 << length) + (low | high << 16)

    def finish(self) -> None:
        """Raise DamagedError unless the stream has been read to its end."""
        if not self._coder.maybe_exhausted():
            raise DamagedError("coded latents are left over: the file is damaged, get another copy")


class Meter:
    """Counts the bits that a perfect coder would need under the tables' real-valued probabilities."""

    def __init__(self) -> None:
        self.bits: dict[str, float] = {}

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None) -> Integers:
        """Count the bits of the values; an escape counts as it is written."""
        assert values is not None
        escape = tables.escape[index]
        symbols = values - tables.low[index]
        outside = (symbols < 0) | (symbols >= escape)
        bits = float(tables.bits[tables.bits_at[index] + np.where(outside, escape, symbols)].sum())
        bits += float((1 + 5 + 32) * np.count_nonzero(outside))
        self.bits[part] = self.bits.get(part, 0.0) + bits
        return values


def code_batch(part: str, coders: Sequence[Coder], tables: Tables, index: Tensor, values: Tensor | None) -> Tensor:
    """Code integers of several pictures: index and values (n, ...), the pictures' shares of n equal and in order.

    Returns the values as float64 of index's shape, on its device.
    """
    indices = index.reshape(len(coders), -1).cpu().numpy().astype(np.uint16)
    given = None if values is None else values.reshape(len(coders), -1).cpu().numpy()
    out = np.empty(indices.shape, np.float64)
    for b, coder in enumerate(coders):
        v = None if given is None else given[b].astype(np.int64)
        out[b] = coder.code(part, tables, indices[b], v)
    return torch.from_numpy(out).view(index.shape).to(index.device)
