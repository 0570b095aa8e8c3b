"""The codecs of the literature, one file a paper, and the registry that names them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lichen.errors import WeightsError
from lichen.models import compressai, light, minnen2018, toderici2017
from lichen.models.base import Model, Preset


@dataclass(frozen=True)
class Entry:
    """A model: what builds it from a configuration, its presets, and the number that files name it by for ever."""

    name: str
    number: int  # 1..255, never reused
    build: Callable[[Any], Model]
    presets: Mapping[str, Preset]
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


def create(name: str, preset: str | None = None) -> Model:
    """A model with untrained weights, of its first preset where none is named. WeightsError for unknown ones."""
    entry = find(name)
    preset = next(iter(entry.presets)) if preset is None else preset
    if preset not in entry.presets:
        raise WeightsError(f"{name} has no preset {preset}: it has {', '.join(entry.presets)}")
    return build(entry, entry.presets[preset].config)


def build(entry: Entry, config: Any) -> Model:
    """A model of a configuration, with untrained weights, that knows its name."""
    model = entry.build(config)
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

_MINNEN2018 = {
    "minnen2018-factorized": (2, "factorized prior", "Balle, Minnen, Singh, Hwang, Johnston, ICLR 2018"),
    "minnen2018-scale": (3, "scale hyperprior", "Balle, Minnen, Singh, Hwang, Johnston, ICLR 2018"),
    "minnen2018-mean-scale": (4, "mean and scale hyperprior", "Minnen, Balle, Toderici, NeurIPS 2018"),
    "minnen2018-context": (5, "context model without hyperprior", "Minnen, Balle, Toderici, NeurIPS 2018"),
    "minnen2018-joint": (6, "context model and hyperprior", "Minnen, Balle, Toderici, NeurIPS 2018"),
}

for _name, (_number, _summary, _citation) in _MINNEN2018.items():
    register(
        Entry(
            _name,
            _number,
            minnen2018.Minnen2018,
            minnen2018.PRESETS[_name],
            _summary,
            _citation,
            functools.partial(compressai.translate, _name),
        )
    )

register(
    Entry(
        "toderici2017",
        11,
        toderici2017.Toderici2017,
        toderici2017.PRESETS,
        "progressive recurrent codec: a file is of use after any iteration",
        "Toderici, Vincent, Johnston, Hwang, Minnen, Shor, Covell, CVPR 2017",
    )
)
