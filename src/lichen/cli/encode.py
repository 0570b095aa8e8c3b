"""`lichen encode`: pictures to .lichen files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lichen.cli import files
from lichen.container import SUFFIX

if TYPE_CHECKING:
    from lichen.models.base import Model


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser("encode", help="pictures to .lichen files", description="Encode pictures.")
    files.add_arguments(p, "pictures of any kind that Pillow reads", "the file to write")
    p.add_argument("--model", default=None, metavar="NAME", help="a model of `lichen models` (default: light)")
    p.add_argument("--preset", default=None, metavar="NAME", help="one of its presets (default: the one that ships)")
    target = p.add_mutually_exclusive_group()
    target.add_argument(
        "-q", "--quality", type=files.quality, default=None, metavar="Q", help="1 (smallest) to 100 (best), default 75"
    )
    target.add_argument("--target-bytes", type=files.positive, metavar="N", help="the best file of at most N bytes")
    target.add_argument(
        "--target-bpp", type=files.above_zero, metavar="R", help="the best file of at most R bits per pixel"
    )
    target.add_argument("--target-psnr", type=files.above_zero, metavar="D", help="the smallest file of D dB")
    p.add_argument(
        "-e",
        "--effort",
        type=int,
        choices=range(10),  # of lichen.effort, which takes torch to import
        default=0,
        metavar="E",
        help="0 (one pass, the default) to 9: more time for a smaller file",
    )
    p.add_argument(
        "--objective",
        choices=["mse", "ms-ssim"],
        default="mse",
        help="take the weights that ship for the squared error (the default), or those for MS-SSIM",
    )
    p.add_argument("--strip", action="store_true", help="leave out ICC profile, EXIF and XMP; colours become sRGB's")
    p.set_defaults(run=run)


OPTIONS = ("quality", "target_bytes", "target_bpp", "target_psnr", "effort", "max_pixels", "strip")
"""Arguments of the command that are arguments of `lichen.encode` by the same name."""


@dataclass(frozen=True)
class Encoding:
    """Turns a picture into a .lichen file's bytes. options: of `lichen.encode`. bar: whether each picture shows one."""

    model: Model
    options: dict[str, Any]
    bar: bool = False

    def __call__(self, source: str | bytes, target: str) -> tuple[bytes, Sequence[str]]:
        """`target` makes no difference."""
        from lichen.codec import encode

        with files.bar_of_shares("refining") if self.bar else nullcontext() as progress:
            return encode(source, model=self.model, progress=progress, **self.options), ()


def run(args: argparse.Namespace) -> int:
    """Encode each input."""
    from lichen.picture import readable_suffixes

    def work(pictures: int) -> Encoding:
        from lichen.models.weights import load

        options = {name: getattr(args, name) for name in OPTIONS}
        alone = pictures == 1 and not args.cluster
        model = load(args.model, preset=args.preset, objective=args.objective, weights=args.weights)
        return Encoding(model, options, bar=alone and args.effort > 0)

    return files.run(args, SUFFIX, readable_suffixes() - {SUFFIX}, work)
