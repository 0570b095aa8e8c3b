"""The .lichen file: a signature, then chunks, each with its length and checksum, in the manner of PNG (RFC 2083).

    \\x89 L I C \\r \\n \\x1a \\n | HEAD | TILE ... TILE | ALPH? ICCP? EXIF? "XMP "?
    \\x89 L I C \\r \\n \\x1a \\n | HEAD | ALPH? ICCP? EXIF? "XMP "? | LAYR ... LAYR        a progressive file

    chunk: type (4 ASCII bytes), length (LEB128), payload, CRC-32 of all three (big endian)

docs/format.md gives every byte. Reading checks everything before it allocates: memory stays within a small multiple of
the input's length whatever its numbers claim, and nothing but a `LichenError` is raised.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from lichen.errors import DamagedError, LimitError, NotLichenError, VersionError

SIGNATURE = b"\x89LIC\r\n\x1a\n"
"""A byte above 127, the name, and the line ends and end-of-file mark that a transfer as text would change."""

SUFFIX = ".lichen"
VERSION = 1
MAX_SIDE = 2**24  # pixels, of the stored picture
TILE_UNIT = 64  # pixels
MAX_TILE = 2**24  # pixels: what a reader must be ready to hold at once
MAX_TILE_SIDE = 2**16  # pixels
OPTIONAL = ("ALPH", "ICCP", "EXIF", "XMP ")
"""Chunks that may follow the tiles or precede the layers, in the order in which they are written."""

MODELS: dict[int, str] = {
    1: "light",
    2: "minnen2018-factorized",
    3: "minnen2018-scale",
    4: "minnen2018-mean-scale",
    5: "minnen2018-context",
    6: "minnen2018-joint",
    7: "lee2019-base",
    8: "lee2019-hybrid",
    9: "hu2020",
    10: "mentzer2018",
    11: "toderici2017",
    12: "balle2018-factorized",
}
"""The names behind the permanent numbers in files, for readers that import no model; the models' registry takes them
from here."""

_VARINT_BYTES = 5
_ANOTHER_COPY = "the file is damaged, get another copy"

Buffer = bytes | bytearray | memoryview


# ---- the parts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """What a reader must know before it decodes.

    Raises ValueError for values that no file can hold, LimitError for a picture of more than 2^24 pixels a side or a
    tile of more than 2^24 pixels or 2^16 a side.
    """

    model: int | str  # permanent number of the models' registry, 1..255, or the name of a model outside of it
    weights: bytes  # the first 8 bytes of the weights' SHA-256
    quality: int  # 0..65535, in units of 1/256; 0 for a model of one rate
    width: int  # pixels, 1..2^24
    height: int
    tile: int = 0  # side of the tiles in units of 64 pixels; 0 where the whole picture is one tile
    grey: bool = False  # one channel instead of RGB
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ValueError(f"format version {self.version} cannot be written")
        if isinstance(self.model, str):
            if not 1 <= len(self.model.encode("utf-8", "surrogatepass")) <= 255 or not self.model.isprintable():
                raise ValueError("a model's name has 1 to 255 bytes of UTF-8, all printable")
        elif not 1 <= self.model <= 255:
            raise ValueError(f"model number {self.model} is not in 1..255")
        if len(self.weights) != 8:
            raise ValueError(f"the weights are named by 8 bytes, not {len(self.weights)}")
        if not 0 <= self.quality <= 0xFFFF:
            raise ValueError(f"quality {self.quality} is not in 0..65535")
        if not 0 <= self.tile <= MAX_SIDE // TILE_UNIT:
            raise ValueError(f"tile side {self.tile} is not in 0..{MAX_SIDE // TILE_UNIT}")
        if self.width < 1 or self.height < 1:
            raise ValueError(f"a picture of {self.width}x{self.height} pixels is empty")
        if max(self.width, self.height) > MAX_SIDE:
            raise LimitError(
                f"the picture has {self.width}x{self.height} pixels and a .lichen file takes {MAX_SIDE} to a side: "
                "cut it into parts"
            )
        h, w = (min(n, self.tile * TILE_UNIT or n) for n in (self.height, self.width))
        if h * w > MAX_TILE or max(h, w) > MAX_TILE_SIDE:
            raise LimitError(
                f"a tile of {w}x{h} pixels is too large, it may have {MAX_TILE} and {MAX_TILE_SIDE} to a side: cut the "
                "picture into smaller tiles"
            )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        if not self.tile:
            return 1, 1
        side = self.tile * TILE_UNIT
        return -(-self.height // side), -(-self.width // side)


@dataclass
class Container:
    """A whole file: header, the tiles' coded bytes in raster order, and the optional chunks' payloads by type.

    A progressive file has layers: `layers[k][i]` is how many of tile i's bytes belong to the layers up to k. Read with
    `partial=True`, a file that was cut short gives the layers that are whole, and as `missing` how many chunks are not.
    """

    header: Header
    tiles: list[bytes]
    chunks: dict[str, bytes] = field(default_factory=dict)
    layers: list[list[int]] = field(default_factory=list)
    missing: int = 0

    def to_bytes(self) -> bytes:
        """The file.

        ValueError where the tiles do not fit the header's sizes, the layers do not fit the tiles, a chunk's type is not
        in `OPTIONAL`, or chunks are missing.
        """
        rows, columns = self.header.grid
        if len(self.tiles) != rows * columns:
            raise ValueError(f"{len(self.tiles)} tiles for a grid of {rows}x{columns}")
        if self.missing:
            raise ValueError(f"{self.missing} chunks are missing: what is left of a file is no file")
        if unknown := self.chunks.keys() - set(OPTIONAL):
            raise ValueError(f"no chunk is called {', '.join(sorted(unknown))}")
        extra = [_chunk(t.encode(), self.chunks[t]) for t in OPTIONAL if t in self.chunks]
        if self.layers:
            body = [*extra, *(_chunk(b"LAYR", payload) for payload in _layer_payloads(self.tiles, self.layers))]
        else:
            body = [*(_chunk(b"TILE", tile) for tile in self.tiles), *extra]
        return b"".join([SIGNATURE, _chunk(b"HEAD", _head_payload(self.header, len(body))), *body])

    @classmethod
    def from_bytes(cls, data: Buffer, partial: bool = False) -> Container:
        """Read a whole file and check all of it.

        partial: take a progressive file that ends early too, if at least one layer is whole.

        Raises NotLichenError for another format, VersionError for a file that needs a newer Lichen, DamagedError for
        everything else that no writer writes.
        """
        view = memoryview(data).toreadonly().cast("B")
        header, count, at = _read_head(view)
        rows, columns = header.grid
        tiles: list[bytes] = []
        layers: list[list[bytes]] = []
        chunks: dict[str, bytes] = {}
        missing = count
        for part in _read_chunks(view, count, at, partial):
            missing -= 1
            if part.type == "TILE":
                if chunks or layers or len(tiles) == rows * columns:
                    raise DamagedError(f"a tile is where none belongs: {_ANOTHER_COPY}")
                tiles.append(_payload(view, part))
            elif part.type == "LAYR":
                if tiles:
                    raise DamagedError(f"a layer is where none belongs: {_ANOTHER_COPY}")
                layers.append(_read_layer(view, part, rows * columns))
            elif part.type in OPTIONAL:
                if layers or len(tiles) not in (0, rows * columns) or part.type in chunks:
                    raise DamagedError(f"chunk {part.type.strip()} is where none belongs: {_ANOTHER_COPY}")
                chunks[part.type] = _payload(view, part)
            elif part.type == "HEAD":
                raise DamagedError(f"there is a second header: {_ANOTHER_COPY}")
            elif part.type[0].isupper():
                raise VersionError(f"the file has a part called {part.type} that needs a newer Lichen: upgrade lichen")
        if not layers and len(tiles) != rows * columns:
            raise DamagedError(f"{len(tiles)} of {rows * columns} tiles are there: {_ANOTHER_COPY}")
        if not layers:
            return cls(header, tiles, chunks)
        of_tiles = list(zip(*layers, strict=True))
        ends = zip(*(itertools.accumulate(map(len, pieces)) for pieces in of_tiles), strict=True)
        return cls(header, [b"".join(pieces) for pieces in of_tiles], chunks, [list(e) for e in ends], missing)


class Part(NamedTuple):
    """Where a chunk's payload lies: data[offset : offset + length]. The chunk has 8 bytes more and its varint."""

    type: str
    offset: int
    length: int


