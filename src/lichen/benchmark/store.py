"""What was measured: one JSON line a codec, version, setting and picture.

A line belongs to the pixels it was measured on, not to a file's name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.errors import LichenError
from lichen.picture import Pixels

Key = tuple[str, str, float, str]
"""Codec, its version, setting, the picture's pixels."""

INFINITE = "inf"  # in the store


class StoreError(LichenError):
    """A store that is something else."""


@dataclass(frozen=True)
class Row:
    """One measurement."""

    codec: str
    version: str
    setting: float
    image: str  # the file's name
    pixels: str  # the first 8 bytes of the SHA-256 of its size and pixels
    width: int
    height: int
    bytes: int  # of the whole file
    bpp: float
    psnr: float  # dB, RGB; infinite where nothing was lost (null in the store)
    ms_ssim: float | None  # None: not measured
    encode_s: float | None  # wall clock, seconds; None: not timed
    decode_s: float | None
    machine: str
    repeats: int = 0  # runs of which the times are the median
    psnr_y: float | None = None  # dB; infinite as psnr, None in rows of earlier versions
    psnr_yuv: float | None = None  # dB, 6:1:1
    encode_mb: float | None = None  # peak memory in 10^6 bytes; None: not measured
    decode_mb: float | None = None

    @property
    def key(self) -> Key:
        """What tells measurements apart."""
        return self.codec, self.version, self.setting, self.pixels

    def to_json(self) -> str:
        """One line."""
        values = dataclasses.asdict(self)
        for name in ("psnr", "psnr_y", "psnr_yuv"):
            if values[name] == math.inf:
                values[name] = INFINITE if name != "psnr" else None
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """ValueError, KeyError or TypeError for what is no row; members that are not known are passed over."""
        values: dict[str, Any] = json.loads(line)
        if values["psnr"] is None:
            values["psnr"] = math.inf
        for name in ("psnr_y", "psnr_yuv"):
            if values.get(name) == INFINITE:
                values[name] = math.inf
        later = {f.name for f in dataclasses.fields(cls) if f.default is not dataclasses.MISSING}
        names = [f.name for f in dataclasses.fields(cls) if f.name in values or f.name not in later]
        return cls(**{name: values[name] for name in names})


class Store:
    """Rows in a file of JSON lines; of rows with the same key the last one counts.

    Lines that are no rows are passed over (`skipped` counts them): the last one is cut short where a machine went down.
    StoreError where the file has lines and none is a row.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: dict[Key, Row] = {}
        self.skipped = 0
        self._cut = False
        if not self.path.exists():
            return
        text = self.path.read_text(encoding="utf-8", errors="replace")
        self._cut = bool(text) and not text.endswith("\n")  # a line without its end
        for line in text.splitlines():
            try:
                row = Row.from_json(line)
            except (ValueError, KeyError, TypeError):
                self.skipped += 1
                continue
            self.rows[row.key] = row
        if self.skipped > self._cut and not self.rows:
            raise StoreError(f"{self.path} is no store of results: give another name")

    def add(self, row: Row) -> None:
        """Keep a row, in memory and on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="\n") as f:
            f.write(("\n" if self._cut else "") + row.to_json() + "\n")
            f.flush()
            os.fsync(f.fileno())
        self._cut = False
        self.rows[row.key] = row


def digest(picture: Pixels) -> str:
    """The first 8 bytes, in hex, of the SHA-256 of a picture's size and pixels."""
    return hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).hexdigest()[:16]
