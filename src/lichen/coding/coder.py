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

from lichen.coding.tables import PRECISION, Tables
from lichen.errors import DamagedError, WeightsError

Integers = npt.NDArray[np.int32]
Indices = npt.NDArray[np.uint16]
Array = npt.NDArray[np.float64]

KEYS = 2**16  # of (batch, table), sorted at once
ESCAPE_BITS = 31  # an escape's length is one of 32
VALUE_MAX = 2**30  # of a latent's magnitude
ESCAPE_INFORMATION = 1 + 5 + 32  # bits


class Coder(Protocol):
    """Codes a batch of integers, each by the table of its index."""

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None) -> Integers:
        """part: "y", "z", ...; index (n,), values (n,) or None when decoding; returns the values (n,)."""
        ...

    def code_each(self, part: str, frequencies: Array, values: Integers | None) -> Integers:
        """Integers that have a distribution each: frequencies (n, L) of 0..L-1, whole and at least 1, sums 2^24."""
        ...

    def end_layer(self) -> None:
        """What was coded up to here is of use without what follows."""
        ...


def _by_key(key: Indices) -> tuple[npt.NDArray[np.intp], list[tuple[int, int, int]]]:
    """The order (n,) that sorts symbols by key, and the runs (key, start, end) of equal keys in it."""
    order = np.argsort(key, kind="stable")  # 16 bits: a radix sort
    counts = np.bincount(key)
    present = np.flatnonzero(counts)
    ends = np.cumsum(counts[present])
    return order, list(zip(present.tolist(), (ends - counts[present]).tolist(), ends.tolist(), strict=True))


@functools.cache
def _uniform(n: int) -> Any:
    import constriction

    return constriction.stream.model.Uniform(n)


@functools.cache
def _categorical() -> Any:
    """constriction's model of integers with a distribution each; weights k - 1 mean frequencies k, as in `Tables`."""
    import constriction

    return constriction.stream.model.Categorical(perfect=False)


