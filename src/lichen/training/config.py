"""What decides a training: a dataclass, saved as config.json beside the weights and read back to resume.

A training that is resumed needs no option but its folder. One that contradicts what was saved is refused, unless it
belongs to the run alone (`RUN`): where, for how long, on what arithmetic.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from lichen.errors import LichenError

CONFIG_FILE, CHECKPOINT_FILE, WEIGHTS_FILE = "config.json", "checkpoint.pt", "weights.safetensors"

Objective = Literal["mse", "ms-ssim"]
Schedule = Literal["cosine", "constant"]
Precision = Literal["auto", "32-true", "bf16-mixed"]

MS_SSIM_CROP = 192  # four halvings of the 11-pixel window ask for more than 160 pixels


class ConfigError(LichenError):
    """Options that no training can have, or that contradict the training to be resumed."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training. ConfigError for values that make no sense.

    A path, `data` and `start` alike, is made absolute, `preset` and `lmbda` are settled by `resolve`.
    """

    data: list[str]  # folders
    out: str
    model: str = "light"
    preset: str | None = None  # the model's first
    recipe: str | None = None  # "paper": defaults are those of the preset's paper
    start: str | None = None  # a file of weights to begin with, in place of the model's own start
    objective: Objective = "mse"
    minutes: float | None = None  # of training in all, over all resumes; 60 where neither this nor steps is given
    steps: int | None = None  # in all, in place of minutes
    pause_after: float | None = None  # minutes after which this run stops, to be resumed
    lmbda: float | None = None  # distortion against rate, for models of one quality; default 0.013, MS-SSIM 16.64
    lr: float = 1e-3  # at its peak
    schedule: Schedule = "cosine"  # to zero, or constant
    warmup: int = 2000  # steps, at most a tenth of the training
    betas: tuple[float, float] = (0.9, 0.99)
    batch: int = 4  # crops a process and step
    crop: int = 128
    rescale: float = 1.0  # crops are made from regions up to so many times larger
    places: int = 2  # in a picture, of which a crop is the one with most detail
    hard_every: int = 16  # one crop in so many is made harder than photographs are; 0 for none
    clip: float = 1.0  # norm of the gradient
    average: float = 0.999  # decay of the moving average of weights
    precision: Precision = "auto"
    compile: bool = False  # torch.compile
    seed: int = 0
    start_crops: int = 3000  # of 64x64, for models that start from data
    checkpoint_seconds: float = 100.0
    validate_seconds: float = 600.0
    log_every: int = 250  # steps
    cache: str = field(default_factory=lambda: str(Path.home() / ".cache" / "lichen" / "pixels"))

    def __post_init__(self) -> None:
        for name, allowed in {"objective": Objective, "schedule": Schedule, "precision": Precision}.items():
            if getattr(self, name) not in get_args(allowed):
                raise ConfigError(f"{name} {getattr(self, name)} is none of {', '.join(get_args(allowed))}")
        for name in ("minutes", "steps", "lr", "batch", "crop", "clip", "start_crops", "log_every", "lmbda", "places"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} {value} has to be above 0")
        if not self.rescale >= 1:
            raise ConfigError(f"rescale {self.rescale} has to be at least 1")
        for name in ("warmup", "hard_every", "seed"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} {getattr(self, name)} has to be 0 or more")
        if self.minutes is not None and self.steps is not None:
            raise ConfigError("a training lasts so many minutes or so many steps: leave one of them out")
        if self.objective == "ms-ssim" and self.crop < MS_SSIM_CROP:
            raise ConfigError(
                f"MS-SSIM looks at five scales and needs crops of {MS_SSIM_CROP} or more, not {self.crop}: "
                f"--crop {MS_SSIM_CROP}"
            )
        for name, value in {
            "data": [str(Path(d).resolve()) for d in self.data],
            "start": None if self.start is None else str(Path(self.start).resolve()),
            "minutes": 60.0 if self.minutes is None and self.steps is None else self.minutes,
            "betas": tuple(self.betas),  # JSON has lists alone
        }.items():
            object.__setattr__(self, name, value)


RUN = {"out", "pause_after", "precision", "compile", "checkpoint_seconds", "validate_seconds", "log_every", "cache"}
"""Fields that a run may have of its own: they do not change what is trained, up to the rounding of arithmetic."""

OPTIONS = {"start": "--weights"}  # where an option is not called as its field is


def option(name: str) -> str:
    """A field's option on the command line."""
    return OPTIONS.get(name, "--" + name.replace("_", "-"))


def resolve(config: TrainConfig) -> TrainConfig:
    """Name the preset, and lmbda by the objective.

    A file of weights to begin with decides the preset where none is named. Raises WeightsError for unknown names and
    for weights of another model or configuration, ConfigError for an objective that the model cannot have.
    """
    from lichen.models import create, find
    from lichen.models.weights import read
    from lichen.training.loss import DEFAULT_LMBDA

    entry, preset = find(config.model), config.preset
    if config.start is not None:
        found = read(Path(config.start))
        fits = [name for name, p in entry.presets.items() if found.name == entry.name and _same(found.cfg, p.config)]
        if preset not in (None, *fits) or not fits:
            wanted = f"{entry.name}" if preset is None else f"{entry.name}, preset {preset}"
            holds = f"{config.start} holds weights of {found.name} ({found.cfg})"
            raise ConfigError(f"{holds}, not of {wanted}: name what it holds (--model, --preset)")
        preset = fits[0] if preset is None else preset
    preset = next(iter(entry.presets)) if preset is None else preset
    net = create(entry.name, preset)
    if net.own_loss is not None and config.objective != "mse":
        raise ConfigError(f"{entry.name} is trained for an objective of its own: leave --objective out")
    if config.compile and (net.own_loss or net.staged) is not None:
        raise ConfigError(f"what {entry.name} does in training cannot be compiled: leave --compile out")
    lmbda = DEFAULT_LMBDA[config.objective] if config.lmbda is None else config.lmbda
    return dataclasses.replace(config, preset=preset, lmbda=lmbda)