def parts(data: Buffer, partial: bool = False) -> list[Part]:
    """All chunks of a file, header first, unknown ones too; checked as by `Container.from_bytes`, but not counted."""
    view = memoryview(data).toreadonly().cast("B")
    _, count, at = _read_head(view)
    return [_read_chunk(view, len(SIGNATURE))[0], *_read_chunks(view, count, at, partial)]


def header_only(data: Buffer) -> Header:
    """The header from a file's first bytes (512 always suffice). Raises as `Container.from_bytes`."""
    return _read_head(memoryview(data).toreadonly().cast("B"))[0]


def outline(file: IO[bytes]) -> tuple[Header, list[Part]]:
    """The header and the chunks after it, of an open file from its beginning, whatever their payloads: it seeks over
    them. What the end of the file cuts off is left out.

    Raises as `Container.from_bytes` where the header does; all other checks are left to the reader of the payloads.
    """
    file.seek(0)
    header, count, at = _read_head(memoryview(file.read(512)))
    size = file.seek(0, os.SEEK_END)
    found: list[Part] = []
    while len(found) < count:
        file.seek(at)
        cursor = _Cursor(memoryview(file.read(4 + _VARINT_BYTES)), 0)
        try:
            kind, length = cursor.take(4), cursor.varint()
        except EOFError:
            break
        part = Part(kind.decode("latin-1"), at + cursor.at, length)
        at = part.offset + part.length + 4
        if at > size:
            break
        found.append(part)
    return header, found


