"""Arrays of levels, of 8 or 16 bits a channel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from lichen.errors import PictureError

Pixels = npt.NDArray[np.uint8]
Levels = npt.NDArray[np.unsignedinteger[Any]]  # uint8 or uint16


def to_8_bits(levels: Levels) -> Pixels:
    """0..65535 -> 0..255: v / 257, rounded; uint8 as it is."""
    if levels.dtype == np.uint8:
        return levels.astype(np.uint8, copy=False)
    return ((np.minimum(levels, 65407) + np.uint16(128)) // np.uint16(257)).astype(np.uint8)  # 65408 + 128 overflows


def to_16_bits(levels: Levels) -> npt.NDArray[np.uint16]:
    """0..255 -> 0..65535: 257 v; uint16 as it is."""
    return levels * np.uint16(257) if levels.dtype == np.uint8 else levels.astype(np.uint16, copy=False)


def check_depth(depth: int) -> None:
    """PictureError for anything but 8 or 16 bits a channel."""
    if depth not in (8, 16):
        raise PictureError(f"{depth} bits a channel are not supported: take 8 or 16")


def at_depth(depth: int, levels: Any) -> Any:
    """With 8 or 16 bits a channel; None stays None. PictureError for another depth."""
    check_depth(depth)
    return levels if levels is None else to_8_bits(levels) if depth == 8 else to_16_bits(levels)


def split(levels: Levels) -> tuple[Levels, Levels | None]:
    """(H, W, 1 to 4) -> grey or RGB, and alpha where there is one."""
    channels = levels.shape[2]
    colours = levels[..., :3] if channels > 2 else levels[..., 0]
    alpha = np.ascontiguousarray(levels[..., -1]) if channels in (2, 4) else None
    return np.ascontiguousarray(colours), alpha


def check_array(array: Levels, what: str) -> None:
    """PictureError for an array that has no levels in it."""
    if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3):
        raise PictureError(f"{what} of {array.dtype} and shape {array.shape} are no picture: give uint8, (H, W, 3)")
    if not array.size:
        raise PictureError(f"{what} of shape {array.shape} are empty: a picture has one pixel at least")