def _same(one: Any, other: Any) -> bool:
    """Whether two configurations of a model are equal once they went through a file."""
    as_saved = [json.dumps(dataclasses.asdict(c)) for c in (one, other)]
    return as_saved[0] == as_saved[1]


def new_config(given: Mapping[str, Any], processes: int = 1) -> TrainConfig:
    """The configuration of a new training from what was given, above the recipe of a paper where that is asked for.

    A paper's batch is divided among the processes. Raises ConfigError where the recipe leaves a choice or does not
    exist, for a lmbda that means nothing to the model, and as `resolve` does.
    """
    from lichen.models import create, find

    for name in ("data", "out"):
        if not given.get(name):
            raise ConfigError(f"{option(name)} is missing: where are the pictures, and where shall the weights go?")
    recipe: dict[str, Any] = {}
    if given.get("recipe") is not None:
        if given["recipe"] != "paper":
            raise ConfigError(f"no recipe is called {given['recipe']}: there is paper")
        entry = find(given.get("model", TrainConfig.model))
        preset = given.get("preset") or next(iter(entry.presets))
        if preset not in entry.presets:
            raise ConfigError(f"{entry.name} has no preset {preset}: it has {', '.join(entry.presets)}")
        recipe = dict(entry.presets[preset].recipe)
        if not recipe:
            raise ConfigError(f"preset {preset} of {entry.name} comes from no paper and has no recipe")
        if "lmbda" not in given and given.get("objective", "mse") != recipe.get("objective", "mse"):
            raise ConfigError(f"the recipe is not for {given['objective']}: choose its lmbda with --lmbda")
        if isinstance(recipe.get("lmbda"), list | tuple) and "lmbda" not in given:
            if not recipe["lmbda"]:
                raise ConfigError(f"no lmbda is published for preset {preset} of {entry.name}: choose with --lmbda")
            choice = ", ".join(f"{v:g}" for v in recipe["lmbda"])
            raise ConfigError(f"the paper trained a network for each lmbda of {choice}: choose with --lmbda")
        if "batch" in recipe and "batch" not in given:
            if recipe["batch"] % processes:
                raise ConfigError(f"{recipe['batch']} crops do not divide among {processes} processes: give --batch")
            recipe["batch"] //= processes
        for one, other in (("minutes", "steps"), ("steps", "minutes")):
            if one in given:
                recipe.pop(other, None)
    values = {**recipe, **given}
    unknown = values.keys() - {f.name for f in dataclasses.fields(TrainConfig)}
    if unknown:
        raise ConfigError(f"the trainer knows no {', '.join(sorted(unknown))}")
    config = resolve(TrainConfig(**values))
    if given.get("lmbda") is not None:
        net = create(config.model, config.preset)
        if net.variable_rate:
            raise ConfigError(f"{config.model} {config.preset} is trained for all qualities at once: leave --lmbda out")
        if net.own_loss is not None:
            raise ConfigError(f"{config.model} is trained for an objective of its own: leave --lmbda out")
    return config


def saved_config(out: str | os.PathLike[str], given: Mapping[str, Any] | None = None) -> TrainConfig:
    """The configuration of the training in `out`, with what was given for this run; a pause was that of another.

    Raises ConfigError where there is none, it cannot be read, or what was given contradicts it.
    """
    path, given = Path(out) / CONFIG_FILE, {} if given is None else given
    try:
        saved = json.loads(path.read_text())
        config = TrainConfig(**{**saved, "out": str(out), "pause_after": None})
    except FileNotFoundError:
        raise ConfigError(f"there is no training in {out} to go on with: train without --resume first") from None
    except (OSError, ValueError, TypeError) as e:
        raise ConfigError(f"{path} is no configuration of a training ({e})") from e
    wanted = dataclasses.replace(config, **{k: v for k, v in given.items() if k in RUN})
    for name, value in given.items():
        if name in RUN:
            continue
        now, kept = _normal(name, value), getattr(config, name)
        if now != kept:
            was = f"{option(name)} {kept}" if kept is not None else f"no {option(name)}"
            raise ConfigError(
                f"{option(name)} {now} contradicts the training in {out}, which has {was}: leave it out, or begin "
                f"another one in another folder, from these weights if you like (--weights {Path(out) / WEIGHTS_FILE})"
            )
    return wanted


def _normal(name: str, value: Any) -> Any:
    if name == "data":
        return [str(Path(d).resolve()) for d in value]
    return str(Path(value).resolve()) if name == "start" else value


def to_json(config: TrainConfig) -> str:
    """What `saved_config` reads."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"
