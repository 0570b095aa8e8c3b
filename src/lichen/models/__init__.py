"""The codecs of the literature, one file per paper, and the registry that names them.

Other packages add theirs by an entry point of the group `lichen.models` that names a module which calls `register`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from lichen.container import MODELS
from lichen.errors import WeightsError
from lichen.models import balle2018, compressai, hu2020, lee2019, light, mentzer2018, minnen2018, toderici2017
from lichen.models.base import Model, Preset


@dataclass(frozen=True)
class Entry:
    """A model: what builds it from a configuration, its presets, and what files name it by for ever."""

    name: str
    number: int | None  # as `lichen.container.MODELS` has it; None for a model of another package: files give its name
    build: Callable[[Any], Model]
    presets: Mapping[str, Preset]
    summary: str
    citation: str
    translate: Callable[[Mapping[str, Any]], tuple[Any, dict[str, Any]]] | None = None
    """A foreign or own state dict -> its configuration, and the state dict in our names."""

    @property
    def in_files(self) -> int | str:
        """The number, or the name where there is none."""
        return self.name if self.number is None else self.number


REGISTRY: dict[str, Entry] = {}
_NUMBERS = {name: number for number, name in MODELS.items()}


def register(entry: Entry) -> None:
    """Add a model. ValueError where its name is taken, or its number is not what `MODELS` has for its name."""
    if entry.name in REGISTRY:
        raise ValueError(f"a model called {entry.name} is registered already")
    if entry.number != _NUMBERS.get(entry.name):
        raise ValueError(f"{entry.name} cannot have the number {entry.number}: models of other packages have None")
    REGISTRY[entry.name] = entry


def find(name: str | int) -> Entry:
    """A model by its name or number; WeightsError for an unknown one."""
    called = MODELS.get(name, "") if isinstance(name, int) else name
    entry = REGISTRY.get(called) or everything().get(called)  # other packages are asked for what ours do not have
    if entry is not None:
        return entry
    raise WeightsError(f"no model is called {name}: Lichen knows {', '.join(REGISTRY)}")


@functools.cache
def everything() -> Mapping[str, Entry]:
    """All models, those of other installed packages included. WeightsError where one of these cannot be imported."""
    for point in metadata.entry_points(group="lichen.models"):
        try:
            point.load()
        except Exception as e:
            raise WeightsError(f"the models of {point.value} cannot be had ({type(e).__name__}: {e})") from e
    return REGISTRY


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


_BALLE = "Balle, Minnen, Singh, Hwang, Johnston, ICLR 2018"
_MINNEN = "Minnen, Balle, Toderici, NeurIPS 2018"
_LEE = "Lee, Cho, Beack, ICLR 2019"


def _entry(name: str, *rest: Any) -> Entry:
    """One of those whose numbers files have."""
    return Entry(name, _NUMBERS[name], *rest)


def _minnen2018(prior: str, summary: str, citation: str) -> Entry:
    name = f"minnen2018-{prior}"
    return _entry(
        name,
        minnen2018.Minnen2018,
        minnen2018.PRESETS[name],
        summary,
        citation,
        functools.partial(compressai.translate, name),
    )


for _one in (
    _entry(
        "light",
        light.Light,
        light.PRESETS,
        "the default: light transforms, joint prior, one network for qualities 1 to 100",
        f"this library; prior after {_MINNEN}",
    ),
    _minnen2018("factorized", "factorized prior", _BALLE),
    _minnen2018("scale", "scale hyperprior", _BALLE),
    _minnen2018("mean-scale", "mean and scale hyperprior", _MINNEN),
    _minnen2018("context", "context model without hyperprior", _MINNEN),
    _minnen2018("joint", "context model and hyperprior", _MINNEN),
    _entry(
        "lee2019-base",
        lee2019.Lee2019,
        lee2019.PRESETS["lee2019-base"],
        "context-adaptive entropy model: contexts from hyper-latents and from decoded latents",
        _LEE,
    ),
    _entry(
        "lee2019-hybrid",
        lee2019.Lee2019,
        lee2019.PRESETS["lee2019-hybrid"],
        "context-adaptive entropy model with more latents, beside the context, for high rates",
        _LEE,
    ),
    _entry(
        "hu2020",
        hu2020.Hu2020,
        hu2020.PRESETS,
        "coarse-to-fine hyperprior, no context",
        "Hu, Yang, Liu, AAAI 2020; Hu, Yang, Ma, Liu, TPAMI 2021",
    ),
    _entry(
        "mentzer2018",
        mentzer2018.Mentzer2018,
        mentzer2018.PRESETS,
        "learned symbols, importance map, 3-D context model; trained for MS-SSIM",
        "Mentzer, Agustsson, Tschannen, Timofte, Van Gool, CVPR 2018",
    ),
    _entry(
        "toderici2017",
        toderici2017.Toderici2017,
        toderici2017.PRESETS,
        "progressive recurrent codec: a file is of use after any iteration",
        "Toderici, Vincent, Johnston, Hwang, Minnen, Shor, Covell, CVPR 2017",
    ),
    _entry(
        "balle2018-factorized",
        balle2018.Balle2018,
        balle2018.PRESETS,
        "factorized prior, three convolutions with GDN or another nonlinearity",
        "Balle, PCS 2018; Balle, Laparra, Simoncelli, ICLR 2017",
    ),
):
    register(_one)
