"""Lichen: learned image compression.

>>> data = lichen.encode("photo.png", quality=60)   # bytes of a .lichen file
>>> picture = lichen.decode(data)                   # PIL.Image.Image
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lichen.errors import LichenError
from lichen.version import __version__

if TYPE_CHECKING:
    from lichen.codec import decode, decode_picture, encode
    from lichen.models.base import Model
    from lichen.models.weights import load

__all__ = ["encode", "decode", "decode_picture", "load", "Model", "LichenError", "__version__"]

_HOMES = {
    "encode": "codec",
    "decode": "codec",
    "decode_picture": "codec",
    "load": "models.weights",
    "Model": "models.base",
}


def __getattr__(name: str) -> Any:
    """Import torch when it is first needed: `lichen --help` does not wait for it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'lichen' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"lichen.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
