"""Measure what is new and keep it: one JSON line a codec, version, setting and picture.

A line is written to the disk as soon as it is measured, so that a stop of any kind loses at most the measurement under
way, and the next run goes on from there. A line belongs to the pixels it was measured on, not to a file's name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lichen.benchmark import metrics
from lichen.benchmark.codecs import Codec
from lichen.benchmark.datasets import pixels
from lichen.errors import LichenError
from lichen.picture import Pixels

Key = tuple[str, str, float, str]
"""Codec, its version, setting, the picture's pixels."""


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
    encode_s: float  # wall clock, measured once
    decode_s: float
    machine: str

    @property
    def key(self) -> Key:
        """What tells measurements apart."""
        return self.codec, self.version, self.setting, self.pixels

    def to_json(self) -> str:
        """One line."""
        values = dataclasses.asdict(self)
        if math.isinf(self.psnr):
            values["psnr"] = None
        return json.dumps(values, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """ValueError, KeyError or TypeError for what is no row; members that are not known are passed over."""
        values: dict[str, Any] = json.loads(line)
        if values["psnr"] is None:
            values["psnr"] = math.inf
        return cls(**{f.name: values[f.name] for f in dataclasses.fields(cls)})


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


def measure(
    codecs: Sequence[Codec],
    pictures: Sequence[str | Path],
    store: Store,
    *,
    ms_ssim: bool = False,
    again: Collection[str] = (),
    console: Console | None = None,
) -> list[Row]:
    """Rows of all codecs at all their settings on all pictures; what `store` has already is not measured again.

    ms_ssim: measure it too. again: names of codecs to measure whatever the store has. console: where a progress bar
    goes, by default standard error if it is a terminal. After Ctrl-C, which raises
    KeyboardInterrupt as ever, the store has all that was measured.
    """
    digests = [digest(pixels(p)) for p in pictures]
    jobs: list[list[tuple[Codec, Key]]] = []
    for d in digests:
        keys = [(c, (c.name, c.version, float(s), d)) for c in codecs for s in c.settings]
        jobs.append([(c, k) for c, k in keys if c.name in again or _lacks(store, k, ms_ssim)])
    with progress_bar(sum(map(len, jobs)), console) as step:
        for path, todo in zip(pictures, jobs, strict=True):
            picture = pixels(path) if todo else None
            for codec, key in todo:
                assert picture is not None
                step(f"{codec.name} {key[2]:g} {Path(path).name}")
                store.add(_measure(codec, key, Path(path).name, picture, ms_ssim))
    return [store.rows[c.name, c.version, float(s), d] for d in digests for c in codecs for s in c.settings]


def _lacks(store: Store, key: Key, ms_ssim: bool) -> bool:
    row = store.rows.get(key)
    return row is None or (ms_ssim and row.ms_ssim is None)


def _measure(codec: Codec, key: Key, image: str, picture: Pixels, ms_ssim: bool) -> Row:
    start = time.perf_counter()
    data = codec.encode(picture, key[2])
    encoded = time.perf_counter()
    decoded = codec.decode(data)
    end = time.perf_counter()
    return Row(
        *key[:3],
        image=image,
        pixels=key[3],
        width=picture.shape[1],
        height=picture.shape[0],
        bytes=len(data),
        bpp=metrics.bpp(data, picture),
        psnr=metrics.psnr(picture, decoded),
        ms_ssim=metrics.ms_ssim(picture, decoded) if ms_ssim else None,
        encode_s=encoded - start,
        decode_s=end - encoded,
        machine=machine(),
    )


def digest(picture: Pixels) -> str:
    """The first 8 bytes, in hex, of the SHA-256 of a picture's size and pixels."""
    return hashlib.sha256(str(picture.shape).encode() + picture.tobytes()).hexdigest()[:16]


def machine() -> str:
    """Of what kind this machine is: system, processor and number of cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


@contextlib.contextmanager
def progress_bar(total: int, console: Console | None = None) -> Iterator[Any]:
    """A bar with the time left on a terminal, nothing elsewhere. Gives a function to call as each step begins."""
    console = console or Console(stderr=True)
    columns = (
        BarColumn(30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, disable=not (total and console.is_terminal)) as progress:
        task = progress.add_task("", total=total)
        begun = 0

        def step(description: str) -> None:
            nonlocal begun
            progress.update(task, completed=begun, description=description)
            begun += 1

        yield step
        progress.update(task, completed=total, description="")
