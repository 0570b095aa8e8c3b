"""`lichen encode`: pictures to .lichen files."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from lichen.cli import files


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser("encode", help="pictures to .lichen files", description="Encode pictures.")
    files.add_arguments(p, "pictures of any kind that Pillow reads", "the file to write")
    p.add_argument("--model", default=None, metavar="NAME", help="a model of `lichen models` (default: light)")
    target = p.add_mutually_exclusive_group()
    target.add_argument(
        "-q", "--quality", type=_quality, default=None, metavar="Q", help="1 (smallest) to 100 (best), default 75"
    )
    target.add_argument("--target-bytes", type=int, metavar="N", help="the best file of at most N bytes")
    target.add_argument("--target-bpp", type=float, metavar="R", help="the best file of at most R bits per pixel")
    target.add_argument("--target-psnr", type=float, metavar="D", help="the smallest file of D dB")
    p.add_argument("--strip", action="store_true", help="leave out ICC profile, EXIF and XMP; colours become sRGB's")
    p.set_defaults(run=run)


def _quality(text: str) -> float:
    q = float(text)
    if not 1 <= q <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return q


OPTIONS = ("quality", "target_bytes", "target_bpp", "target_psnr", "max_pixels", "strip")
"""Arguments of the command that are arguments of `lichen.encode` by the same name."""


def run(args: argparse.Namespace) -> int:
    """Encode each input."""
    from lichen.codec import encode
    from lichen.models.weights import load

    files.set_threads(args.threads)
    pairs = files.targets(args.inputs, args.output, ".lichen")
    model = load(args.model, weights=args.weights)
    options = {name: getattr(args, name) for name in OPTIONS}

    def work(source: str, target: str) -> bytes:
        return encode(sys.stdin.buffer.read() if source == "-" else source, model=model, **options)

    return files.run(pairs, work, args.force)