def _ints(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


class Encoder:
    """Writes integers to a range coder (Martin 1979; constriction's `RangeEncoder`, words of 32 bits).

    `code` only takes note; `finish` writes everything at once. After it, `ends` tells for every layer with how many
    bytes of the stream a decoder can read that far.
    """

    def __init__(self) -> None:
        self._batches: list[tuple[Any, Indices, Integers]] = []
        self._marks: list[int] = []  # batches before the end of each layer
        self.ends: list[int] = []

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None) -> Integers:
        """Write the values, of magnitudes up to `VALUE_MAX`."""
        assert values is not None
        self._batches.append((tables, index, values))
        return values

    def code_each(self, part: str, frequencies: Array, values: Integers | None) -> Integers:
        """Write the values, each by its own frequencies."""
        assert values is not None
        if len(values):
            self._batches.append((frequencies.astype(np.float32), np.empty(0, np.uint16), values))  # 24 bits: exact
        return values

    def end_layer(self) -> None:
        """Take note of where a layer ends."""
        self._marks.append(len(self._batches))

    def finish(self) -> bytes:
        """All that was written: words of 32 bits, little endian."""
        import constriction

        self._coder = constriction.stream.queue.RangeEncoder()
        start = 0
        words = []
        for mark in [*self._marks, len(self._batches)]:
            while start < mark:
                tables, end = self._batches[start][0], start + 1
                limit = min(mark, start + KEYS // len(tables))
                while end < limit and self._batches[end][0] is tables:
                    end += 1
                self._write(tables, self._batches[start:end])
                start = end
            words.append(self._coder.pos()[0] + 2)  # a decoder looks two words ahead
        data = bytes(self._coder.get_compressed().astype("<u4").tobytes())
        self.ends = [min(4 * n, len(data)) for n in words[:-1]]
        if self.ends and self._marks[-1] == len(self._batches):
            self.ends[-1] = len(data)
        return data

    def _write(self, tables: Any, batches: list[tuple[Any, Indices, Integers]]) -> None:
        """Batches of the same tables: one sort by (batch, table) for all of them. Or one batch of `code_each`."""
        if isinstance(tables, np.ndarray):
            self._coder.encode(batches[0][2], _categorical(), tables.astype(np.float64) - 1)
            return
        index = np.concatenate([i for _, i, _ in batches])
        values = np.concatenate([v for _, _, v in batches])
        key = np.concatenate([i + np.uint16(k * len(tables)) for k, (_, i, _) in enumerate(batches)])
        symbols, escape = values - tables.low[index], tables.escape[index]
        outside = np.flatnonzero(symbols.view(np.uint32) >= escape.view(np.uint32))  # negative ones too
        symbols[outside] = escape[outside]
        order, runs = _by_key(key)
        ordered, models = symbols[order], tables.models
        ends = np.searchsorted(key[outside] // len(models), np.arange(len(batches)), side="right").tolist()
        at, done, encode = 0, 0, self._coder.encode
        for k, start, end in runs:
            batch, table = divmod(k, len(models))
            while batch > at:
                done, at = self._write_escapes(tables, index, values, outside[done : ends[at]], ends[at]), at + 1
            encode(ordered[start:end], models[table])
        self._write_escapes(tables, index, values, outside[done:], len(outside))

    def _write_escapes(self, tables: Tables, index: Indices, values: Integers, at: Any, end: int) -> int:
        """Elias-gamma of how far a value lies outside (1 or more): side, length in bits, bits below the leading one."""
        for i in at.tolist():
            value, low, high = int(values[i]), int(tables.low[index[i]]), int(tables.high[index[i]])
            excess = low - value if value < low else value - high
            length = excess.bit_length() - 1
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
        self._left = 8.0 * len(data) + 32.0

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None = None) -> Integers:
        """Read as many values as there are indices."""
        try:
            return self._read(tables, index)
        except (AssertionError, ValueError) as e:  # constriction's words for impossible input
            raise DamagedError("the coded latents make no sense: the file is damaged, get another copy") from e

    def code_each(self, part: str, frequencies: Array, values: Integers | None = None) -> Integers:
        """Read as many values as there are rows."""
        try:
            values = np.asarray(self._coder.decode(_categorical(), frequencies - 1), np.int32)
        except (AssertionError, ValueError) as e:
            raise DamagedError("the coded latents make no sense: the file is damaged, get another copy") from e
        self._spend(PRECISION * len(values) - float(np.log2(frequencies[np.arange(len(values)), values]).sum()))
        return values

    def end_layer(self) -> None:
        """Nothing to do."""

    def _read(self, tables: Tables, index: Indices) -> Integers:
        if not len(index):
            return np.empty(0, np.int32)
        order, runs = _by_key(index)
        decode, models = self._coder.decode, tables.models
        values = np.empty(len(index), np.int32)
        values[order] = np.concatenate([decode(models[table], end - start) for table, start, end in runs])
        self._spend(float(tables.information[tables.bits_at[index] + values].sum()))
        outside = np.flatnonzero(values == tables.escape[index])
        self._spend(float(ESCAPE_INFORMATION * len(outside)))
        values += tables.low[index]
        for i in outside.tolist():
            below, excess = self._escape()
            value = int(tables.low[index[i]]) - excess if below else int(tables.high[index[i]]) + excess
            if abs(value) > VALUE_MAX:
                raise DamagedError("a coded latent is out of all bounds: the file is damaged, get another copy")
            values[i] = value
        return values

    def _escape(self) -> tuple[bool, int]:
        below = bool(self._coder.decode(_uniform(2), 1)[0])
        length = int(self._coder.decode(_uniform(ESCAPE_BITS + 1), 1)[0])
        low, high = (int(v) for v in self._coder.decode(_uniform(2**16), 2))
        return below, (1 << length) + (low | high << 16)

    def _spend(self, bits: float) -> None:
        """Count information, and stop where there has been more than a stream of this length can hold.

        constriction goes on beyond the end, as if zeros followed. A writer's range, 2^64 at first, shrinks by the
        information of each symbol at least and grows by 2^32 with each word of 32 bits, and 2^32 is its least: so a
        stream has 32 bits a word and 32 bits more at the most.
        """
        self._left -= bits
        if self._left < 0:
            raise DamagedError("the coded latents end too early: the file is damaged, get another copy")

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
        bits += float(ESCAPE_INFORMATION * np.count_nonzero(outside))
        self.bits[part] = self.bits.get(part, 0.0) + bits
        return values

    def code_each(self, part: str, frequencies: Array, values: Integers | None) -> Integers:
        """Count the bits of the values under their frequencies."""
        assert values is not None
        bits = PRECISION * len(values) - float(np.log2(frequencies[np.arange(len(values)), values]).sum())
        self.bits[part] = self.bits.get(part, 0.0) + bits
        return values

    def end_layer(self) -> None:
        """Nothing to do."""


def code_batch(part: str, coders: Sequence[Coder], tables: Tables, index: Tensor, values: Tensor | None) -> Tensor:
    """Code integers of several pictures: index and values (n, ...), the pictures' shares of n equal and in order.

    Returns the values as float64 of index's shape, on its device.
    """
    indices = index.reshape(len(coders), -1).cpu().numpy().astype(np.uint16)
    integers: Sequence[Integers | None] = [None] * len(coders)
    if values is not None:
        given = values.reshape(len(coders), -1).cpu().numpy()
        if given.size and not max(given.max(), -given.min()) <= VALUE_MAX:  # NaN too
            raise WeightsError("a latent is out of bounds: the network's output has blown up, its weights are broken")
        integers = list(given.astype(np.int32))
    coded = [c.code(part, tables, i, v) for c, i, v in zip(coders, indices, integers, strict=True)]
    flat = coded[0] if len(coded) == 1 else np.concatenate(coded)
    return torch.from_numpy(flat.astype(np.float64)).view(index.shape).to(index.device)
