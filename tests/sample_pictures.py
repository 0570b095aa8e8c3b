"""Small pictures of every kind, and what travels with them, for the tests."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import skimage
from PIL import ExifTags, Image, ImageCms

from lichen.picture import (
    Picture,
    load,
)

DATA = Path(skimage.__file__).parent / "data"
ASTRONAUT = DATA / "astronaut.png"  # RGB
CAMERA = DATA / "camera.png"  # grey
HORSE = DATA / "horse.png"  # a silhouette
ROCKET = DATA / "rocket.jpg"

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>'
)


def small(path: Path, size: tuple[int, int] = (60, 40)) -> Image.Image:
    with Image.open(path) as image:
        return image.resize(size, Image.Resampling.LANCZOS)


def cutout(size: tuple[int, int] = (60, 40)) -> Image.Image:
    """A photograph in the soft outline of a horse."""
    image = small(ASTRONAUT, size)
    image.putalpha(small(HORSE, size).convert("L"))
    return image


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def exif_bytes(orientation: int | None = None) -> bytes:
    """EXIF as a camera writes it: with a maker note and a place on the globe."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Lichen & Sons"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.IFD.Exif] = {ExifTags.Base.ExposureTime: (1, 250), ExifTags.Base.MakerNote: b"secret \x00\xff" * 20}
    exif[ExifTags.IFD.GPSInfo] = {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (47.0, 22.0, 1.5)}
    return exif.tobytes()


def png(width: int, rows: list[bytes], depth: int, colour: int, key: bytes) -> bytes:
    """A PNG file with a transparent colour, of any bit depth."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, len(rows), depth, colour, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", head), chunk(b"tRNS", key), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    )


def whole(path: Path | None = None) -> Picture:
    picture = load(small(path) if path else cutout())
    picture.icc, picture.exif, picture.xmp = SRGB, exif_bytes(1)[6:], XMP % 1
    return picture