def read_part(file: IO[bytes], part: Part) -> bytes:
    """The payload of a chunk of `outline`. DamagedError where its checksum does not match."""
    file.seek(part.offset)
    payload, checksum = file.read(part.length), file.read(4)
    start = part.type.encode("latin-1") + _varint(part.length)
    if struct.pack(">I", zlib.crc32(payload, zlib.crc32(start))) != checksum:
        raise DamagedError(f"a checksum does not match: {_ANOTHER_COPY}")
    return payload


# ---- writing ---------------------------------------------------------------------------------------------------------


def _varint(value: int) -> bytes:
    """Unsigned LEB128: 7 bits a byte, lowest first, the top bit set in all but the last."""
    if not 0 <= value < 1 << 7 * _VARINT_BYTES:
        raise ValueError(f"{value} does not fit {_VARINT_BYTES} bytes")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _chunk(kind: bytes, payload: bytes) -> bytes:
    start = kind + _varint(len(payload))
    return b"".join([start, payload, struct.pack(">I", zlib.crc32(payload, zlib.crc32(start)))])


def _head_payload(header: Header, count: int) -> bytes:
    if isinstance(header.model, str):
        name = header.model.encode()
        model = bytes([0, len(name)]) + name
    else:
        model = bytes([header.model])
    return b"".join(
        [
            bytes([header.version]),
            model,
            header.weights,
            struct.pack(">H", header.quality),
            _varint(header.width),
            _varint(header.height),
            _varint(header.tile),
            bytes([header.grey]),
            _varint(count),
        ]
    )


def _layer_payloads(tiles: list[bytes], layers: list[list[int]]) -> Iterator[bytes]:
    """A layer's piece of every tile, after the lengths of all these pieces but the last."""
    before = [0] * len(tiles)
    for ends in layers:
        if len(ends) != len(tiles) or any(a > b for a, b in zip(before, ends, strict=True)):
            raise ValueError("layers end where they begin or later, once in every tile")
        pieces = [tile[a:b] for tile, a, b in zip(tiles, before, ends, strict=True)]
        yield b"".join([*(_varint(len(piece)) for piece in pieces[:-1]), *pieces])
        before = ends
    if before != [len(tile) for tile in tiles]:
        raise ValueError("the last layer does not end where the tiles do")


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Cursor:
    """Takes bytes and numbers off the front of a buffer; EOFError where it ends first."""

    def __init__(self, view: memoryview, at: int) -> None:
        self.view, self.at = view, at

    def take(self, n: int) -> bytes:
        if n > len(self.view) - self.at:
            raise EOFError
        self.at += n
        return bytes(self.view[self.at - n : self.at])

    def byte(self) -> int:
        return self.take(1)[0]

    def varint(self) -> int:
        value = 0
        for i in range(_VARINT_BYTES):
            byte = self.byte()
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if not byte and i:
                    break
                return value
        raise DamagedError(f"a number is not written as Lichen writes it: {_ANOTHER_COPY}")


def _check_signature(view: memoryview) -> None:
    start = bytes(view[: len(SIGNATURE)])
    if start == SIGNATURE:
        return
    if not start:
        raise DamagedError("the file is empty: get another copy")
    if SIGNATURE.startswith(start):
        raise DamagedError(f"the data ends too early: {_ANOTHER_COPY}")
    if start[:4] in (SIGNATURE[:4], b"\tLIC"):  # line ends converted, or the top bit cut off
        raise DamagedError("the file was changed by a transfer as text: transfer it again, as binary")
    raise NotLichenError("this is no .lichen file: its first bytes are another format's")


