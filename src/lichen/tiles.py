"""Large pictures in pieces: tiles of latents that decode alone, and transforms run on some of them at a time.

    pixels --piece with a margin--> analyse --without the margin--> y of a run of tiles --prior--> streams
    pixels <--without the margin-- synthesise <--rows with a margin-- y_hat <--prior-- streams

Tiles cut the latents, not the pixels. A latent depends on the pixels around it, a pixel on the latents around it, as
far as the model's `reach`; with that margin a piece comes out as in the whole picture, so there are no seams to hide.
Neither direction holds more than a row of tiles beside the pixels. Runs of tiles are worked on side by side, each on a
share of the threads: what a front of latents or a small matrix leaves idle in one, another uses.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from lichen.models.base import Model
from lichen.picture import Levels

UNIT = 64  # pixels: what a tile's side is measured in
RUN = 32  # units: neighbouring tiles are transformed and coded together up to this width
WORKERS = 4  # runs at a time, at most: each takes up to some 150 MB

A = TypeVar("A")
B = TypeVar("B")


@dataclass(frozen=True)
class Box:
    """Rows top to bottom and columns left to right, without the last ones: of latents or of pixels."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.bottom - self.top, self.right - self.left

    @property
    def area(self) -> int:
        """Height times width."""
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def rows(self) -> slice:
        """Of the array that the box lies in."""
        return slice(self.top, self.bottom)

    @property
    def columns(self) -> slice:
        """Of the array that the box lies in."""
        return slice(self.left, self.right)

    def __and__(self, other: Box) -> Box:
        """What both have; empty boxes have no positive height or width."""
        return Box(
            max(self.top, other.top),
            max(self.left, other.left),
            min(self.bottom, other.bottom),
            min(self.right, other.right),
        )

    def __bool__(self) -> bool:
        return self.bottom > self.top and self.right > self.left

    def grown(self, margin: int) -> Box:
        """By as much to each side."""
        return Box(self.top - margin, self.left - margin, self.bottom + margin, self.right + margin)

    def times(self, n: int) -> Box:
        """Of latents -> of pixels, n pixels a latent to each side."""
        return Box(self.top * n, self.left * n, self.bottom * n, self.right * n)

    def within(self, other: Box) -> tuple[slice, slice]:
        """Rows and columns of this box in an array that has the other one's."""
        return (
            slice(self.top - other.top, self.bottom - other.top),
            slice(self.left - other.left, self.right - other.left),
        )


