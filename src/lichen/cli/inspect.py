"""`lichen inspect`: what a model makes of a picture, inside."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from lichen.cli import files


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser(
        "inspect",
        help="latents, means, scales and what is left of a picture in them",
        description="Look inside a model on one picture: a figure and numbers.",
    )
    p.add_argument("picture", metavar="PICTURE", help="any kind that Pillow reads")
    p.add_argument("--model", metavar="NAME", help="a model of `lichen models` (default: light)")
    p.add_argument("--preset", metavar="NAME", help="one of its presets (default: the one that ships)")
    p.add_argument("--objective", choices=["mse", "ms-ssim"], default="mse", help="as for encode (default: mse)")
    p.add_argument("--weights", metavar="FILE", help="weights that Lichen's trainer wrote, in place of those that ship")
    p.add_argument("-q", "--quality", type=files.quality, default=50.0, metavar="Q", help="1 to 100 (default 50)")
    p.add_argument("-o", "--output", metavar="FILE", help="the figure (default: PICTURE-inside.png here)")
    p.add_argument("-f", "--force", action="store_true", help="overwrite a figure that exists")
    p.add_argument(
        "--channels", type=files.positive, default=3, metavar="N", help="channels to draw, those of most bits"
    )
    p.add_argument("--json", action="store_true", help="the numbers as JSON")
    p.add_argument("--threads", type=files.positive, metavar="N", help="processor threads (default: one per core)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Look, draw, print."""
    from lichen.benchmark import look
    from lichen.benchmark.datasets import pixels
    from lichen.models.weights import load

    target = Path(args.output or f"{Path(args.picture).stem}-inside.png")
    look.check_target(target)
    if target.exists() and target.samefile(args.picture):
        raise files.UsageError(f"{target} is the picture itself: give another name with -o")
    if target.exists() and not args.force:
        raise files.UsageError(f"{target} exists: give another name with -o, or --force to overwrite it")
    files.set_threads(args.threads)
    picture = pixels(args.picture)
    model = load(args.model, preset=args.preset, objective=args.objective, weights=args.weights)
    found = look.look(picture, model, args.quality)
    look.draw(found, picture, target, args.channels)
    numbers = found.numbers()
    if args.json:
        print(json.dumps(numbers, indent=1))
        return 0
    total = sum(found.bits.values())
    print(f"{args.picture}: {found.width} x {found.height}, {found.model}, figure in {target}")
    for part, bits in found.bits.items():
        bpp = numbers["bits_per_pixel"][part]
        print(f"  bits of {part:<10} {bits:>12,.0f}  {100 * bits / total:5.1f} %  {bpp:.4f} bpp")
    used, half = numbers["channels_in_use"], numbers["half_the_bits_in_channels"]
    print(f"  channels           {used} of {numbers['channels']} in use, half of the bits in {half}")
    if numbers["residual_deviation"] is not None:
        print(f"  (y-mu)/sigma       deviation {numbers['residual_deviation']:.3f}")
    for kind, entry in numbers["correlation"].items():
        print(f"  correlation        {kind:<10} {entry['right']:+.3f} right {entry['below']:+.3f} below")
    return 0
