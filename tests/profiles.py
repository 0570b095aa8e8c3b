"""Profiles of CMYK, small enough for tests: ICC.1:2022, a table of two points an ink (mft1, 10.11)."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable

Lab = tuple[float, float, float]

PRINT: dict[tuple[int, int, int], Lab] = {  # offset printing on coated paper, about as ISO 12647-2 aims at
    (0, 0, 0): (95, 0, -2),
    (1, 0, 0): (55, -37, -50),
    (0, 1, 0): (48, 74, -3),
    (0, 0, 1): (89, -5, 93),
    (0, 1, 1): (47, 68, 48),
    (1, 0, 1): (50, -68, 33),
    (1, 1, 0): (24, 22, -46),
    (1, 1, 1): (23, 0, 0),
}


def printed_inks(c: int, m: int, y: int, k: int) -> Lab:
    """L*a*b* of inks that overprint wholly."""
    return (12, 0, 0) if k else PRINT[c, m, y]


def grey_inks(c: int, m: int, y: int, k: int) -> Lab:
    """Of inks that are all grey, as no formula would have it."""
    return 100 * max(0.0, 1 - 0.3 * c - 0.5 * m - 0.1 * y) * (1 - k), 0, 0


def cmyk_profile(inks: Callable[[int, int, int, int], Lab]) -> bytes:
    """From CMYK to Lab, straight between the 16 corners; there is no way back in it."""
    corners = b"".join(
        bytes([round(2.55 * L), round(a) + 128, round(b) + 128])
        for L, a, b in itertools.starmap(inks, itertools.product((0, 1), repeat=4))
    )
    identity = bytes(range(256))
    matrix = struct.pack(">9i", *(0x10000 if i % 4 == 0 else 0 for i in range(9)))
    a2b = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + corners + identity * 3
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(8 + 3 + 67)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    text = b"text\0\0\0\0none\0"
    tags = [(b"desc", description), (b"wtpt", white), (b"cprt", text), (b"A2B0", a2b)]
    at, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags:
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    body = struct.pack(">I", len(tags)) + table + body
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + body