def latents_of(height: int, width: int, model: Model) -> Box:
    """All latents of a picture of so many pixels."""
    return Box(0, 0, -(-height // model.stride), -(-width // model.stride))


def tile_boxes(latents: Box, tile: int, model: Model) -> list[Box]:
    """Tiles in raster order; `tile` is their side in units of 64 pixels, 0 for a single one."""
    if not tile:
        return [latents]
    side, (h, w) = tile * UNIT // model.stride, latents.shape
    return [Box(i, j, min(i + side, h), min(j + side, w)) for i in range(0, h, side) for j in range(0, w, side)]


def runs(boxes: Sequence[Box], indices: Sequence[int], model: Model) -> Iterator[list[int]]:
    """Indices of tiles, in raster order, by what is done together: neighbours of a row that have one shape."""
    run: list[int] = []
    for i in indices:
        if run:
            first, last, box = boxes[run[0]], boxes[run[-1]], boxes[i]
            beside = box.top == last.top and box.left == last.right and box.shape == last.shape
            if not beside or (box.right - first.left) * model.stride > RUN * UNIT:
                yield run
                run = []
        run.append(i)
    if run:
        yield run


def side_by_side(work: Callable[[A], B], items: Sequence[A]) -> list[B]:
    """work(item) of all, in their order, several at a time where there are several threads; without gradients."""
    threads = torch.get_num_threads()
    workers = min(threads, WORKERS, len(items))
    if workers < 2:
        with torch.inference_mode():
            return [work(item) for item in items]

    everybody = threading.Barrier(workers + 1)

    def begin() -> None:
        torch.set_num_threads(threads // workers)  # of this thread, and of all that ask first before it is set again:
        torch.get_num_threads()  # this one has asked
        everybody.wait()

    def on_a_share(item: A) -> B:
        with torch.inference_mode():
            return work(item)

    pool, finish = ThreadPoolExecutor(workers, initializer=begin), True
    try:
        results = pool.map(on_a_share, items)
        everybody.wait()
        torch.set_num_threads(threads)
        return list(results)
    except KeyboardInterrupt:
        finish = False  # what is under way may take minutes
        everybody.abort()
        raise
    finally:
        pool.shutdown(finish, cancel_futures=True)


def analyse(pixels: Levels, box: Box, model: Model, quality: Tensor | None) -> Tensor:
    """y (1, h, w, M) of a box of latents. pixels: of the whole picture, (H, W) or (H, W, 3)."""
    height, width = pixels.shape[:2]
    around = box.grown(model.reach) & latents_of(height, width, model)
    piece = around.times(model.stride)
    y = model.analyse(to_tensor(pixels[piece.rows, piece.columns], model), quality)
    rows, columns = box.within(around)
    return y[:, rows, columns]


def with_surroundings(
    pixels: Levels, tile: Box, model: Model, quality: Tensor | None
) -> tuple[Tensor, Tensor, tuple[slice, slice]]:
    """All that a tile of latents has a part in, and what else has: x (1, 3, H, W), its y (1, h, w, M), and where in y
    the tile lies. pixels: of the whole picture, (H, W) or (H, W, 3)."""
    height, width = pixels.shape[:2]
    around = tile.grown(2 * model.reach) & latents_of(height, width, model)
    piece = around.times(model.stride) & Box(0, 0, height, width)
    x = to_tensor(pixels[piece.rows, piece.columns], model)[..., : piece.shape[0], : piece.shape[1]]
    return x, analyse(pixels, around, model, quality), tile.within(around)


def to_tensor(pixels: Levels, model: Model) -> Tensor:
    """(H, W) or (H, W, 3) uint8 or uint16 -> (1, 3, H', W') in 0..1, edges repeated up to the next multiples of the
    stride where the model does not take any size."""
    v = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    pad = [(0, 0 if model.any_size else -n % model.stride) for n in v.shape[:2]]
    v = np.pad(v, [*pad, (0, 0)], mode="edge")
    return torch.from_numpy(v).permute(2, 0, 1)[None].float().div_(np.iinfo(v.dtype).max)


def needed(boxes: Sequence[Box], area: Box, model: Model) -> list[int]:
    """Indices of the tiles without which an area of pixels cannot be decoded."""
    wanted = _window(area, model)
    return [i for i, box in enumerate(boxes) if box & wanted]


def _window(area: Box, model: Model) -> Box:
    """The latents that the pixels of an area depend on; it may leave the picture."""
    s = model.stride
    return Box(area.top // s, area.left // s, -(-area.bottom // s), -(-area.right // s)).grown(model.reach)


def synthesise(
    decode: Callable[[list[int]], Tensor],
    boxes: Sequence[Box],
    area: Box,
    size: tuple[int, int],
    model: Model,
    quality: Tensor | None,
) -> Iterator[tuple[Box, Tensor]]:
    """The pixels of an area, piece by piece from the top: the piece's box and its x_hat (3, height, width).

    decode(indices) -> y_hat (n, h, w, C) of a run of tiles. boxes: of all tiles. size: the picture's, (H, W).
    """
    s, latents, cut = model.stride, latents_of(*size, model), len(boxes) > 1
    window = _window(area, model) & latents
    done = area.top // s  # rows of latents before this one are pixels already
    band, held = None, window  # y_hat of the rows of `held`
    for _, group in itertools.groupby(needed(boxes, area, model), lambda i: boxes[i].top):
        row = list(group)
        bottom = min(boxes[row[0]].bottom, window.bottom)
        new = Box(max(boxes[row[0]].top, window.top), window.left, bottom, window.right)
        band, held = _with_row(band, held, new, decode, boxes, row, model)
        ready = bottom if bottom == window.bottom else bottom - model.reach
        pixels_of = partial(_pixels_of, band, held, area, size, model, quality)
        yield from side_by_side(pixels_of, _pieces(Box(done, area.left // s, ready, -(-area.right // s)), cut, s))
        done = max(done, ready)


def _with_row(
    band: Tensor | None,
    held: Box,
    new: Box,
    decode: Callable[[list[int]], Tensor],
    boxes: Sequence[Box],
    row: list[int],
    model: Model,
) -> tuple[Tensor, Box]:
    """The band without the rows that no later piece needs, and with a new row of tiles below."""
    fresh: Tensor | None = None
    in_runs = list(runs(boxes, row, model))
    for run, decoded in zip(in_runs, side_by_side(decode, in_runs), strict=True):
        for i, y_hat in zip(run, decoded, strict=True):
            if fresh is None:
                fresh = y_hat.new_zeros(1, *new.shape, y_hat.shape[-1])
            part = boxes[i] & new
            fresh[0][part.within(new)] = y_hat[part.within(boxes[i])]
    assert fresh is not None
    if band is None:
        return fresh, new
    top = max(held.top, new.top - 2 * model.reach)
    return torch.cat([band[:, top - held.top :], fresh], dim=1), Box(top, new.left, new.bottom, new.right)


def _pieces(box: Box, cut: bool, stride: int) -> list[Box]:
    """Of rows of latents, side by side; none where there are no rows."""
    step = RUN * UNIT // stride if cut else box.right - box.left
    lefts = range(box.left, box.right, step) if box else ()
    return [Box(box.top, left, box.bottom, min(left + step, box.right)) for left in lefts]


def _pixels_of(
    band: Tensor, held: Box, area: Box, size: tuple[int, int], model: Model, quality: Tensor | None, piece: Box
) -> tuple[Box, Tensor]:
    """What a piece of the latents has of an area of pixels, and its x_hat."""
    around = piece.grown(model.reach) & held
    inside = around.times(model.stride) & Box(0, 0, *size)
    rows, columns = around.within(held)
    x_hat = model.synthesise_to(band[:, rows, columns], quality, inside.shape)[0]
    part = piece.times(model.stride) & area
    rows, columns = part.within(inside)
    return part, x_hat[:, rows, columns]
