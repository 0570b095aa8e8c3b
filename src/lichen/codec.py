"""A picture <-> the bytes of a .lichen file.

    picture --pad--> x --analyse--> y --cut into tiles--> prior.code --> one stream a tile --> container
    picture <--crop-- x_hat <--synthesise-- y_hat <--put together-- prior.code <-- streams <-- container

Tiles cut the latents, not the pixels: every tile's stream decodes alone, and the transforms run across their borders.
Where a model codes in layers, the file is progressive: it has one chunk a layer, with the layer's bytes of all tiles.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from lichen import container
from lichen import picture as pictures
from lichen.coding.coder import Decoder, Encoder
from lichen.container import Container, Header
from lichen.errors import DamagedError, PictureError, WeightsError
from lichen.models import find
from lichen.models.base import Model
from lichen.models.weights import by_identity, identity, load
from lichen.picture import MAX_PIXELS, ImageLike, Picture

DEFAULT_QUALITY = 75.0
QUALITY_UNITS = 256  # a file keeps the quality in units of 1/256

TILE_ABOVE = 2048 * 2048  # pixels; a larger picture is cut into tiles
TILE = 16  # a tile's side in units of 64 pixels
TILES_AT_ONCE = 4


def encode(
    image: ImageLike,
    quality: float = DEFAULT_QUALITY,
    *,
    model: Model | None = None,
    tile: int | None = None,
    max_pixels: int | None = MAX_PIXELS,
) -> bytes:
    """The bytes of a .lichen file.

    image: a path, the bytes or the open file of a picture, a PIL image, or a uint8 array (H, W), (H, W, 3) or
    (H, W, 4). quality: 1 (smallest) to 100 (best), any number between; ignored by models of one quality. model: of
    `lichen.load`, by default the one that ships. tile: side of the tiles in units of 64 pixels, 0 for one tile whatever
    the size; by default pictures above 4 megapixels are cut into tiles of 1024 pixels. max_pixels: the largest picture
    that is taken, None for any.

    Raises PictureError for what is no picture, LimitError for one with too many pixels.
    """
    model = load() if model is None else model
    picture = pictures.load(image, max_pixels=max_pixels)
    x = to_tensor(picture.pixels, model)
    height, width = picture.pixels.shape[:2]
    units = _quality_units(quality) if model.variable_rate else 0
    if tile is None:
        tile = TILE if height * width > TILE_ABOVE else 0
    with torch.inference_mode():
        q = quality_tensor(units)
        y = model.analyse(x, q)
        if not bool(torch.isfinite(y).all()):
            raise WeightsError(f"{model.name} turns this picture into no numbers: its weights are broken")
        boxes = tile_boxes(y.shape[1], y.shape[2], tile, model)
        streams: list[bytes] = [b""] * len(boxes)
        ends: list[list[int]] = [[]] * len(boxes)
        for group in _equal_shapes(boxes):
            coders = [Encoder() for _ in group]
            part = torch.cat([y[:, boxes[i].rows, boxes[i].columns] for i in group])
            model.code(coders, part, q)
            for i, coder in zip(group, coders, strict=True):
                streams[i], ends[i] = coder.finish(), coder.ends
    header = Header(
        model=find(model.name).number,
        weights=identity_of(model),
        quality=units,
        width=width,
        height=height,
        tile=tile,
        grey=picture.pixels.ndim == 2,
    )
    layers = [list(layer) for layer in zip(*ends, strict=True)]
    return Container(header, streams, pictures.to_chunks(picture), layers).to_bytes()


def decode(
    data: bytes | str | Path,
    *,
    model: Model | None = None,
    max_pixels: int | None = MAX_PIXELS,
    partial: bool = False,
) -> Image.Image:
    """The picture of a .lichen file (its bytes or its path) as a PIL image: mode L, LA, RGB or RGBA.

    ICC profile, EXIF and XMP are in its `info`. model: needed only for files written with weights that do not ship.
    max_pixels: the largest picture that is decoded, None for any. partial: take a progressive file that was cut short
    too, and decode the layers of it that are whole, at least one.

    Raises NotLichenError for another format, DamagedError, VersionError for a newer one, WeightsError where the weights
    are missing, LimitError for too many pixels.
    """
    return decode_picture(data, model=model, max_pixels=max_pixels, partial=partial).to_pil()


def decode_picture(
    data: bytes | str | Path,
    *,
    model: Model | None = None,
    max_pixels: int | None = MAX_PIXELS,
    partial: bool = False,
) -> Picture:
    """As `decode`, as arrays."""
    file = read(data, partial)
    pictures.check_pixels(file.header.width, file.header.height, max_pixels)
    x_hat = reconstruct(file, model=model)
    levels = (x_hat.clamp(0, 1) * 255).round()
    pixels = (levels.mean(0).round() if file.header.grey else levels.permute(1, 2, 0)).to(torch.uint8).numpy()
    return pictures.from_chunks(np.ascontiguousarray(pixels), file.chunks)


def reconstruct(file: Container, *, model: Model | None = None) -> Tensor:
    """x_hat (3, H, W) in float32, before rounding and clamping to pixels."""
    header = file.header
    model = _model_of(header, model)
    h, w = -(-header.height // model.stride), -(-header.width // model.stride)
    boxes = tile_boxes(h, w, header.tile, model)
    if len(boxes) != len(file.tiles):
        raise DamagedError(f"{len(file.tiles)} tiles and not the {len(boxes)} that its size asks for: get another copy")
    with torch.inference_mode():
        q = quality_tensor(header.quality)
        if file.layers:
            q = _quality_of_layers(file, model, q)
        y_hat: Tensor | None = None
        for group in _equal_shapes(boxes):
            coders = [Decoder(file.tiles[i]) for i in group]
            part = model.code(coders, None, q, boxes[group[0]].shape)
            for coder in coders:
                if not file.missing:
                    coder.finish()
            if y_hat is None:
                y_hat = part.new_zeros(1, h, w, part.shape[-1])
            for i, latents in zip(group, part, strict=True):
                y_hat[0, boxes[i].rows, boxes[i].columns] = latents
        assert y_hat is not None
        x_hat = model.synthesise_to(y_hat, q, (header.height, header.width))
    return x_hat[0]


def _quality_of_layers(file: Container, model: Model, quality: Tensor | None) -> Tensor | None:
    """The quality whose files have the layers that this one has: its own, or less where it was cut short."""
    there, whole = len(file.layers), model.layers(quality)
    if there > whole or there + file.missing < whole:
        raise DamagedError(f"{there} layers and not the {whole} that its quality asks for: get another copy")
    return quality if there == whole else model.quality_of(there)


def read(data: bytes | str | Path, partial: bool = False) -> Container:
    """The checked parts of a file, from its bytes or its path; `partial` as for `decode`."""
    return Container.from_bytes(data if isinstance(data, bytes) else container.read_bytes(Path(data)), partial)


# ---- pieces ----------------------------------------------------------------------------------------------------------


def to_tensor(pixels: npt.NDArray[np.uint8], model: Model) -> Tensor:
    """(H, W) or (H, W, 3) uint8 -> (1, 3, H', W') in 0..1, edges repeated up to the next multiples of the stride where
    the model does not take any size."""
    v = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2)
    pad = [(0, 0 if model.any_size else -n % model.stride) for n in v.shape[:2]]
    v = np.pad(v, [*pad, (0, 0)], mode="edge")
    return torch.from_numpy(v).permute(2, 0, 1)[None].float().div_(255)


def quality_tensor(units: int) -> Tensor | None:
    """A file's quality -> (1,) in 1..100, or None where the file has none."""
    return torch.tensor([units / QUALITY_UNITS]) if units else None


