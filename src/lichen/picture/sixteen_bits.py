"""Pictures of 16 bits a channel: what Pillow, which has 8 where there is more than one channel, leaves to others.

PNG through libpng, TIFF through libtiff and profiles through Little CMS, all by way of imagecodecs, an optional
dependency (`pip install 'lichen[depth]'`) that is imported when a picture of this kind is met. TIFF files are put
together here: their directory is Pillow's, so that it has the EXIF that libtiff's writer leaves out.

Samples are uint16, (H, W, C): grey, grey and alpha, RGB, or RGB and alpha.
"""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from itertools import accumulate
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from PIL import TiffImagePlugin as T

from lichen.errors import PictureError

INSTALL = "pip install 'lichen[depth]'"

Samples = npt.NDArray[np.uint16]

_QUIET = logging.NullHandler()
_STRIP = 2**20  # bytes of samples in a strip of a TIFF file, about


def imagecodecs() -> Any | None:
    """The library, None where it is not installed or lacks a part."""
    try:
        import imagecodecs
    except ImportError:
        return None
    logging.getLogger("imagecodecs").addHandler(_QUIET)  # libpng warns of every interlaced file
    return imagecodecs if all(p.available for p in (imagecodecs.PNG, imagecodecs.TIFF, imagecodecs.CMS)) else None


def _needed() -> Any:
    if (found := imagecodecs()) is None:
        raise PictureError(f"16 bits a channel need the package imagecodecs: {INSTALL}, or take 8")
    return found


# ---- PNG -------------------------------------------------------------------------------------------------------------


def read_png(file: BinaryIO, shape: tuple[int, int, int]) -> Samples:
    """All samples of a PNG file; a transparent colour becomes alpha. Refuses what does not have that shape."""
    file.seek(0)
    samples: Samples = _needed().png_decode(file.read(), out=np.empty(shape, np.uint16))
    return samples


def write_png(samples: Samples, like: bytes) -> bytes:
    """A PNG file, with ICC profile, EXIF and XMP of the PNG file `like`."""
    plane = samples.shape[2] == 1
    data = bytes(_needed().png_encode(np.ascontiguousarray(samples[..., 0] if plane else samples)))
    kept = [chunk for chunk in _chunks(like) if chunk[4:8] in (b"iCCP", b"eXIf", b"iTXt")]
    head = 8 + 25  # the signature and IHDR
    return b"".join([data[:head], *kept, data[head:]])


def _chunks(png: bytes) -> Iterator[bytes]:
    at = 8
    while at < len(png):
        (length,) = struct.unpack_from(">I", png, at)
        yield png[at : at + length + 12]
        at += length + 12


# ---- TIFF (TIFF 6.0, Adobe 1992) -------------------------------------------------------------------------------------


def tiff_tags(file: BinaryIO) -> Image.Exif | None:
    """The first directory of a TIFF file of this kind, None for all else."""
    file.seek(0)
    start, tags = file.read(16), Image.Exif()
    if start[:4] == b"II+\0" and len(start) == 16:  # BigTIFF; of the other order of bytes Pillow reads none
        tags.bigtiff, tags.endian = True, "<"
        tags.load_from_fp(file, *struct.unpack("<Q", start[8:]))
    elif start[:4] in (b"II*\0", b"MM\0*"):
        file.seek(0)
        tags.load_from_fp(file)
    else:
        return None
    bits, kinds = set(_values(tags, T.BITSPERSAMPLE, 1)), set(_values(tags, T.SAMPLEFORMAT, 1))
    known = _values(tags, T.PHOTOMETRIC_INTERPRETATION, -1) in ((0,), (1,), (2,))
    plain = bits == {16} and kinds == {1} and known and _channels(tags) - _colours(tags) in (0, 1)
    return tags if plain else None


