"""Training pictures: found, decoded once to a memory-mapped file of uint8, and cropped at random.

Every tenth picture in sorted order is held out for validation. A crop depends on (seed, process, step) alone, so a
training that stops and resumes sees the crops that it would have seen.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lichen.errors import LichenError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"}
HOLD_OUT_EVERY = 10
HARD_EVERY = 16

Pixels = npt.NDArray[np.uint8]


class DataError(LichenError):
    """A folder of training pictures that cannot be trained on."""


def find_pictures(folders: Sequence[str | Path]) -> list[Path]:
    """All files with a picture's suffix below the folders, sorted. DataError where a folder is missing or has none."""
    found: list[Path] = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder: give --data a folder with pictures")
        here = [p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES]
        if not here:
            raise DataError(f"{folder} has no pictures: Lichen looks for {', '.join(sorted(SUFFIXES))}")
        found += here
    return sorted(found)


@dataclass(frozen=True)
class Pictures:
    """Decoded pictures, (H, W, 3) uint8 each, backed by one memory-mapped file."""

    training: list[Pixels]
    held_out: list[Pixels]


def load_pictures(folders: Sequence[str | Path], cache: Path, crop: int) -> Pictures:
    """Decode every picture once into `cache` (reused when the same files are asked for again) and map it.

    Raises DataError for a picture that cannot be read, is smaller than `crop` on a side, or for fewer than two.
    """
    paths = find_pictures(folders)
    if len(paths) < 2:
        raise DataError(f"one picture is not enough: one is held out for validation; found {paths}")
    stamp = "\n".join(f"{p.resolve()} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths)
    name = hashlib.sha256(stamp.encode()).hexdigest()[:16]
    pixels, index = cache / f"{name}.u8", cache / f"{name}.json"
    if not index.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = pixels.with_suffix(f".{os.getpid()}.part")
        places: list[tuple[int, int, int]] = []
        try:
            with part.open("wb") as f:
                for path in paths:
                    try:
                        with Image.open(path) as im:
                            v = np.asarray(im.convert("RGB"))
                    except (OSError, UnidentifiedImageError, ValueError) as e:
                        raise DataError(f"{path} cannot be read ({e}): mend it or take it out of the folder") from e
                    places.append((f.tell(), v.shape[0], v.shape[1]))
                    f.write(v.tobytes())
            part.replace(pixels)
        finally:
            part.unlink(missing_ok=True)
        index_part = index.with_suffix(f".{os.getpid()}.part")
        index_part.write_text(json.dumps(places))
        index_part.replace(index)
    flat = np.memmap(pixels, np.uint8, "r")
    pictures = [flat[o : o + h * w * 3].reshape(h, w, 3) for o, h, w in json.loads(index.read_text())]
    for path, v in zip(paths, pictures, strict=True):
        if min(v.shape[:2]) < crop:
            raise DataError(
                f"{path} is {v.shape[1]}x{v.shape[0]}, smaller than a crop of {crop}: take it out, or --crop less"
            )
    every = min(HOLD_OUT_EVERY, len(pictures))
    return Pictures(
        [v for i, v in enumerate(pictures) if i % every != every - 1],
        [v for i, v in enumerate(pictures) if i % every == every - 1],
    )


def _harden(crop: Pixels, rng: np.random.Generator) -> Pixels:
    """More contrast, channels in another order, noise: (S, S, 3) -> (S, S, 3).

    What drawings, screenshots and grain have and clean photographs lack; without it a network does badly on them.
    """
    v = crop.astype(np.float32)
    v = (v - v.mean((0, 1))) * rng.uniform(1, 1.6) + rng.uniform(96, 160)
    v = v[..., rng.permutation(3)]
    noise = rng.normal(0, 32 * rng.random() ** 2, (*v.shape[:2], rng.choice([1, 3])))
    return np.clip(np.rint(v + noise), 0, 255).astype(np.uint8)


def random_crops(
    pictures: Sequence[Pixels], count: int, size: int, seed: Sequence[int], *, places: int = 2, harden: bool = False
) -> Tensor:
    """(count, 3, size, size) in 0..1: random crops, flipped and transposed at random.

    A picture is drawn by the square root of its area; of `places` random places in it the one with most detail is
    kept, so that skies do not dominate. One crop in `HARD_EVERY` is made harder than photographs are (`_harden`).
    """
    rng = np.random.default_rng(seed)
    weight = np.sqrt([float(p.shape[0] * p.shape[1]) for p in pictures])
    weight /= weight.sum()
    out = np.empty((count, size, size, 3), np.uint8)
    for k in range(count):
        picture = pictures[rng.choice(len(pictures), p=weight)]
        best, kept = -1.0, picture[:size, :size]
        for _ in range(places):
            i = rng.integers(0, picture.shape[0] - size + 1)
            j = rng.integers(0, picture.shape[1] - size + 1)
            crop = picture[i : i + size, j : j + size]
            detail = float(np.abs(np.diff(crop[::4, ::4, 1].astype(np.int16), axis=0)).mean())
            if detail > best:
                best, kept = detail, crop
        if rng.random() < 0.5:
            kept = kept[:, ::-1]
        if rng.random() < 0.5:
            kept = kept.transpose(1, 0, 2)
        out[k] = _harden(kept, rng) if harden and rng.random() < 1 / HARD_EVERY else kept
    return torch.from_numpy(out).permute(0, 3, 1, 2).float() / 255
