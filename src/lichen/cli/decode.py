"""`lichen decode`: .lichen files to pictures."""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path
from typing import Any

from lichen.cli import files


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser("decode", help=".lichen files to pictures", description="Decode .lichen files.")
    files.add_arguments(p, ".lichen files", "the picture to write, its format by its suffix (default: PNG)")
    p.add_argument("--model", default=None, metavar="NAME", help="refuse files that another model wrote")
    p.add_argument(
        "--partial", action="store_true", help="decode what there is of progressive files that were cut short, too"
    )
    p.add_argument(
        "--crop", type=_box, metavar="L,T,R,B", help="only what lies between these columns and rows, from 0, in pixels"
    )
    p.add_argument(
        "--depth", type=int, choices=(8, 16), default=8, help="bits a channel (default: 8); 16 in PNG and TIFF"
    )
    p.set_defaults(run=run)


def _box(text: str) -> tuple[int, int, int, int]:
    left, top, right, bottom = map(int, text.split(","))
    return left, top, right, bottom


def run(args: argparse.Namespace) -> int:
    """Decode each input."""
    from lichen.codec import decode_picture
    from lichen.models.weights import load

    files.set_threads(args.threads)
    pairs = files.targets(args.inputs, args.output, ".png")
    model = None
    if args.weights is not None or args.model is not None:
        model = load(args.model, weights=args.weights)

    def work(source: str, target: str) -> bytes:
        data = sys.stdin.buffer.read() if source == "-" else Path(source)
        options = {"box": args.crop, "max_pixels": args.max_pixels, "partial": args.partial, "depth": args.depth}
        picture = decode_picture(data, model=model, **options)
        buffer = io.BytesIO()
        lost = picture.save(buffer, "PNG" if target == "-" else Path(target).suffix or target)
        if lost:
            print(f"lichen: {target}: this format has no place for {', '.join(lost)}", file=sys.stderr)
        return buffer.getvalue()

    return files.run(pairs, work, args.force)
