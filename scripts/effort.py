"""What each level of effort saves and what it takes: BD-rate against level 0 by real files, and processor time.

    python scripts/effort.py --data DIR [--every 3] [--store results/effort.jsonl] [--write docs/effort.md]

Each picture is encoded at each level and at four qualities on one thread, and decoded. A level's curve is the averages
over the pictures at each quality; time is the processor's, so that another program beside makes no difference. What was
measured once is kept (--store), for these weights.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import pages
import torch
from PIL import Image
from rich.progress import track

import lichen
from lichen import codec
from lichen.benchmark import metrics
from lichen.benchmark.bd import Curve, bd_rate
from lichen.effort import LEVELS, STEPS
from lichen.models.weights import load

QUALITIES = (15, 40, 65, 90)


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", type=Path, required=True, metavar="DIR")
    p.add_argument("--every", type=int, default=3, metavar="N", help="only every Nth picture (default: 3)")
    p.add_argument("--store", type=Path, default=Path("results/effort.jsonl"), metavar="FILE")
    p.add_argument("--write", type=Path, metavar="FILE", help="put the table between the markers of this page")
    args = p.parse_args()
    files = sorted(args.data.glob("*.png"))[:: args.every]
    if not files:
        p.error(f"no pictures in {args.data}")
    torch.set_num_threads(1)
    weights = codec.identity_of(load()).hex()
    settings = [(f.name, level, q) for level in LEVELS for f in files for q in QUALITIES]
    rows = kept(args.store, weights)
    for name, level, q in track([s for s in settings if s not in rows], "encoding"):
        row = {
            "weights": weights,
            "picture": name,
            "effort": level,
            "quality": q,
            **measure(args.data / name, level, q),
        }
        rows[name, level, q] = row
        args.store.parent.mkdir(parents=True, exist_ok=True)
        with args.store.open("a") as f:
            f.write(json.dumps(row) + "\n")
    text = table([rows[s] for s in settings])
    print(text)
    if args.write:
        pages.write(args.write, "effort", text, "effort.py")
    return 0


def kept(store: Path, weights: str) -> dict[tuple[str, int, int], dict[str, Any]]:
    """What a store has of these weights."""
    lines = store.read_text().splitlines() if store.exists() else []
    rows = [row for row in map(json.loads, lines) if row["weights"] == weights]
    return {(row["picture"], row["effort"], row["quality"]): row for row in rows}


def measure(path: Path, level: int, quality: int) -> dict[str, Any]:
    """Of one file: bits per pixel, PSNR in dB, processor seconds a megapixel."""
    pixels = np.asarray(Image.open(path).convert("RGB"))
    begun = time.process_time()
    data = lichen.encode(pixels, quality, effort=level)
    seconds = time.process_time() - begun
    count = pixels[..., 0].size
    psnr = metrics.psnr(pixels, np.asarray(lichen.decode(data)))
    return {"bpp": 8 * len(data) / count, "psnr": psnr, "seconds": seconds / count * 1e6}


def table(rows: list[dict[str, Any]]) -> str:
    """A line a level."""
    at = f"at quality {', '.join(map(str, QUALITIES))}"
    lines = [
        f"| level | steps: annealing, rounding | BD-rate | rate {at} | PSNR, dB | seconds a megapixel |",
        "|---|---|---|---|---|---|",
    ]
    curves = {level: curve(rows, level) for level in LEVELS}
    for level in LEVELS:
        saved = "" if not level else f"{bd_rate(curves[level], curves[0]).value:+.2f} %"
        rate = ", ".join(f"{100 * (a / b - 1):+.1f} %" for a, b in zip(curves[level].bpp, curves[0].bpp, strict=True))
        dB = ", ".join(f"{a - b:+.2f}" for a, b in zip(curves[level].quality, curves[0].quality, strict=True))
        seconds = mean(row["seconds"] for row in rows if row["effort"] == level)
        steps = ", ".join(map(str, STEPS[level]))
        changed = f"{rate} | {dB}" if level else "|"
        lines.append(f"| {level} | {steps} | {saved} | {changed} | {seconds:.2f} |")
    return "\n".join(lines)


def curve(rows: list[dict[str, Any]], level: int) -> Curve:
    """Averages over the pictures at each quality."""
    points = []
    for q in QUALITIES:
        at = [row for row in rows if (row["effort"], row["quality"]) == (level, q)]
        points.append((mean(row["bpp"] for row in at), mean(row["psnr"] for row in at)))
    return Curve.of(f"effort {level}", points)


if __name__ == "__main__":
    raise SystemExit(main())