def _read_chunk(view: memoryview, at: int) -> tuple[Part, int]:
    """The chunk at `at`, its checksum verified, and where the next begins. EOFError where the data ends within it."""
    cursor = _Cursor(view, at)
    kind = cursor.take(4)
    length = cursor.varint()
    offset = cursor.at
    if length > len(view) - offset - 4:
        raise EOFError
    cursor.at += length
    if struct.unpack(">I", cursor.take(4))[0] != zlib.crc32(view[at : offset + length]):
        raise DamagedError(f"a checksum does not match: {_ANOTHER_COPY}")
    if not (kind[:1].isalpha() and all(c == 0x20 or chr(c).isalnum() for c in kind) and kind.isascii()):
        raise DamagedError(f"a part has no proper name: {_ANOTHER_COPY}")
    return Part(kind.decode("ascii"), offset, length), cursor.at


def _read_head(view: memoryview) -> tuple[Header, int, int]:
    """The header, the number of chunks that follow it, and where the first of them begins."""
    _check_signature(view)
    try:
        return _head_at(view)
    except EOFError:
        raise DamagedError(f"the data ends too early: {_ANOTHER_COPY}") from None


def _head_at(view: memoryview) -> tuple[Header, int, int]:
    part, after = _read_chunk(view, len(SIGNATURE))
    if part.type != "HEAD":
        raise DamagedError(f"the header is not at the front: {_ANOTHER_COPY}")
    cursor = _Cursor(view[: part.offset + part.length], part.offset)
    version = cursor.byte()
    if version > VERSION:
        raise VersionError(f"the file has version {version} of the format, this Lichen reads {VERSION}: upgrade lichen")
    number = cursor.byte()
    name = cursor.take(cursor.byte()) if not number else b""
    weights = cursor.take(8)
    (quality,) = struct.unpack(">H", cursor.take(2))
    width, height, tile = cursor.varint(), cursor.varint(), cursor.varint()
    colour = cursor.byte()
    count = cursor.varint()
    if cursor.at != part.offset + part.length:
        raise DamagedError(f"the header has bytes left over: {_ANOTHER_COPY}")
    if colour > 1:
        raise VersionError(f"the file's colour mode {colour} needs a newer Lichen: upgrade lichen")
    try:
        model = number or name.decode("utf-8")
        header = Header(model, weights, quality, width, height, tile, bool(colour), version)
    except (ValueError, LimitError) as e:
        raise DamagedError(f"the header holds impossible values ({e}): {_ANOTHER_COPY}") from e
    return header, count, after


def _read_chunks(view: memoryview, count: int, at: int, partial: bool) -> Iterator[Part]:
    """The `count` chunks from `at`, which must reach to the end of the data; with `partial` those that are whole."""
    layers = 0
    for _ in range(count):
        try:
            part, at = _read_chunk(view, at)
        except EOFError:
            if not layers:
                raise DamagedError(f"the data ends too early: {_ANOTHER_COPY}") from None
            if partial:
                return
            raise DamagedError(
                f"the data ends too early, after {layers} whole layer{'s' * (layers > 1)}: get another copy, or decode "
                "what is there (--partial)"
            ) from None
        layers += part.type == "LAYR"
        yield part
    if at != len(view):
        raise DamagedError(f"{len(view) - at} bytes follow the end of the file: {_ANOTHER_COPY}")


def _read_layer(view: memoryview, part: Part, tiles: int) -> list[bytes]:
    """A layer's pieces, one a tile."""
    cursor = _Cursor(view[: part.offset + part.length], part.offset)
    try:
        lengths = [cursor.varint() for _ in range(tiles - 1)]  # a claim of too many ends with the payload
        pieces = [cursor.take(n) for n in lengths]
    except EOFError:
        raise DamagedError(f"a layer ends too early: {_ANOTHER_COPY}") from None
    return [*pieces, cursor.take(len(cursor.view) - cursor.at)]


def _payload(view: memoryview, part: Part) -> bytes:
    return bytes(view[part.offset : part.offset + part.length])


# ---- files -----------------------------------------------------------------------------------------------------------


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a .lichen file. NotLichenError where it cannot be read or, before reading on, is another format."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(len(SIGNATURE))
            _check_signature(memoryview(start))
            return start + file.read()
    except (OSError, ValueError) as e:  # ValueError: a path with a NUL in it
        reason = getattr(e, "strerror", None) or e
        raise NotLichenError(f"{os.fspath(path)} cannot be read ({reason}): check the path and permissions") from e
