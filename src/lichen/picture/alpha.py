"""Transparency, kept without loss: masks as WebP or PNG."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image, features

from lichen.errors import DamagedError, PictureError, reason_of
from lichen.picture.levels import Levels, at_depth, check_array, to_8_bits
from lichen.picture.limits import pillow_limit

_BAND = 2**22  # pixels
_WEBP_SIDE = 16383


def encode_alpha(alpha: Levels) -> bytes:
    """(H, W) uint8 or uint16 -> lossless: one byte where all are equal, else bands of rows of 4 megapixels at most.

    Bands: their height (4 bytes, big endian), then for each its length (4 bytes) and a WebP lossless file, grey as
    R = G = B; a PNG file of mode L where WebP does not reach (over 16383 pixels a side) or Pillow has none. On 13 masks
    (binary, soft, mattes, gradients, photographs) WebP was smaller on all, by 3 to 95 %; its method 3 at quality 100
    came within 8 % of the best method at a fortieth of the time. Where 16 bits say more than 8 (values that are no
    multiples of 257), a PNG file of 16-bit grey.
    """
    check_array(alpha, "alpha")
    if alpha.dtype == np.uint16 and not (alpha % 257).any():
        alpha = to_8_bits(alpha)
    if alpha.dtype == np.uint8 and (alpha == alpha[0, 0]).all():
        return bytes([alpha[0, 0]])
    height, width = alpha.shape
    rows = min(height, max(1, _BAND // width))
    out = [struct.pack(">I", rows)]
    for top in range(0, height, rows):
        band = Image.fromarray(np.ascontiguousarray(alpha[top : top + rows]))
        buffer = io.BytesIO()
        if band.mode == "L" and max(band.size) <= _WEBP_SIDE and features.check("webp"):
            band.convert("RGB").save(buffer, "WEBP", lossless=True, quality=100, method=3)
        else:
            band.save(buffer, "PNG", optimize=True)
        out += [struct.pack(">I", len(buffer.getvalue())), buffer.getvalue()]
    return b"".join(out)


def decode_alpha(data: bytes, height: int, width: int, depth: int = 8) -> Levels:
    """What `encode_alpha` was given, in 8 or 16 bits; a band's size is checked before its pixels are unpacked.

    Raises DamagedError for anything else, PictureError where a Pillow without WebP meets it.
    """
    if len(data) == 1:
        return at_depth(depth, np.full((height, width), data[0], np.uint8))
    alpha = np.empty((height, width), np.uint8 if depth == 8 else np.uint16)
    with pillow_limit(height * width):
        try:
            (rows,) = struct.unpack_from(">I", data)
            bands = -(-height // rows)
            if bands * 4 > len(data):
                raise DamagedError(f"{bands} bands in {len(data)} bytes")
            at = 4
            for top in range(0, height, rows):
                (length,) = struct.unpack_from(">I", data, at)
                if length > len(data) - at - 4:
                    raise DamagedError("a band is cut short")
                band = alpha[top : top + rows]
                band[:] = at_depth(depth, _decode_band(data[at + 4 : at + 4 + length], *band.shape))
                at += 4 + length
            if at != len(data):
                raise DamagedError("bytes follow the last band")
        except PictureError:
            raise
        except Exception as e:  # Pillow's for bad files are many
            raise DamagedError(f"the alpha channel is damaged ({reason_of(e)}): get another copy of the file") from e
    return alpha


def _decode_band(data: bytes, height: int, width: int) -> Levels:
    kinds = {b"\x89PNG": ("PNG", ("L", "I;16")), b"RIFF": ("WEBP", ("RGB",))}
    if data[:4] not in kinds:
        raise DamagedError("a band is neither WebP nor PNG")
    format, modes = kinds[data[:4]]
    if format == "WEBP" and not features.check("webp"):
        raise PictureError("the alpha channel is WebP and this Pillow has none: install Pillow from PyPI")
    if format == "WEBP" and _webp_lossless_size(data) != (width, height):
        raise DamagedError("a band has another size")
    with Image.open(io.BytesIO(data), formats=(format,)) as image:
        if image.size != (width, height) or image.mode not in modes:
            raise DamagedError("a band has another size")
        levels = np.asarray(image)
    return levels if levels.ndim == 2 else levels[..., 0]


def _webp_lossless_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a plain lossless WebP file (RFC 9649, sections 2.6 and 3.4), None for other kinds."""
    if data[8:16] != b"WEBPVP8L" or data[20:21] != b"\x2f" or len(data) < 25:
        return None
    (bits,) = struct.unpack_from("<I", data, 21)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
