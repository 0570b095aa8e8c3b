"""From other spaces to sRGB, through ICC profiles (Little CMS)."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from lichen.errors import LichenWarning
from lichen.picture import sixteen_bits
from lichen.picture.levels import Levels, to_8_bits, to_16_bits


def cmyk_to_srgb(image: Image.Image) -> Image.Image:
    """To sRGB by the file's profile (relative colorimetric, black point compensated), else by Pillow's formula."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            return _transformed(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
            pass  # a broken profile, or one of another space
    return image.convert("RGB")


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """CIE L*a*b* (D50) to sRGB."""
    return _transformed(image, ImageCms.createProfile("LAB"))


def _transformed(image: Image.Image, profile: Any) -> Image.Image:
    result = ImageCms.profileToProfile(
        image,
        profile,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    assert result is not None
    return result


def to_srgb(levels: Levels, icc: bytes) -> Levels:
    """From a profile's space to sRGB, as CMYK is; the levels as they are where the profile is broken."""
    source = levels
    if levels.ndim == 2 and icc[16:20] == b"RGB ":
        source = np.repeat(levels[..., None], 3, axis=2)
    if levels.dtype == np.uint16 and sixteen_bits.imagecodecs() is None:
        lost = "8 of 16 bits a channel went into the change to sRGB"
        warnings.warn(f"{lost}: {sixteen_bits.INSTALL} for all", LichenWarning, stacklevel=2)
        return to_16_bits(to_srgb(to_8_bits(levels), icc))
    try:
        if levels.dtype == np.uint16:
            colours = sixteen_bits.to_srgb(source, icc)
        else:
            colours = np.array(_transformed(Image.fromarray(source), ImageCms.ImageCmsProfile(io.BytesIO(icc))))
    except Exception:  # a broken profile, or one of another space: each library has errors of its own
        return levels
    return colours if levels.ndim == 3 else np.ascontiguousarray(colours[..., 1])
