"""`lichen info`: what a .lichen file says of itself."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from lichen.errors import LichenError


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser("info", help="header and parts of .lichen files", description="Describe .lichen files.")
    p.add_argument("inputs", nargs="+", metavar="FILE", help=".lichen files; - reads standard input")
    p.add_argument("--json", action="store_true", help="one JSON object a file")
    p.add_argument("--partial", action="store_true", help="describe progressive files that were cut short, too")
    p.set_defaults(run=run)


NAMES = {
    "HEAD": "header",
    "TILE": "latents",
    "LAYR": "latents",
    "ALPH": "alpha",
    "ICCP": "ICC profile",
    "EXIF": "EXIF",
    "XMP ": "XMP",
}


def run(args: argparse.Namespace) -> int:
    """Describe each file."""
    from lichen.batch import standard_input
    from lichen.codec import describe
    from lichen.models.weights import metadata_of, shipped

    for_ms_ssim = {name for name, path in shipped().items() if metadata_of(path)["objective"] == "ms-ssim"}
    failed = 0
    for source in args.inputs:
        try:
            d = describe(standard_input() if source == "-" else Path(source), args.partial)
        except LichenError as e:
            print(f"lichen: {e}" if source in str(e) else f"lichen: {source}: {e}", file=sys.stderr)
            failed = 1
            continue
        if args.json:
            d["parts"] = [{"type": t.strip(), "offset": o, "bytes": n} for t, o, n in d["parts"]]
            print(json.dumps({"file": source, **d}))
            continue
        quality = "fixed" if d["quality"] is None else f"{d['quality']:g}"
        size = f"{d['width']} x {d['height']}, {d['colour']}"
        print(f"{source}: {size}, {d['bytes']:,} bytes, {d['bits_per_pixel']:.4f} bpp")
        print(f"  model    {d['model']}, weights {d['weights']}, quality {quality}")
        if d["weights"] in for_ms_ssim:
            print("  trained  for MS-SSIM")
        sizes: dict[str, list[int]] = {}
        for kind, _, n in d["parts"]:
            sizes.setdefault(kind, []).append(n)
        for kind, list_ in sizes.items():
            times = f" in {d['tiles']} tiles" if kind in ("TILE", "LAYR") and d["tiles"] > 1 else ""
            print(f"  {NAMES.get(kind, kind):<12} {sum(list_):>12,} bytes{times}")
        rest = d["bytes"] - sum(sum(v) for v in sizes.values())
        print(f"  {'incomplete' if d['missing'] else 'framing':<12} {rest:>12,} bytes")
        for k, (end, bpp) in enumerate(layer_ends(d), 1):
            print(f"  {f'layer {k}':<12} {end:>12,} bytes of the file, {bpp:.4f} bpp")
        if d["missing"]:
            print(f"  the file ends early: {d['missing']} parts are missing")
    return failed


def layer_ends(d: dict[str, Any]) -> list[tuple[int, float]]:
    """For each layer of a progressive file: how many bytes of the file a decoder needs, and that in bits per pixel."""
    ends = [offset + n + 4 for kind, offset, n in d["parts"] if kind == "LAYR"]
    return [(end, 8 * end / (d["width"] * d["height"])) for end in ends]