def _quality_units(quality: float) -> int:
    if not 1 <= quality <= 100:  # NaN too
        raise PictureError(f"quality {quality} is not between 1 and 100")
    return round(quality * QUALITY_UNITS)


def identity_of(model: Model) -> bytes:
    """`identity`, remembered as long as the weights stay."""
    found: bytes | None = getattr(model, "_identity", None)
    if found is None or model.training:
        found = identity(model)
        object.__setattr__(model, "_identity", found)
    return found


def _model_of(header: Header, model: Model | None) -> Model:
    if model is None:
        return by_identity(header.weights)
    if identity_of(model) != header.weights:
        raise WeightsError(
            f"the file was written with weights {header.weights.hex()}, not with {identity_of(model).hex()} "
            f"of {model.name}: give the weights that wrote it"
        )
    return model


class Box:
    """A tile's place in the latents."""

    def __init__(self, top: int, left: int, bottom: int, right: int) -> None:
        self.rows, self.columns = slice(top, bottom), slice(left, right)
        self.shape = (bottom - top, right - left)


def tile_boxes(h: int, w: int, tile: int, model: Model) -> list[Box]:
    """Tiles of (h, w) latents in raster order; `tile` in units of 64 pixels, 0 for a single one."""
    if not tile:
        return [Box(0, 0, h, w)]
    side = tile * 64 // model.stride
    return [Box(i, j, min(i + side, h), min(j + side, w)) for i in range(0, h, side) for j in range(0, w, side)]


def _equal_shapes(boxes: list[Box]) -> list[list[int]]:
    """Indices of tiles that are coded together: equal shapes, a few at a time."""
    by_shape: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for i, box in enumerate(boxes):
        by_shape[box.shape].append(i)
    return [g[k : k + TILES_AT_ONCE] for g in by_shape.values() for k in range(0, len(g), TILES_AT_ONCE)]


def describe(data: bytes | str | Path, partial: bool = False) -> dict[str, Any]:
    """What `lichen info` prints: header, parts with their sizes in bytes, and bits per pixel. Needs no weights."""
    raw = data if isinstance(data, bytes) else container.read_bytes(Path(data))
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
