"""What weights reach on held-out training pictures, with latents really rounded: no test set is looked at.

    python scripts/held_out.py --data DIR... --weights FILE [FILE ...] [--csv FILE]

The 36 crops that the trainer validates on, 256x256 or as large as pictures are, each at 8 qualities: bits as the coder
needs them, the picture as it is decoded. (The trainer takes each crop at one quality.) BD-rates are against the first
weights. For models of variable rate.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from lichen.benchmark.bd import Curve, bd_rate
from lichen.coding.coder import Meter
from lichen.errors import LichenError
from lichen.models.base import Model
from lichen.models.weights import read
from lichen.training import validation
from lichen.training.data import load_pictures, random_crops
from lichen.training.loss import bits_per_pixel, rate_distortion, squared_error

QUALITIES = tuple(1 + 99 * k / 7 for k in range(8))
CACHE = Path.home() / ".cache" / "lichen" / "pixels"


@dataclass(frozen=True)
class Point:
    """Means over the crops at one quality: bits per pixel, PSNR in dB, (lmbda 255^2 MSE + bpp) / sqrt(lmbda)."""

    quality: float
    bpp: float
    psnr: float
    loss: float


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", nargs="+", required=True, metavar="DIR", help="folders of training pictures")
    p.add_argument("--weights", nargs="+", required=True, type=Path, metavar="FILE")
    p.add_argument("--csv", type=Path, metavar="FILE", help="write all points there")
    p.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help="decoded pictures (default: the trainer's)")
    args = p.parse_args()
    try:
        crops = held_out_crops(args.data, args.cache)
        curves = [measure(read(path), crops) for path in args.weights]
    except LichenError as e:
        print(f"held_out: {e}", file=sys.stderr)
        return 1
    for path, points in zip(args.weights, curves, strict=True):
        print(f"{path}: loss {loss(points):.3f}, BD-rate {difference(points, curves[0]):+.2f} %")
        print("  " + "  ".join(f"{q.bpp:.3f} bpp {q.psnr:.2f} dB" for q in points))
    if args.csv:
        for path, points in zip(args.weights, curves, strict=True):
            write(args.csv if len(curves) == 1 else args.csv.with_stem(f"{args.csv.stem}-{path.stem}"), points)
    return 0


def held_out_crops(data: Sequence[str], cache: Path = CACHE) -> Tensor:
    """(36, 3, 256, 256) in 0..1, smaller where pictures are; the same at every call. DataError as the trainer's."""
    pictures = load_pictures(data, cache, 64)
    smallest = min(min(p.shape[:2]) for p in pictures.held_out)
    return random_crops(pictures.held_out, validation.CROPS, min(validation.SIZE, smallest // 64 * 64), [7])


@torch.no_grad()
def measure(net: Model, crops: Tensor) -> list[Point]:
    """A point a quality; crops (B, 3, H, W) in 0..1."""
    net.eval()
    points = []
    for q in QUALITIES:
        quality = torch.tensor([q])
        meters = [Meter() for _ in crops]
        everyone = quality.expand(len(crops))
        y_hat = net.code(meters, net.analyse(crops, everyone), quality)
        x_hat = net.synthesise(y_hat, everyone).clamp(0, 1).mul(255).round().div(255)
        bits = {part: torch.tensor([meter.bits[part] for meter in meters]) for part in meters[0].bits}
        bpp, mse = bits_per_pixel(bits, crops), squared_error(x_hat, crops)
        psnr, cost = (-10 * mse.clamp_min(1e-10).log10()).mean(), rate_distortion(bpp, mse, net.lmbda_of(quality))
        points.append(Point(q, float(bpp.mean()), float(psnr), float(cost)))
    return points


def loss(points: Sequence[Point]) -> float:
    """The mean over the qualities."""
    return mean(p.loss for p in points)


def difference(points: Sequence[Point], anchor: Sequence[Point]) -> float:
    """BD-rate in percent."""
    test, reference = (Curve.of(name, [(p.bpp, p.psnr) for p in c]) for name, c in (("test", points), ("", anchor)))
    return bd_rate(test, reference).value


def write(path: Path, points: Sequence[Point]) -> None:
    """A CSV file, a line a quality."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["quality", "bpp", "psnr", "loss"])
        rows.writerows([f"{p.quality:.2f}", f"{p.bpp:.5f}", f"{p.psnr:.4f}", f"{p.loss:.5f}"] for p in points)


def points_of(path: Path) -> list[Point]:
    """What `write` wrote."""
    with path.open(newline="") as f:
        return [Point(*(float(row[k]) for k in ("quality", "bpp", "psnr", "loss"))) for row in csv.DictReader(f)]


if __name__ == "__main__":
    raise SystemExit(main())
