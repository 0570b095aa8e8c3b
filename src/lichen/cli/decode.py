"""`lichen decode`: .lichen files to pictures."""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from lichen import container
from lichen.batch import STREAM
from lichen.cli import files
from lichen.container import SUFFIX
from lichen.errors import WeightsError

if TYPE_CHECKING:
    from lichen.models.base import Model


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


OPTIONS = ("max_pixels", "partial", "depth")
"""Arguments of the command that are arguments of `lichen.decode_picture` by the same name."""


@dataclass(frozen=True)
class Decoding:
    """Turns a .lichen file into a picture's bytes. only: refuse files of other models than this. options: of
    `lichen.decode_picture`."""

    model: Model | None
    only: str | None
    options: dict[str, Any]

    def __call__(self, source: str | bytes, target: str) -> tuple[bytes, Sequence[str]]:
        """The format is that of the target's suffix, PNG for standard output; what it has no place for is told."""
        from lichen.codec import decode_picture

        data = source if isinstance(source, bytes) else container.read_bytes(source)
        if self.only is not None and (wrote := _writer(data, self.options["partial"])) != self.only:
            raise WeightsError(f"{wrote} wrote this file, not {self.only}: leave --model out")
        picture = decode_picture(data, model=self.model, **self.options)
        buffer = io.BytesIO()
        lost = picture.save(buffer, "PNG" if target == STREAM else PurePosixPath(target).suffix or target)
        return buffer.getvalue(), [f"this format has no place for {', '.join(lost)}"] if lost else []


def _writer(data: bytes, partial: bool) -> str:
    """The name of the model that wrote a file."""
    from lichen.models import find

    return find(container.Container.from_bytes(data, partial).header.model).name


def run(args: argparse.Namespace) -> int:
    """Decode each input."""

    def work(files_there: int) -> Decoding:
        from lichen.models import find
        from lichen.models.weights import load

        model = None if args.weights is None else load(args.model, weights=args.weights)
        only = None if args.model is None else find(args.model).name
        return Decoding(model, only, {name: getattr(args, name) for name in OPTIONS} | {"box": args.crop})

    return files.run(args, ".png", {SUFFIX}, work, renew=False)
