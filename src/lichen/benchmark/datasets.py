"""Pictures to measure on. Nothing is downloaded: what is missing is named with the page that has it.

Test sets are for measuring alone; nothing is ever trained or tuned on them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
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
    number: int | None  # of pictures; None where we do not know it for sure
    size: str  # of the pictures, in words
    pattern: str  # of the files' names, as a glob
    sums: tuple[str, ...] = ()  # "NAME:first 8 bytes of its SHA-256 in hex", where known


_KODAK_SUMS = """
    a56e27cbf5f843c0 4f4b74a79237e311 e25ca1ff2f0c0cb5 e3b946107c5d3441 10349e963c5c813d
    363510303b715d4c b77d3f006f42414b ba23983c76b4832e 6a4361c2fc194feb 9dfb70f5867c29ff
    7936814b58b5387f d78c37c2f04f2376 bc34a3ce58dea09d 55a94550ff18f324 7538cbb80cb91036
    a89c7268ccd4718b 37afcc89fbdcb76d 1a9258c365988961 b7450b264b1b0a41 3b46c71e3b92a563
    ac958597c82073f6 1cee58eb1f2d9c7e e3111a2fd4da24af 1071c68372cc5a01
"""

DATASETS = {
    d.name: d
    for d in (
        Dataset(
            "kodak",
            "the Kodak lossless true colour suite",
            "https://r0k.us/graphics/kodak/",
            24,
            "768x512 or 512x768",
            "kodim[0-2][0-9].png",
            tuple(f"kodim{i:02}.png:{s}" for i, s in enumerate(_KODAK_SUMS.split(), 1)),
        ),
        Dataset(
            "tecnick",
            "Tecnick TESTIMAGES, SAMPLING, RGB, original size, 8 bits",
            "https://testimages.org/sampling/",
            40,
            "1200x1200",
            "*.png",
        ),
        Dataset(
            "clic2019-professional",
            "CLIC 2019 professional, validation",
            "https://clic.compression.cc/",
            41,
            "up to 2048 pixels a side",
            "*.png",
        ),
        Dataset(
            "clic2019-mobile",
            "CLIC 2019 mobile, validation",
            "https://clic.compression.cc/",
            61,
            "up to 2048 pixels a side",
            "*.png",
        ),
        Dataset(
            "clic2020-professional",
            "CLIC 2020 professional, test",
            "https://clic.compression.cc/",
            250,
            "up to 2048 pixels a side",
            "*.png",
        ),
        Dataset(
            "clic2020-mobile",
            "CLIC 2020 mobile, test",
            "https://clic.compression.cc/",
            178,
            "up to 2048 pixels a side",
            "*.png",
        ),
        Dataset(
            "liu4k",
            "LIU4K, test",
            "https://structpku.github.io/LIU4K_Dataset/LIU4K_v2.html",
            None,
            "3840x2160 and near it",
            "*.png",
        ),
    )
}
"""By name. CLIC's numbers of files are those of papers that report on it; its page has moved more than once."""


def find(name: str, data: str | Path | None = None) -> list[Path]:
    """The files of a known set, sorted by name.

    data: the folder that has the pictures, or a folder NAME of them; by default what the environment's LICHEN_DATA
    says. DataError, with what to do, where files are missing or the set is not known.
    """
    if name not in DATASETS:
        raise DataError(
            f"no data set is called {name}: Lichen knows {', '.join(DATASETS)}; or give a folder of pictures"
        )
    dataset = DATASETS[name]
    root = data or os.environ.get(VARIABLE)
    get_it = f"get {dataset.title}, {dataset.number or 'all'} pictures of {dataset.size}, from {dataset.page}"
    if not root:
        raise DataError(f"nobody says where {name} is: {get_it}, and give its folder or set {VARIABLE} to it")
    folders = [Path(root) / name, Path(root)]
    if dataset.pattern == "*.png" and Path(root).name != name:
        folders.pop()  # any folder of pictures would do
    for folder in folders:
        files = sorted(folder.glob(dataset.pattern))
        if files and dataset.number in (None, len(files)):
            return files
        if files:
            raise DataError(
                f"{folder} has {len(files)} of {dataset.number} pictures {dataset.pattern}: {get_it}, "
                "and put all of them there"
            )
    raise DataError(f"{name} is not in {root}: {get_it}, and put the pictures {dataset.pattern} into {folders[0]}")


def others(name: str, files: Iterable[Path]) -> list[Path]:
    """Those of a known set's files that are not the ones we know; empty where nothing is known of them."""
    sums = dict(pair.split(":") for pair in DATASETS[name].sums)
    return [f for f in files if f.name in sums and hashlib.sha256(f.read_bytes()).hexdigest()[:16] != sums[f.name]]


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
    found = picture.to_8_bits(picture.load(path).pixels)
    return np.repeat(found[..., None], 3, axis=2) if found.ndim == 2 else found
