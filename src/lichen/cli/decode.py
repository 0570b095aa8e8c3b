"""`lichen decode`: .lichen files to pictures."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from lichen.cli import files


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser("decode", help=".lichen files to pictures", description="Decode .lichen files.")
    files.add_arguments(p, ".lichen files", "the picture to write, its format by its suffix (default: PNG)")
    p.add_argument("--model", default=None, metavar="NAME", help="refuse files that another model wrote")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Decode each input."""
    from lichen import picture
    from lichen.codec import decode_picture
    from lichen.models.weights import DEFAULT, load

    files.set_threads(args.threads)
    pairs = files.targets(args.inputs, args.output, ".png")
    model = None
    if args.weights is not None or args.model is not None:
        model = load(args.model or DEFAULT, weights=args.weights)

    def work(source: str, target: str) -> bytes:
        decoded = decode_picture(sys.stdin.buffer.read() if source == "-" else Path(source), model=model)
        return picture.to_bytes(decoded, ".png" if target == "-" else Path(target).suffix)

    return files.run(pairs, work, args.force)
