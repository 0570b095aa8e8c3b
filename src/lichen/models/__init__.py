"""The codecs of the literature, one file a paper, and the registry that names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lichen.errors import WeightsError
from lichen.models import light
from lichen.models.base import Model


@dataclass(frozen=True)
class Entry:
    """A model: what builds it from a configuration, its presets, and the number that files name it by for ever."""

    name: str
    number: int  # 1..255, never reused
    build: Callable[[Any], Model]
    presets: Mapping[str, Any]  # name -> frozen dataclass of hyper-parameters
    summary: str
    citation: str
    translate: Callable[[Mapping[str, Any]], tuple[Any, dict[str, Any]]] | None = None
    """A foreign or own state dict -> its configuration, and the state dict in our names."""


REGISTRY: dict[str, Entry] = {}


def register(entry: Entry) -> None:
    """Add a model. ValueError where its name or number is taken."""
    if entry.name in REGISTRY or any(entry.number == e.number for e in REGISTRY.values()):
        raise ValueError(f"model {entry.name} (number {entry.number}) is registered already")
    REGISTRY[entry.name] = entry


def find(name: str | int) -> Entry:
    """A registered model by its name or number; WeightsError for an unknown one."""
    for entry in REGISTRY.values():
        if name in (entry.name, entry.number):
            return entry
    raise WeightsError(f"no model is called {name}: Lichen knows {', '.join(REGISTRY)}")


def create(name: str, preset: str = "default") -> Model:
    """A model with untrained weights, its `name` and `preset` set."""
    entry = find(name)
    if preset not in entry.presets:
        raise WeightsError(f"{name} has no preset {preset}: it has {', '.join(entry.presets)}")
    model = entry.build(entry.presets[preset])
    model.name = entry.name
    return model


register(
    Entry(
        "light",
        1,
        light.Light,
        light.PRESETS,
        "the default: light transforms, joint prior, one network for qualities 1 to 100",
        "this library; prior after Minnen, Balle, Toderici, NeurIPS 2018",
    )
)
