"""What travels with the pixels: EXIF, XMP, ICC profiles. How they are found, turned upright, and packed."""

from __future__ import annotations

import contextlib
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from PIL import ExifTags, Image

from lichen.errors import DamagedError, LimitError

MAX_METADATA = 64 * 2**20  # bytes, of each of ICC profile, EXIF and XMP

ORIENTATION_TAG = 0x0112
XMP_TAG = 0x02BC
EXIF_PREFIX = b"Exif\0\0"
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation(?:\s*=\s*["']|>))([1-8])(?=["'<])""")


def orientation_of(image: Image.Image) -> int | None:
    """1 to 8, as EXIF defines it, or XMP where EXIF says nothing; None where neither does.

    Pillow turns TIFF by itself: None.
    """
    if hasattr(image, "tag_v2"):
        return None
    value = None
    with contextlib.suppress(Exception):  # EXIF that cannot be parsed says nothing
        value = image.getexif().get(ORIENTATION_TAG)
    if value is None and (found := _XMP_ORIENTATION.search(xmp_of(image.info) or b"")):
        value = int(found[2])
    return value if isinstance(value, int) and 1 <= value <= 8 else None


def exif_of(image: Image.Image) -> bytes | None:
    """From its TIFF header on; of a TIFF file the tags that describe the picture."""
    raw = image.info.get("exif")
    if not isinstance(raw, bytes) and "Raw profile type exif" in image.info:
        raw = _raw_profile(image.info["Raw profile type exif"])
    if isinstance(raw, bytes):
        while raw.startswith(EXIF_PREFIX):
            raw = raw[len(EXIF_PREFIX) :]
        return raw or None
    return descriptive(image.getexif())


def xmp_of(info: Mapping[Any, Any]) -> bytes | None:
    """The packet, of a PIL image's `info`."""
    raw = info.get("xmp") or info.get("XML:com.adobe.xmp") or _raw_profile(info.get("Raw profile type xmp"))
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogateescape")
    return raw if isinstance(raw, bytes) and raw else None


def _raw_profile(text: Any) -> bytes | None:
    """Bytes that ImageMagick hides in a PNG text chunk: a name, their number, and they in hexadecimal, line by line."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except (AttributeError, ValueError, TypeError):
        return None


def fitting_profile(raw: Any, grey: bool) -> bytes | None:
    """The profile, unless its colour space (ICC.1:2022, 7.2, bytes 16 to 19) cannot be that of the pixels."""
    if not isinstance(raw, bytes) or len(raw) < 128:
        return None
    return raw if raw[16:20] in ((b"GRAY", b"RGB ") if grey else (b"RGB ",)) else None


def exif_upright(exif: bytes) -> bytes | None:
    """Set the orientation in IFD 0 to 1 and leave every other byte where it is; None where that cannot be done.

    Offsets within maker notes stay right, which a rewriting of the tags would break.
    """
    try:
        order = {b"II": "<", b"MM": ">"}[exif[:2]]
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(order + "HHI", exif, at)
            if tag == ORIENTATION_TAG:
                layout = {1: "B", 3: "H", 4: "I"}[kind]
                if values != 1:
                    return None
                one = struct.pack(order + layout, 1).ljust(4, b"\0")
                return exif[: at + 8] + one + exif[at + 12 :]
    except (KeyError, struct.error):
        return None
    return exif


def xmp_upright(xmp: bytes) -> bytes:
    """Set `tiff:Orientation` to 1, as an attribute or as an element, the length unchanged."""
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp)


def parse_exif(exif: bytes) -> Image.Exif | None:
    """The tags, None where there are none or Pillow cannot write what it read."""
    parsed = Image.Exif()
    try:
        parsed.load(exif)
        parsed.tobytes()
    except Exception:  # not EXIF, whatever it is
        return None
    return parsed or None


_STRUCTURE = frozenset(
    {254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291}
    | {292, 293, 317, 320, 321, 322, 323, 324, 325, 330, 332, 333, 334, 336, 338, 339, 340, 341, 342, 343, 344, 345}
    | {346, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 559}  # pixels and their coding
    | {700, 33723, 34377, 34675, 37724}  # XMP, IPTC, Photoshop's resources, ICC profile, layers
)
"""TIFF tags that say how the pixels are stored, or carry what is kept elsewhere, not what the picture is."""


def descriptive(exif: Image.Exif) -> bytes | None:
    """The tags that describe the picture, with their Exif and GPS directories, from the TIFF header on."""
    kept = Image.Exif()
    for tag, value in exif.items():
        if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            kept[tag] = dict(exif.get_ifd(tag))
        elif tag not in _STRUCTURE:
            kept[tag] = value
    try:
        return kept.tobytes()[len(EXIF_PREFIX) :] if kept else None
    except Exception:  # tags that Pillow can read but not write
        return None


def compress(data: bytes) -> bytes:
    """A zlib stream (RFC 1950). LimitError beyond `MAX_METADATA`."""
    if len(data) > MAX_METADATA:
        raise LimitError(f"{len(data)} bytes of metadata in one piece: strip it, {MAX_METADATA} are kept at most")
    return zlib.compress(data, 9)


def decompress(data: bytes, limit: int = MAX_METADATA) -> bytes:
    """What `compress` was given. DamagedError for a broken stream or one of more than `limit` bytes."""
    stream = zlib.decompressobj()
    try:
        result = stream.decompress(data, limit + 1)
    except zlib.error as e:
        raise DamagedError("the metadata cannot be unpacked: the file is damaged, get another copy") from e
    if len(result) > limit:
        raise DamagedError(f"the metadata unpacks to more than {limit} bytes: the file is damaged, get another copy")
    if not stream.eof or stream.unused_data:
        raise DamagedError("the metadata is cut short or has no end: the file is damaged, get another copy")
    return result
