"""How many pixels are too many: our limit in place of Pillow's."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from PIL import Image

from lichen.errors import LimitError

MAX_PIXELS = 2 * (1024**3 // 4 // 3)
"""The default limit, 178,956,970 pixels: where Pillow too refuses to go on (`Image.MAX_IMAGE_PIXELS`, twice)."""


def check_pixels(width: int, height: int, max_pixels: int | None = MAX_PIXELS) -> None:
    """LimitError where width x height exceeds max_pixels."""
    if max_pixels is not None and width * height > max_pixels:
        raise LimitError(
            f"the picture has {width}x{height} pixels and the limit is {max_pixels}: raise max_pixels if you trust it"
        )


_lifting = threading.Lock()
_lifted = 0
_saved_limit: int | None = None


@contextlib.contextmanager
def pillow_limit(max_pixels: int | None) -> Iterator[None]:
    """Let `max_pixels` rule in place of Pillow's own limit, which belongs to the whole process; safe among threads."""
    global _lifted, _saved_limit
    with _lifting:
        if not _lifted:
            _saved_limit = Image.MAX_IMAGE_PIXELS
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None:
            Image.MAX_IMAGE_PIXELS = None if max_pixels is None else max(limit, max_pixels)
        _lifted += 1
    try:
        yield
    finally:
        with _lifting:
            _lifted -= 1
            if not _lifted:
                Image.MAX_IMAGE_PIXELS = _saved_limit
