"""Training pictures: found, decoded once to a memory-mapped file of uint8, cropped at random ahead of the steps.

Every tenth picture in sorted order is held out for validation. A crop depends on (seed, process, step) alone, so a
training that stops and resumes sees the crops that it would have seen.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from lichen.errors import LichenError
from lichen.picture import load, to_8_bits

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"}
HOLD_OUT_EVERY = 10
ANNOUNCED = 20e6  # pixels whose decoding takes long enough to say so

Pixels = npt.NDArray[np.uint8]
PIXEL = np.dtype("V3")


class DataError(LichenError):
    """A folder of training pictures that cannot be trained on."""


def find_pictures(folders: Sequence[str | Path]) -> list[Path]:
    """All files with a picture's suffix below the folders, sorted. DataError where a folder is missing or has none."""
    found: set[Path] = set()
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder: give --data a folder with pictures")
        here = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file()]
        if not here:
            raise DataError(f"{folder} has no pictures: Lichen looks for {', '.join(sorted(SUFFIXES))}")
        found.update(here)
    return sorted(found)


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures, (H, W, 3) uint8 each, backed by one memory-mapped file."""

    training: list[Pixels]
    held_out: list[Pixels]
    identity: str = ""  # of their number, order and sizes


def load_pictures(
    folders: Sequence[str | Path], cache: Path, crop: int, say: Callable[[str], None] = lambda _: None
) -> Pictures:
    """Decode every picture once into `cache` (reused when the same files are asked for again) and map it.

    Raises DataError for pictures that cannot be read or are smaller than `crop` on a side, before any is decoded as far
    as their headers tell, and for fewer than two. `say` gets a line where decoding takes a while.
    """
    paths = find_pictures(folders)
    if len(paths) < 2:
        raise DataError(f"one picture is not enough: one is held out for validation; found {paths[0]} alone")
    stamp = "\n".join(f"{p.resolve()} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths)
    name = hashlib.sha256(stamp.encode()).hexdigest()[:16]
    pixels, index = cache / f"{name}.u8", cache / f"{name}.json"
    if not (index.exists() and pixels.exists()):
        sizes = _read_headers(paths)
        _check_sizes(paths, sizes, crop)
        total = sum(w * h for w, h in sizes)
        if total > ANNOUNCED:
            say(f"decoding {len(paths)} pictures, {total / 1e6:.0f} megapixels, into {cache}: once for these files")
        try:
            cache.mkdir(parents=True, exist_ok=True)
            _decode_all(paths, pixels, index)
        except OSError as e:
            raise DataError(f"{cache} cannot hold the decoded pictures ({e}): give another folder with --cache") from e
    listed = index.read_text()
    places = json.loads(listed)
    flat = np.memmap(pixels, np.uint8, "r")
    pictures = [flat[o : o + h * w * 3].reshape(h, w, 3) for o, h, w in places]
    _check_sizes(paths, [(w, h) for _, h, w in places], crop)
    every = min(HOLD_OUT_EVERY, len(pictures))
    return Pictures(
        [v for i, v in enumerate(pictures) if i % every != every - 1],
        [v for i, v in enumerate(pictures) if i % every == every - 1],
        hashlib.sha256(listed.encode()).hexdigest()[:16],
    )


def _read_headers(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """(width, height) of each."""
    sizes, broken = [], []
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.append(image.size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as e:
            broken.append(f"{path} ({e})")
    if broken:
        raise DataError(f"{_some(broken, len(paths))} cannot be read: mend them or take them out of the folder")
    return sizes


def _check_sizes(paths: Sequence[Path], sizes: Sequence[tuple[int, int]], crop: int) -> None:
    small = [f"{p} ({w}x{h})" for p, (w, h) in zip(paths, sizes, strict=True) if min(w, h) < crop]
    if small:
        raise DataError(
            f"{_some(small, len(paths))} are smaller than a crop of {crop}x{crop}: take them out, or give less (--crop)"
        )


def _some(names: Sequence[str], among: int) -> str:
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} of {among} pictures, {shown},"


def _decode_all(paths: Sequence[Path], pixels: Path, index: Path) -> None:
    """Write all pixels one after another to `pixels`, and [[offset, height, width], ...] to `index`."""
    part = pixels.with_suffix(f".{os.getpid()}.part")
    places: list[tuple[int, int, int]] = []
    try:
        threads = min(8, os.cpu_count() or 1)
        with part.open("wb") as f, ThreadPoolExecutor(threads) as pool:
            for first in range(0, len(paths), threads):  # so many are in memory at once
                for v in pool.map(_decode, paths[first : first + threads]):
                    places.append((f.tell(), v.shape[0], v.shape[1]))
                    f.write(v.tobytes())
        part.replace(pixels)
    finally:
        part.unlink(missing_ok=True)
    index_part = index.with_suffix(f".{os.getpid()}.part")
    index_part.write_text(json.dumps(places))
    index_part.replace(index)


def _decode(path: Path) -> Pixels:
    """(H, W, 3), by the rules of docs/pictures.md; alpha is left out."""
    try:
        v = to_8_bits(load(path).pixels)
    except LichenError as e:
        raise DataError(f"mend {path} or take it out of the folder: {e}") from e
    return v if v.ndim == 3 else np.repeat(v[..., None], 3, axis=2)


def _harden(crop: Pixels, rng: np.random.Generator) -> Pixels:
    """More contrast, channels in another order, noise: (S, S, 3) -> (S, S, 3).

    What drawings, screenshots and grain have and clean photographs lack; without it a network does badly on them.
    """
    v = crop.astype(np.float32)
    v = (v - v.mean((0, 1))) * rng.uniform(1, 1.6) + rng.uniform(96, 160)
    v = v[..., rng.permutation(3)]
    noise = rng.normal(0, 32 * rng.random() ** 2, (*v.shape[:2], rng.choice([1, 3])))
    return np.clip(np.rint(v + noise), 0, 255).astype(np.uint8)


class Crops:
    """Random crops of pictures, flipped and transposed at random.

    A picture is drawn by the square root of its area; of a few random places in it the one with most detail is kept, so
    that skies do not dominate.
    """

    def __init__(self, pictures: Sequence[Pixels]) -> None:
        self.pictures = pictures
        cumulative = np.cumsum(np.sqrt([float(p.shape[0] * p.shape[1]) for p in pictures]))
        self.cumulative = cumulative / cumulative[-1]

    def draw(
        self,
        count: int,
        size: int,
        seed: Sequence[int],
        *,
        places: int = 2,
        rescale: float = 1.0,
        hard_every: int = 0,
    ) -> Pixels:
        """(count, size, size, 3). `rescale` above 1: from regions up to so many times larger, made smaller.

        One crop in `hard_every` is made harder than photographs are (`_harden`), none for 0.
        """
        rng = np.random.default_rng(seed)
        out = np.empty((count, size, size, 3), np.uint8)
        for k in range(count):
            picture = self.pictures[int(self.cumulative.searchsorted(rng.random(), side="right"))]
            side = size
            if rescale > 1:
                side = min(round(size * rescale ** rng.random()), *picture.shape[:2])
            best, kept = -1.0, picture[:side, :side]
            for _ in range(places):
                i = rng.integers(0, picture.shape[0] - side + 1)
                j = rng.integers(0, picture.shape[1] - side + 1)
                crop = picture[i : i + side, j : j + side]
                detail = float(np.abs(np.diff(crop[::4, ::4, 1].astype(np.int16), axis=0)).mean())
                if detail > best:
                    best, kept = detail, crop
            if side != size:
                kept = np.asarray(Image.fromarray(kept).resize((size, size), Image.Resampling.LANCZOS))
            pixels = kept.view(PIXEL)[..., 0]  # three bytes at once turn twice as fast
            if rng.random() < 0.5:
                pixels = pixels[:, ::-1]
            if rng.random() < 0.5:
                pixels = pixels.T
            out[k].view(PIXEL)[..., 0] = pixels
            if hard_every and rng.random() < 1 / hard_every:
                out[k] = _harden(out[k], rng)
        return out


def to_floats(crops: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) in 0..1, channels last in memory."""
    return crops.permute(0, 3, 1, 2).float() / 255