def read_tiff(file: BinaryIO, tags: Image.Exif) -> Samples:
    """All samples of the file that the tags of `tiff_tags` came from, alpha not premultiplied."""
    height, width, channels, colours = tags[T.IMAGELENGTH], tags[T.IMAGEWIDTH], _channels(tags), _colours(tags)
    planes = channels > 1 and _values(tags, T.PLANAR_CONFIGURATION, 1) == (2,)
    shape = (channels, height, width) if planes else (height, width, channels)
    file.seek(0)
    samples: Samples = _needed().tiff_decode(file.read(), out=np.empty(shape if channels > 1 else shape[:2], np.uint16))
    samples = np.moveaxis(samples, 0, -1) if planes else samples.reshape(shape)
    if _values(tags, T.PHOTOMETRIC_INTERPRETATION, 1) == (0,):  # white is 0
        samples[..., :1] = 65535 - samples[..., :1]
    extra = _values(tags, T.EXTRASAMPLES, 2 if colours == 3 else 0)[0]
    if channels == colours or extra not in (1, 2):  # what else there may be is no alpha
        return samples[..., :colours]
    if extra == 1:
        _divide_out_alpha(samples)
    return samples


def _divide_out_alpha(samples: Samples) -> None:
    for row in samples:  # row by row: the products have twice the bits
        alpha = np.maximum(row[:, -1:], 1).astype(np.uint32)
        row[:, :-1] = np.minimum((row[:, :-1] * np.uint32(65535) + alpha // 2) // alpha, 65535)


def _values(tags: Image.Exif, tag: int, default: int) -> tuple[int, ...]:
    return tuple(np.atleast_1d(tags.get(tag, default)).tolist())


def _channels(tags: Image.Exif) -> int:
    return _values(tags, T.SAMPLESPERPIXEL, 1)[0]


def _colours(tags: Image.Exif) -> int:
    return 3 if _values(tags, T.PHOTOMETRIC_INTERPRETATION, 1) == (2,) else 1


def write_tiff(samples: Samples, exif: Image.Exif, icc: bytes | None, xmp: bytes | None) -> bytes:
    """A TIFF file: deflated strips of horizontal differences (section 14), after a directory that has the EXIF too."""
    height, width, channels = samples.shape
    rows = min(height, max(1, _STRIP // (2 * width * channels)))
    strips = [_strip(samples[top : top + rows]) for top in range(0, height, rows)]
    sizes = [len(strip) for strip in strips]
    tags = T.ImageFileDirectory_v2()
    for tag, value in exif.items():
        tags[tag] = exif.get_ifd(tag) or value
    tags[T.IMAGEWIDTH], tags[T.IMAGELENGTH], tags[T.SAMPLESPERPIXEL] = width, height, channels
    tags[T.BITSPERSAMPLE] = (16,) * channels
    tags[T.PHOTOMETRIC_INTERPRETATION] = 2 if channels > 2 else 1
    if channels in (2, 4):
        tags[T.EXTRASAMPLES] = 2  # alpha, not premultiplied
    tags[T.COMPRESSION], tags[T.PREDICTOR], tags[T.PLANAR_CONFIGURATION] = 8, 2, 1
    tags[T.ROWSPERSTRIP], tags[T.STRIPBYTECOUNTS] = rows, tuple(sizes)
    tags[T.STRIPOFFSETS] = (0, *accumulate(sizes[:-1]))  # from the directory's end: Pillow adds that
    tags.tagtype[T.STRIPBYTECOUNTS] = tags.tagtype[T.STRIPOFFSETS] = 4  # 32 bits
    if icc is not None:
        tags[T.ICCPROFILE] = icc
    if xmp is not None:
        tags[T.XMP] = xmp
    buffer = io.BytesIO()
    tags.save(buffer)
    return b"".join([buffer.getvalue(), *strips])


def _strip(samples: Samples) -> bytes:
    differences = np.diff(samples, axis=1, prepend=np.uint16(0))
    return zlib.compress(differences.astype("<u2").tobytes(), 6)


# ---- profiles --------------------------------------------------------------------------------------------------------


def to_srgb(samples: Samples, icc: bytes) -> Samples:
    """Grey (H, W) or RGB (H, W, 3) of a profile to sRGB (H, W, 3): relative colorimetric, black point compensated."""
    colours: Samples = _needed().cms_transform(
        samples,
        icc,
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        colorspace="gray" if samples.ndim == 2 else "rgb",
        outcolorspace="rgb",
        intent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOOPTIMIZE,  # optimised it is off by up to 4 %
    )
    return colours
