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
    p.add_argument(
        "-q", "--quality", type=_quality, default=None, metavar="Q", help="1 (smallest) to 100 (best), default 75"
    )
    p.add_argument("--model", default=None, metavar="NAME", help="a model of `lichen models` (default: light)")
    p.set_defaults(run=run)


def _quality(text: str) -> float:
    q = float(text)
    if not 1 <= q <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return q


def run(args: argparse.Namespace) -> int:
    """Encode each input."""
    from lichen.codec import DEFAULT_QUALITY, encode
    from lichen.models.weights import load

    files.set_threads(args.threads)
    pairs = files.targets(args.inputs, args.output, ".lichen")
    model = load(args.model, weights=args.weights)
    quality = DEFAULT_QUALITY if args.quality is None else args.quality

    def work(source: str, target: str) -> bytes:
        return encode(sys.stdin.buffer.read() if source == "-" else source, quality, model=model)

    return files.run(pairs, work, args.force)