def random_crops(pictures: Sequence[Pixels], count: int, size: int, seed: Sequence[int], *, places: int = 2) -> Tensor:
    """`Crops.draw` as (count, 3, size, size) in 0..1."""
    return to_floats(torch.from_numpy(Crops(pictures).draw(count, size, seed, places=places)))


class Loader:
    """Batches of consecutive steps, made by threads a few steps ahead. `waited`: seconds that `next` has blocked."""

    def __init__(self, make: Callable[[int], Pixels], steps: Iterable[int], threads: int, pin: bool = False) -> None:
        """make: step -> batch. pin: in memory from which a GPU can fetch."""
        self.make, self.steps, self.pin = make, iter(steps), pin
        self.pool = ThreadPoolExecutor(threads, "crops")
        self.waited = 0.0
        self.ahead: deque[Future[Tensor]] = deque()
        for _ in range(2 * threads):
            self._order()

    def _order(self) -> None:
        step = next(self.steps, None)
        if step is not None:
            self.ahead.append(self.pool.submit(self._made, step))

    def _made(self, step: int) -> Tensor:
        batch = torch.from_numpy(self.make(step))
        return batch.pin_memory() if self.pin else batch

    def next(self) -> Tensor:
        """The next step's batch."""
        began = time.perf_counter()
        batch = self.ahead.popleft().result()
        self.waited += time.perf_counter() - began
        self._order()
        return batch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.shutdown(cancel_futures=True)
