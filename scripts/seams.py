"""Do tiles show? A photograph as one tile and as many: bytes, PSNR near the seams, and a picture of the difference.

    python scripts/seams.py PICTURE [--tile 4] [--qualities 10 50 90] [--difference FILE] [--write docs/scale.md]

The band has 16 pixels along all seams. The difference between the two decoded pictures is shown at 8 times its size
around grey, at the first quality.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pages
from PIL import Image

import lichen


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("picture", type=Path)
    p.add_argument("--tile", type=int, default=4, metavar="N", help="side in units of 64 pixels (default: 4)")
    p.add_argument("--qualities", type=float, nargs="+", default=[10, 50, 90], metavar="Q")
    p.add_argument("--difference", type=Path, metavar="FILE", help="picture to write")
    p.add_argument("--write", type=Path, metavar="FILE", help="put the table between the markers of this page")
    args = p.parse_args()
    pixels = np.asarray(Image.open(args.picture).convert("RGB"))
    height, width = pixels.shape[:2]
    side = 64 * args.tile
    band = np.zeros((height, width), bool)
    for top in range(side, height, side):
        band[top - 8 : top + 8] = True
    for left in range(side, width, side):
        band[:, left - 8 : left + 8] = True
    everywhere = np.ones_like(band)
    rows = [
        "| quality | bytes, one tile | many | | near the seams, dB, one tile | many | everywhere, one tile | many |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for k, quality in enumerate(args.qualities):
        files = [lichen.encode(pixels, quality, tile=tile) for tile in (0, args.tile)]
        one, many = (np.asarray(lichen.decode(data), np.float32) for data in files)
        sizes = [len(data) for data in files]
        dB = [f"{psnr(v - pixels, where):.3f}" for where in (band, everywhere) for v in (one, many)]
        rows.append(
            f"| {quality:g} | {sizes[0]} | {sizes[1]} | {100 * (sizes[1] / sizes[0] - 1):+.1f} % | "
            + " | ".join(dB)
            + " |"
        )
        if args.difference and not k:
            Image.fromarray(np.clip(128 + 8 * (many - one), 0, 255).astype(np.uint8)).save(args.difference)
    print("\n".join(rows))
    if args.write:
        pages.write(args.write, "seams", "\n".join(rows), "seams.py")
    return 0


def psnr(error: np.ndarray, where: np.ndarray) -> float:
    """In dB over 8-bit values, of the pixels that are marked."""
    return float(10 * np.log10(255**2 / np.square(error[where]).mean()))


if __name__ == "__main__":
    raise SystemExit(main())
