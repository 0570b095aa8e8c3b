"""A picture <-> the bytes of a .lichen file.

    picture --> x --analyse--> y of each tile --prior.code--> one stream a tile --> container
    picture <-- x_hat <--synthesise-- y_hat <--prior.code-- streams <-- container

`tiles.py` has the way from pixels to the latents of tiles and back, in pieces where the picture is large. Where a model
codes in layers, the file is progressive: it has one chunk a layer, with the layer's bytes of all tiles.
"""

from __future__ import annotations

import itertools
import operator
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lichen import container, targets, tiles
from lichen import picture as pictures
from lichen.coding.coder import Decoder, Encoder
from lichen.container import Container, Header
from lichen.effort import Refiner
from lichen.effort import check as check_effort
from lichen.errors import DamagedError, LimitError, PictureError, TargetError, WeightsError
from lichen.models import find
from lichen.models.base import Model
from lichen.models.weights import by_identity, identity, shared_default
from lichen.picture import MAX_PIXELS, ImageLike, Levels, Picture
from lichen.picture.alpha import decode_alpha
from lichen.priors.conditional import Latents
from lichen.tiles import Box

Coded = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""A .lichen file: its bytes, its path, or the open file."""

DEFAULT_QUALITY = 75.0
QUALITY_UNITS = 256  # a file keeps the quality in units of 1/256

TILE_ABOVE = 2048 * 2048  # pixels; a larger picture is cut into tiles
TILE = 16  # a tile's side in units of 64 pixels


def encode(
    image: ImageLike,
    quality: float | None = None,
    *,
    model: Model | None = None,
    target_bytes: int | None = None,
    target_bpp: float | None = None,
    target_psnr: float | None = None,
    effort: int = 0,
    tile: int | None = None,
    max_pixels: int | None = MAX_PIXELS,
    strip: bool = False,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """The bytes of a .lichen file.

    image: a path, the bytes or the open file of a picture, a PIL image, or a uint8 or uint16 array (H, W), (H, W, 3) or
    (H, W, 4). quality: 1 (smallest) to 100 (best), any number between, by default 75; ignored by models of one quality.
    model: of `lichen.load`, by default the one that ships.

    In place of a quality, one of: target_bytes, the size that the file shall come close to and not exceed; target_bpp,
    the same in bits per pixel of the whole file; target_psnr, what the decoded picture shall have in dB over 8-bit RGB
    (or grey), within 0.05 dB. A picture that is smaller at quality 100 than the target asks for is written at
    quality 100, one that is better at quality 1 at quality 1.

    effort: 0 (one pass of the networks) to 9 (some two minutes of a processor a megapixel): how long to look for
    latents that cost fewer bits for what they give; decoding takes no longer. With a target, it is the refined file
    that hits it. progress: called with the share that is done, 0 to 1, while that takes its time; with a target, from 0
    again for each file that is tried.

    tile: side of the tiles in units of 64 pixels, 0 for one tile whatever the size; by default pictures above 4
    megapixels are cut into tiles of 1024 pixels. max_pixels: the largest picture that is taken, None for any
    (while it is read, Pillow's own limit is lifted, for the whole process).
    strip: leave ICC profile, EXIF and XMP out; colours of another profile become sRGB's.

    Raises PictureError for what is no picture, LimitError for one with too many pixels, TargetError for a target that
    no quality reaches, EffortError for a level that there is not, or that a model does not take.
    """
    target = targets.Target.of(quality, target_bytes, target_bpp, target_psnr)
    if tile is not None and not 0 <= tile <= container.MAX_SIDE // container.TILE_UNIT:
        raise PictureError(f"tiles of {tile} units of 64 pixels cannot be: give 0 for one tile, or 1 and more")
    model = shared_default() if model is None else _usable(model)
    effort = check_effort(effort, model)
    picture = pictures.load(image, max_pixels=max_pixels)
    picture = picture.stripped() if strip else picture
    if tile is None:
        side = max(picture.height, picture.width)
        tile = TILE if picture.height * picture.width > TILE_ABOVE or side > container.MAX_TILE_SIDE else 0
    chunks = pictures.to_chunks(picture)

    def at_once(units: int) -> bytes:
        return _encode(picture, chunks, model, units, tile)

    def refined(units: int) -> bytes:
        return _encode(picture, chunks, model, units, tile, Refiner(model, quality_tensor(units), effort), progress)

    if target is None:
        units = _quality_units(DEFAULT_QUALITY if quality is None else quality) if model.variable_rate else 0
        return refined(units) if effort else at_once(units)
    if not model.variable_rate:
        raise TargetError(f"{model.name} has one quality with these weights: it takes no target")
    return target.search(
        at_once,
        lambda data: _psnr(data, picture, model),
        picture.height * picture.width,
        (QUALITY_UNITS, 100 * QUALITY_UNITS),
        refined if effort else None,
    )


def _encode(
    picture: Picture,
    chunks: dict[str, bytes],
    model: Model,
    units: int,
    tile: int,
    refiner: Refiner | None = None,
    progress: Callable[[float], None] | None = None,
) -> bytes:
    """A file of a quality in units of 1/256, with the optional chunks; refiner: of that model and quality."""
    header = Header(
        model=find(model.name).in_files,
        weights=identity_of(model),
        quality=units,
        width=picture.width,
        height=picture.height,
        tile=tile,
        grey=picture.grey,
    )
    boxes = tiles.tile_boxes(tiles.latents_of(picture.height, picture.width, model), tile, model)
    q = quality_tensor(units)
    model.frozen_prior()

    tick = _counted(progress, refiner.steps * len(boxes)) if refiner else None

    def latents_of(run: list[int]) -> Tensor | Latents:
        if refiner is None:
            first, last = boxes[run[0]], boxes[run[-1]]
            y = tiles.analyse(picture.pixels, Box(first.top, first.left, last.bottom, last.right), model, q)
            return torch.cat(checked(y).chunk(len(run), dim=2))
        found = []
        for i in run:
            x, y, tile = tiles.with_surroundings(picture.pixels, boxes[i], model, q)
            found.append(refiner(x, checked(y), tile, tick))
        return {part: torch.cat([latents[part] for latents in found]) for part in found[0]}

    def checked(y: Tensor) -> Tensor:
        if not bool(torch.isfinite(y).all()):
            raise WeightsError(f"{model.name} turns this picture into no numbers: its weights are broken")
        return y

    def encode_run(run: list[int]) -> list[tuple[bytes, list[int]]]:
        coders = [Encoder() for _ in run]
        model.code(coders, latents_of(run), q)
        return [(coder.finish(), coder.ends) for coder in coders]

    coded = tiles.side_by_side(encode_run, list(tiles.runs(boxes, range(len(boxes)), model)))
    streams = [stream for run in coded for stream, _ in run]
    ends = [end for run in coded for _, end in run]
    layers = [list(layer) for layer in zip(*ends, strict=True)]
    return Container(header, streams, chunks, layers).to_bytes()


def _counted(progress: Callable[[float], None] | None, steps: int) -> Callable[[], None]:
    """To be called once a step, from any thread."""
    done = itertools.count(1)

    def tick() -> None:
        if progress is not None:
            progress(next(done) / steps)

    return tick


def _psnr(data: bytes, picture: Picture, model: Model) -> float:
    """Of a file, in dB over 8-bit values."""
    file = read(data)
    decoded = _pixels(file, model, _area(file.header, None), 8, None)
    pixels, rows = pictures.to_8_bits(picture.pixels), range(0, picture.height, 256)
    squares = [np.square(pixels[i : i + 256].astype(np.float32) - decoded[i : i + 256]).sum() for i in rows]
    return float(10 * np.log10(255**2 * picture.pixels.size / max(float(np.sum(squares)), 1e-9)))


def decode(
    data: Coded,
    *,
    model: Model | None = None,
    box: tuple[int, int, int, int] | None = None,
    max_pixels: int | None = MAX_PIXELS,
    partial: bool = False,
) -> Image.Image:
    """The picture of a .lichen file (its bytes or its path) as a PIL image: mode L, LA, RGB or RGBA.

    ICC profile, EXIF and XMP are in its `info`. model: needed only for files written with weights that do not ship.
    box: (left, top, right, bottom) in pixels, as Pillow's `crop`: only that part, from the tiles that it needs alone.
    max_pixels: the largest picture that is decoded (with a box: the pixels of the tiles that it needs, or of the whole
    picture where there is transparency, which is in one piece), None for any.
    partial: take a progressive file that was cut short too, and decode the layers of it that are whole, at least one.

    Raises NotLichenError for another format, DamagedError, VersionError for a newer one, WeightsError where the weights
    are missing, LimitError for too many pixels, PictureError for a box that does not lie in the picture.
    """
    return decode_picture(data, model=model, box=box, max_pixels=max_pixels, partial=partial).to_pil()


def decode_picture(
    data: Coded,
    *,
    model: Model | None = None,
    box: tuple[int, int, int, int] | None = None,
    max_pixels: int | None = MAX_PIXELS,
    partial: bool = False,
    depth: int = 8,
) -> Picture:
    """As `decode`, as arrays of 8 or 16 bits a channel. PictureError for another depth."""
    pictures.check_depth(depth)
    file = read(data, partial)
    header, area = file.header, _area(file.header, box)
    if box is None or "ALPH" in file.chunks:
        pictures.check_pixels(header.width, header.height, max_pixels)
    model = _model_of(header, model)
    pixels = _pixels(file, model, area, depth, max_pixels)
    rest = {kind: payload for kind, payload in file.chunks.items() if kind != "ALPH"}
    picture = pictures.from_chunks(pixels, rest)
    if "ALPH" not in file.chunks:
        return picture
    alpha = decode_alpha(file.chunks["ALPH"], header.height, header.width, depth)
    return replace(picture, alpha=alpha[area.rows, area.columns])


def _pixels(file: Container, model: Model, area: Box, depth: int, max_pixels: int | None) -> Levels:
    """An area's pixels of 8 or 16 bits a channel, (H, W, 3) or, grey, (H, W)."""
    pixels = np.empty((*area.shape, 1 if file.header.grey else 3), np.uint8 if depth == 8 else np.uint16)
    for part, x_hat in _pieces(file, model, area, max_pixels):
        levels = (x_hat.clamp(0, 1) * (2**depth - 1)).round()
        if file.header.grey:
            levels = levels.mean(0, keepdim=True).round()
        kind = torch.uint8 if depth == 8 else torch.uint16
        pixels[part.within(area)] = levels.permute(1, 2, 0).to(kind).numpy()
    return pixels[..., 0] if file.header.grey else pixels


def reconstruct(file: Container, *, model: Model | None = None) -> Tensor:
    """x_hat (3, H, W) in float32, before rounding and clamping to pixels."""
    area = _area(file.header, None)
    x_hat = torch.empty(3, *area.shape)
    for part, piece in _pieces(file, _model_of(file.header, model), area, None):
        x_hat[:, part.rows, part.columns] = piece
    return x_hat


def _area(header: Header, box: tuple[int, int, int, int] | None) -> Box:
    """(left, top, right, bottom) -> a box of pixels; None is the whole picture."""
    if box is None:
        return Box(0, 0, header.height, header.width)
    try:
        left, top, right, bottom = map(operator.index, box)
    except (TypeError, ValueError):
        raise PictureError(f"{box} is no box: give whole numbers (left, top, right, bottom)") from None
    if not (0 <= left < right <= header.width and 0 <= top < bottom <= header.height):
        raise PictureError(
            f"the box from ({left}, {top}) to ({right}, {bottom}) does not lie in the picture of "
            f"{header.width}x{header.height} pixels, or is empty"
        )
    return Box(top, left, bottom, right)


def _pieces(file: Container, model: Model, area: Box, max_pixels: int | None) -> Iterator[tuple[Box, Tensor]]:
    """The parts of an area of pixels, from the top, and the x_hat (3, height, width) of each."""
    header, size = file.header, (file.header.height, file.header.width)
    boxes = tiles.tile_boxes(tiles.latents_of(*size, model), header.tile, model)
    if len(boxes) != len(file.tiles):
        raise DamagedError(f"{len(file.tiles)} tiles and not the {len(boxes)} that its size asks for: get another copy")
    whole = Box(0, 0, *size)
    pixels = sum((boxes[i].times(model.stride) & whole).area for i in tiles.needed(boxes, area, model))
    if max_pixels is not None and pixels > max_pixels:
        raise LimitError(
            f"this takes tiles of {pixels} pixels and the limit is {max_pixels}: raise max_pixels if you trust the file"
        )
    q = quality_tensor(header.quality)
    model.frozen_prior()
    if file.layers:
        q = _quality_of_layers(file, model, q)

    def decode_run(run: list[int]) -> Tensor:
        coders = [Decoder(file.tiles[i]) for i in run]
        y_hat = model.code(coders, None, q, boxes[run[0]].shape)
        for coder in coders:
            if not file.missing:
                coder.finish()
        return y_hat

    yield from tiles.synthesise(decode_run, boxes, area, size, model, q)


def _quality_of_layers(file: Container, model: Model, quality: Tensor | None) -> Tensor | None:
    """The quality whose files have the layers that this one has: its own, or less where it was cut short."""
    there, whole = len(file.layers), model.layers(quality)
    if there > whole or there + file.missing < whole:
        raise DamagedError(f"{there} layers and not the {whole} that its quality asks for: get another copy")
    return quality if there == whole else model.quality_of(there)


def read(data: Coded, partial: bool = False) -> Container:
    """The checked parts of a file, from its bytes, its path or the open file; `partial` as for `decode`."""
    return Container.from_bytes(_bytes_of(data), partial)


def _bytes_of(data: Coded) -> container.Buffer:
    if isinstance(data, bytes | bytearray | memoryview):
        return data
    if isinstance(data, str | os.PathLike):
        return container.read_bytes(data)
    return data.read()


# ---- pieces ----------------------------------------------------------------------------------------------------------


def quality_tensor(units: int) -> Tensor | None:
    """A file's quality -> (1,) in 1..100, or None where the file has none."""
    return torch.tensor([units / QUALITY_UNITS], dtype=torch.float32, device="cpu") if units else None


def _quality_units(quality: float) -> int:
    if not (isinstance(quality, int | float | np.number) and 1 <= quality <= 100):  # NaN too
        raise PictureError(f"quality {quality} is not between 1 and 100")
    return round(quality * QUALITY_UNITS)


def identity_of(model: Model) -> bytes:
    """`identity`, remembered as long as the weights stay."""
    return model.of_weights("identity", lambda: identity(model))


def _usable(model: Model) -> Model:
    if model.training:  # batch normalization would learn from the picture
        raise WeightsError("the model is in training mode: call its eval() first")
    return model


def _model_of(header: Header, model: Model | None) -> Model:
    if model is None:
        model = by_identity(header.weights)
    elif identity_of(_usable(model)) != header.weights:
        raise WeightsError(
            f"the file was written with weights {header.weights.hex()}, not with {identity_of(model).hex()} "
            f"of {model.name}: give the weights that wrote it"
        )
    if header.model not in (model.name, find(model.name).number):
        raise DamagedError(f"the file names another model than {model.name}, whose weights it names: get another copy")
    if not (QUALITY_UNITS <= header.quality <= 100 * QUALITY_UNITS if model.variable_rate else header.quality == 0):
        raise DamagedError(f"{model.name} writes no file of quality {header.quality / QUALITY_UNITS}: get another copy")
    return model


def describe(data: Coded, partial: bool = False) -> dict[str, Any]:
    """What `lichen info` prints: header, parts with their sizes in bytes, and bits per pixel. Needs no weights."""
    raw = _bytes_of(data)
    file = Container.from_bytes(raw, partial)
    h = file.header
    try:
        name = find(h.model).name
    except WeightsError:
        name = f"unknown ({h.model})"
    return {
        "width": h.width,
        "height": h.height,
        "colour": "grey" if h.grey else "RGB",
        "model": name,
        "weights": h.weights.hex(),
        "quality": h.quality / QUALITY_UNITS if h.quality else None,
        "tiles": len(file.tiles),
        "layers": len(file.layers),
        "missing": file.missing,
        "bytes": len(raw),
        "bits_per_pixel": 8 * len(raw) / (h.width * h.height),
        "parts": container.parts(raw, partial),
    }
