"""CompressAI's four codecs without what its package drags in: for comparing with it, in tests and in speed.py.

CompressAI's `__init__` files import point clouds, videos and data sets, and through them torchvision and
torch-geometric. None of that is needed here: bare packages take the place of `compressai` and `compressai.models`, and
a registry of decorators that do nothing that of `compressai.registry`; the modules of the four codecs
(`compressai.models.google` and what it imports) then load as they are.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

INSTALL = "pip install --no-deps compressai==1.2.8"


@contextlib.contextmanager
def google() -> Iterator[Any]:
    """The module compressai.models.google. ModuleNotFoundError where CompressAI is not installed."""
    spec = importlib.util.find_spec("compressai")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"CompressAI is not installed: {INSTALL}")
    root = next(iter(spec.submodule_search_locations))
    bare: dict[str, Any] = {n: types.ModuleType(n) for n in ("compressai", "compressai.models", "compressai.registry")}
    bare["compressai"].__path__ = [root]
    bare["compressai"].available_entropy_coders = lambda: ["ans"]
    bare["compressai"].get_entropy_coder = lambda: "ans"
    bare["compressai.models"].__path__ = [f"{root}/models"]

    def decorator(name: str) -> Callable[[Any], Any]:
        return lambda c: c

    bare["compressai.registry"].register_model = bare["compressai.registry"].register_module = decorator
    sys.modules.update(bare)
    try:
        yield importlib.import_module("compressai.models.google")
    finally:
        for name in [n for n in sys.modules if n.partition(".")[0] == "compressai"]:
            del sys.modules[name]
