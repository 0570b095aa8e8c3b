"""Time a pixel and peak memory of pictures from 0.4 to 100 megapixels: the table of docs/scale.md.

    python scripts/scale.py --data DIR [--megapixels 0.4 4 25 100] [--threads N] [--write docs/scale.md]

The pictures are mosaics of the photographs in DIR (the largest of 10,000 x 10,000 pixels), kept as PNG in a temporary
folder. Every measurement is a fresh process that first encodes and decodes a small picture, so that weights and tables
are there; then it times one call: `lichen.encode` of the PNG file, `lichen.decode_picture` of the whole, or of a box of
512x512 pixels in the middle. Peak memory is the whole resident set, Python and torch (some 300 MB) included.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pages
from PIL import Image

import lichen
from lichen.codec import decode_picture, read

BOX = 512


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, metavar="DIR", help="photographs, in any folders below")
    p.add_argument("--megapixels", type=float, nargs="+", default=[0.4, 4, 25, 100], metavar="N")
    p.add_argument("--threads", type=int, default=os.cpu_count(), metavar="N")
    p.add_argument("--repeats", type=int, default=3, metavar="N", help="best of N for what takes less than ten seconds")
    p.add_argument("--write", type=Path, metavar="FILE", help="put the table between the markers of this page")
    p.add_argument("--child", nargs=3, metavar=("WHAT", "FILE", "FILE"), help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.child:
        return child(*args.child, args.threads, args.repeats)
    if args.data is None:
        p.error("--data is needed")
    photographs = sorted(f for f in args.data.rglob("*") if f.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp"))
    if not photographs:
        p.error(f"no photographs in {args.data}")
    rows = [
        "| megapixels | | tiles | s | us a pixel | against the first | peak memory |",
        "|---|---|---|---|---|---|---|",
    ]
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for megapixels in args.megapixels:
            png, coded = Path(folder) / "mosaic.png", Path(folder) / "mosaic.lichen"
            side = mosaic(photographs, megapixels, png)
            for what in ("encode", "decode", "crop"):
                found = measured(what, png, coded, args.threads, args.repeats)
                micro = 1e6 * found["seconds"] / (BOX**2 if what == "crop" else side[0] * side[1])
                first.setdefault(what, micro)
                rows.append(
                    f"| {megapixels:g} ({side[0]} x {side[1]}) | {what} | {found['tiles']} | {found['seconds']:.2f} | "
                    f"{micro:.3f} | {micro / first[what]:.2f} | {found['peak'] / 1e6:.0f} MB |"
                )
                print(rows[-1], flush=True)
    table = "\n".join(rows)
    print(table)
    if args.write:
        pages.write(args.write, "scale", table, "scale.py")
    return 0


def mosaic(photographs: list[Path], megapixels: float, out: Path) -> tuple[int, int]:
    """Write photographs side by side, row by row, 3:2 below 50 megapixels and square above; (width, height)."""
    ratio = 1.5 if megapixels < 50 else 1.0
    height = round(math.sqrt(megapixels * 1e6 / ratio))
    width = round(megapixels * 1e6 / height)
    pixels = np.empty((height, width, 3), np.uint8)
    turn, top = 0, 0
    while top < height:
        left, tall = 0, height - top
        while left < width:
            with Image.open(photographs[turn % len(photographs)]) as image:
                photo = np.asarray(image.convert("RGB"))[: height - top, : width - left]
            turn += 1
            tall = min(tall, photo.shape[0])
            pixels[top : top + tall, left : left + photo.shape[1]] = photo[:tall]
            left += photo.shape[1]
        top += tall
    Image.fromarray(pixels).save(out, compress_level=1)
    return width, height


def measured(what: str, png: Path, coded: Path, threads: int, repeats: int) -> dict[str, float]:
    """What a child measured."""
    line = [sys.executable, __file__, "--threads", str(threads), "--repeats", str(repeats), "--child", what]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run([*line, str(png), str(coded)], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(what: str, png: str, coded: str, threads: int, repeats: int) -> int:
    import torch

    torch.set_num_threads(threads)
    small = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    lichen.decode(lichen.encode(small))
    best = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        if what == "encode":
            data = lichen.encode(png)
        else:
            file = Path(coded)
            header = read(file).header
            left, top = (header.width - BOX) // 2, (header.height - BOX) // 2
            decode_picture(file, box=(left, top, left + BOX, top + BOX) if what == "crop" else None)
        best = min(best, time.perf_counter() - start)
        if best > 10:
            break
    if what == "encode":
        Path(coded).write_bytes(data)
    print(json.dumps({"seconds": best, "peak": peak(), "tiles": len(read(Path(coded)).tiles)}))
    return 0


def peak() -> int:
    """Bytes of the resident set at its largest."""
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


if __name__ == "__main__":
    raise SystemExit(main())
