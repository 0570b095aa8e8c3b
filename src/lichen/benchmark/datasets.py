"""Pictures to measure on. Nothing is downloaded: what is missing is named with the page that has it.

Test sets are for measuring alone; nothing is ever trained or tuned on them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lichen import picture
from lichen.errors import LichenError
from lichen.picture import Pixels

VARIABLE = "LICHEN_DATA"
"""The environment's variable that names the folder of data sets."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm"})


class DataError(LichenError):
    """Pictures that are not where they were looked for."""


@dataclass(frozen=True)
class Dataset:
    """A known set of pictures."""

    name: str
    title: str
    page: str  # where to get it
    files: tuple[str, ...]


DATASETS = {
    d.name: d
    for d in (
        Dataset(
            "kodak",
            "the Kodak lossless true colour suite, 24 pictures of 768x512 or 512x768",
            "https://r0k.us/graphics/kodak/",
            tuple(f"kodim{i:02}.png" for i in range(1, 25)),
        ),
    )
}


def find(name: str, data: str | Path | None = None) -> list[Path]:
    """The files of a known set, in its order.

    data: the folder that has the pictures, or a folder NAME of them; by default what the environment's LICHEN_DATA
    says. DataError, with what to do, where a file is missing or the set is not known.
    """
    if name not in DATASETS:
        raise DataError(
            f"no data set is called {name}: Lichen knows {', '.join(DATASETS)}; or give a folder of pictures"
        )
    dataset = DATASETS[name]
    root = data or os.environ.get(VARIABLE)
    get_it = f"get {dataset.title}, from {dataset.page}"
    if not root:
        raise DataError(f"nobody says where {name} is: {get_it}, and give its folder or set {VARIABLE} to it")
    folders = [Path(root) / name, Path(root)]
    for folder in folders:
        files = [folder / f for f in dataset.files]
        missing = [f.name for f in files if not f.is_file()]
        if not missing:
            return files
        if len(missing) < len(files):
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise DataError(f"{folder} lacks {', '.join(missing[:3])}{more}: {get_it}, and put them there")
    raise DataError(f"{name} is not in {root}: {get_it}, and put {dataset.files[0]} and the others into {folders[0]}")


def folder(path: str | Path) -> list[Path]:
    """All pictures of a folder, sorted by name. DataError where there are none."""
    root = Path(path)
    if not root.is_dir():
        raise DataError(f"{root} is no folder: give one with pictures")
    files = sorted(f for f in root.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise DataError(f"{root} has no pictures ({', '.join(sorted(SUFFIXES))}): give another folder")
    return files


def pixels(path: str | Path) -> Pixels:
    """A picture as uint8 RGB (H, W, 3): upright, no transparency, grey three times.

    Raises PictureError and LimitError as `lichen.picture.load`.
    """
    found = picture.load(path).pixels
    return np.repeat(found[..., None], 3, axis=2) if found.ndim == 2 else found
