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

ESCAPE_BITS = 31  # an escape reaches up to 2^31 beyond its table


class Coder(Protocol):
    """Codes a batch of integers, each by the table of its index."""

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None) -> Integers:
        """part: "y", "z", ...; index (n,), values (n,) or None when decoding; returns the values (n,)."""
        ...


class _Batch:
    """Symbols sorted by table: order (n,), and the runs (table, start, end) of equal tables."""

    def __init__(self, index: Indices) -> None:
        self.order = np.argsort(index, kind="stable")
        counts = np.bincount(index)
        present = np.flatnonzero(counts)
        ends = np.cumsum(counts[present])
        self.runs = list(zip(present.tolist(), (ends - counts[present]).tolist(), ends.tolist(), strict=True))


@functools.cache
def _uniform(n: int) -> Any:
    import constriction

    return constriction.stream.model.Uniform(n)


def _ints(*values: int) -> npt.NDArray[np.int32]:
    return np.array(values, np.int32)


class Encoder:
    """Writes integers to a range coder (Martin 1979; constriction's `RangeEncoder`, words of 32 bits)."""

    def __init__(self) -> None:
        import constriction

        self._coder = constriction.stream.queue.RangeEncoder()

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None) -> Integers:
        """Write the values. ValueError beyond 2^31 outside a table."""
        assert values is not None
        low, high = tables.low[index], tables.high[index]
        outside = (values < low) | (values > high)
        symbols = np.where(outside, high - low + 1, values - low).astype(np.int32)
        batch = _Batch(index)
        symbols = symbols[batch.order]
        for table, start, end in batch.runs:
            self._coder.encode(symbols[start:end], tables.models[table])
        for i in np.flatnonzero(outside):
            below = bool(values[i] < low[i])
            self._escape(below, int(low[i] - values[i] if below else values[i] - high[i]))
        return values

    def _escape(self, below: bool, excess: int) -> None:
        """excess >= 1, Elias-gamma: its length in bits, then the bits below its leading one."""
        length = excess.bit_length() - 1
        if length > ESCAPE_BITS:
            raise ValueError(f"latent {excess} outside its table cannot be written: the network's output has blown up")
        self._coder.encode(_ints(int(below)), _uniform(2))
        self._coder.encode(_ints(length), _uniform(ESCAPE_BITS + 1))
        rest = excess - (1 << length)
        self._coder.encode(_ints(rest & 0xFFFF, rest >> 16), _uniform(2**16))

    def finish(self) -> bytes:
        """All that was written: words of 32 bits, little endian."""
        return bytes(self._coder.get_compressed().astype("<u4").tobytes())


class Decoder:
    """Reads what an `Encoder` wrote, asked with the same tables and indices in the same order."""

    def __init__(self, data: bytes) -> None:
        import constriction

        if len(data) % 4:
            raise DamagedError("a coded stream is no whole number of words: the file is damaged, get another copy")
        self._coder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))

    def code(self, part: str, tables: Tables, index: Indices, values: Integers | None = None) -> Integers:
        """Read as many values as there are indices."""
        batch = _Batch(index)
        symbols = np.empty(len(index), np.int64)
        try:
            for table, start, end in batch.runs:
                symbols[start:end] = self._coder.decode(tables.models[table], end - start)
        except (AssertionError, ValueError) as e:
            raise DamagedError("the coded latents make no sense: the file is damaged, get another copy") from e
        result = np.empty_like(symbols)
        result[batch.order] = symbols
        result += tables.low[index]
        outside = np.flatnonzero(result > tables.high[index])
        for i in outside:
            below, excess = self._escape()
            result[i] = tables.low[index[i]] - excess if below else tables.high[index[i]] + excess
        return result

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
        low, high = tables.low[index], tables.high[index]
        excess = np.maximum(low - values, values - high)
        symbols = np.where(excess > 0, high - low + 1, values - low)
        bits = float(tables.bits[tables.bits_at[index] + symbols].sum())
        bits += float((1 + 5 + 32) * np.count_nonzero(excess > 0))
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
