"""Do targets hit? Every picture of a folder at three sizes, three rates and three PSNRs, by real files.

    python scripts/targets.py --data DIR [--write docs/scale.md]

Values are spread between what a picture has at quality 5 and at quality 95. Prints, for each kind of target, the worst
miss, whether any file was too large, and how many files the search wrote until it was content.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pages
from PIL import Image
from rich.progress import track

import lichen
from lichen import codec
from lichen.benchmark import metrics
from lichen.models.weights import load

SHARES = (0.2, 0.5, 0.8)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, metavar="DIR")
    p.add_argument("--write", type=Path, metavar="FILE", help="put the table between the markers of this page")
    args = p.parse_args()
    files = sorted(args.data.glob("*.png"))
    if not files:
        p.error(f"no pictures in {args.data}")
    tries = 0
    whole = codec._encode

    def counted(*given: object) -> bytes:
        nonlocal tries
        tries += 1
        return whole(*given)  # type: ignore[arg-type]

    codec._encode = counted  # type: ignore[assignment]
    misses: dict[str, list[float]] = {"bytes": [], "bpp": [], "psnr": []}
    searches: dict[str, list[int]] = {"bytes": [], "bpp": [], "psnr": []}
    for file in track(files, "targets"):
        pixels = np.asarray(Image.open(file).convert("RGB"))
        low, high = (lichen.encode(pixels, q) for q in (5, 95))
        for share in SHARES:
            size = round(len(low) ** (1 - share) * len(high) ** share)
            dB = (1 - share) * psnr(low, pixels) + share * psnr(high, pixels)
            for kind, value in (("bytes", size), ("bpp", 8 * size / pixels[..., 0].size), ("psnr", dB)):
                tries = 0
                data = lichen.encode(pixels, **{f"target_{kind}": value})
                searches[kind].append(tries)
                misses[kind].append(psnr(data, pixels) - value if kind == "psnr" else len(data) / size - 1)
    rows = ["| target | searches | worst miss | too large | files written, mean and most |", "|---|---|---|---|---|"]
    for kind, found in misses.items():
        worst = max(found, key=abs)
        unit, large = (
            (f"{worst:+.3f} dB", "-") if kind == "psnr" else (f"{100 * worst:+.2f} %", sum(v > 0 for v in found))
        )
        count = searches[kind]
        rows.append(f"| {kind} | {len(found)} | {unit} | {large} | {np.mean(count):.1f}, {max(count)} |")
    print("\n".join(rows))
    if args.write:
        pages.write(args.write, "targets", "\n".join(rows), "targets.py")
    return 0


def psnr(data: bytes, pixels: np.ndarray) -> float:
    """Of a file, in dB."""
    return metrics.psnr(pixels, np.asarray(lichen.decode(data)))


if __name__ == "__main__":
    load()
    raise SystemExit(main())
