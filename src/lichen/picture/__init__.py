"""Pictures in and out: pixels, transparency, ICC profile, EXIF, XMP, orientation, 8 or 16 bits a channel.

    reading.py       any picture that Pillow reads -> Picture
    picture.py       Picture: what it is, how it is written, and the chunks that it fills in a .lichen file
    alpha.py         transparency, kept without loss
    metadata.py      EXIF, XMP, ICC profiles
    colours.py       other spaces -> sRGB
    sixteen_bits.py  PNG and TIFF files of 16 bits a channel, which Pillow cuts to 8
    levels.py        arrays of 8 and 16 bits
    limits.py        how many pixels are too many

docs/pictures.md has the rules in full.
"""

from lichen.picture.levels import Levels, Pixels, check_depth, to_8_bits, to_16_bits
from lichen.picture.limits import MAX_PIXELS, check_pixels
from lichen.picture.picture import Picture, from_chunks, to_chunks
from lichen.picture.reading import ImageLike, load, readable_suffixes

__all__ = [
    "MAX_PIXELS",
    "ImageLike",
    "Levels",
    "Picture",
    "Pixels",
    "check_depth",
    "check_pixels",
    "from_chunks",
    "load",
    "readable_suffixes",
    "to_8_bits",
    "to_16_bits",
    "to_chunks",
]
