import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lichen.errors import LichenError
from lichen.models import REGISTRY, create, minnen2018
from lichen.models.base import Preset
from lichen.models.weights import save
from lichen.training.config import (
    CONFIG_FILE,
    RUN,
    ConfigError,
    TrainConfig,
    new_config,
    saved_config,
    to_json,
)

FIELDS = {f.name for f in dataclasses.fields(TrainConfig)}


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    given = {"data": ["a", "b"], "out": str(tmp_path), "model": "minnen2018-scale", "preset": "small", "steps": 7}
    config = new_config({**given, "lr": 3e-4, "objective": "ms-ssim", "crop": 256, "betas": [0.8, 0.9]})
    assert config.data == [str(Path.cwd() / "a"), str(Path.cwd() / "b")]
    assert (config.lmbda, config.minutes, config.steps) == (16.64, None, 7)
    (tmp_path / CONFIG_FILE).write_text(to_json(config))
    assert saved_config(tmp_path) == config
    assert saved_config(tmp_path, {**given, "lr": 3e-4}) == config  # the same said twice


def test_defaults() -> None:
    config = new_config({"data": ["a"], "out": "o"})
    assert (config.model, config.preset, config.minutes, config.steps) == ("light", "default", 60.0, None)
    assert (config.objective, config.lmbda) == ("mse", 0.013)


@pytest.mark.parametrize(
    ("field", "value"),
    [("lr", 3e-4), ("steps", 8), ("minutes", 3.0), ("data", ["elsewhere"]), ("start", "w"), ("model", "other")],
)
def test_a_resume_that_contradicts_is_refused(tmp_path: Path, field: str, value: Any) -> None:
    config = new_config({"data": ["a"], "out": str(tmp_path), "steps": 7})
    (tmp_path / CONFIG_FILE).write_text(to_json(config))
    with pytest.raises(ConfigError, match=r"contradicts the training in .*: leave it out, or begin another"):
        saved_config(tmp_path, {field: value})


def test_a_run_may_have_its_own(tmp_path: Path) -> None:
    config = new_config({"data": ["a"], "out": "elsewhere", "steps": 7})
    (tmp_path / CONFIG_FILE).write_text(to_json(config))
    own = {"pause_after": 3.0, "cache": "c", "precision": "bf16-mixed", "out": str(tmp_path)}
    assert own.keys() <= RUN <= FIELDS
    assert saved_config(tmp_path, own) == dataclasses.replace(config, **own)
    assert saved_config(tmp_path).out == str(tmp_path)  # a folder may move


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no training in .* train without --resume first"):
        saved_config(tmp_path)
    for text in ("not json", '{"data": ["a"], "out": "o", "colour": 3}', '["a"]'):
        (tmp_path / CONFIG_FILE).write_text(text)
        with pytest.raises(ConfigError, match="is no configuration of a training"):
            saved_config(tmp_path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"data": None}, "--data is missing"),
        ({"batch": 0}, "batch 0 has to be above 0"),
        ({"lr": float("nan")}, "lr nan has to be above 0"),
        ({"rescale": 0.5}, "at least 1"),
        ({"minutes": 3.0, "steps": 4}, "leave one of them out"),
        ({"objective": "ms-ssim", "crop": 128}, "needs crops of 192 or more, not 128: --crop 192"),
        ({"objective": "ssim"}, "is none of mse, ms-ssim"),
        ({"model": "nothing"}, "no model is called nothing"),
        ({"preset": "huge"}, "no preset huge"),
        ({"start": "/nowhere/w.safetensors"}, "there are no weights at /nowhere"),
        ({"recipe": "paper"}, "comes from no paper"),
        ({"recipe": "mine"}, "no recipe is called mine"),
        ({"seed": -1}, "seed -1 has to be 0 or more"),
        ({"lmbda": 0.01}, "light default is trained for all qualities at once: leave --lmbda out"),
        ({"model": "mentzer2018", "lmbda": 0.01}, "an objective of its own: leave --lmbda out"),
        ({"model": "toderici2017", "compile": True}, "cannot be compiled"),
        ({"model": "hu2020", "recipe": "paper"}, "no lmbda is published for preset low of hu2020"),
    ],
)
def test_options_that_make_no_training(given: dict[str, Any], message: str) -> None:
    with pytest.raises(LichenError, match=message):
        new_config({"data": ["a"], "out": "o", **given})


def test_a_papers_recipe() -> None:
    given = {"data": ["a"], "out": "o", "model": "minnen2018-joint", "recipe": "paper"}
    with pytest.raises(ConfigError, match=r"a network for each lmbda of 0\.0018, .*: choose with --lmbda"):
        new_config(given)
    config = new_config({**given, "lmbda": 0.0067})
    assert (config.lmbda, config.lr, config.batch, config.crop) == (0.0067, 1e-4, 16, 256)
    assert (config.steps, config.minutes) == (5_000_000, None)
    assert (config.schedule, config.warmup, config.betas, config.hard_every) == ("constant", 0, (0.9, 0.999), 0)
    config = new_config({**given, "lmbda": 0.0067, "minutes": 5.0, "lr": 3e-4}, processes=8)
    assert (config.steps, config.minutes, config.lr, config.batch) == (None, 5.0, 3e-4, 2)
    assert new_config({**given, "lmbda": 0.0067, "batch": 5}, processes=8).batch == 5
    with pytest.raises(ConfigError, match="16 crops do not divide among 3 processes: give --batch"):
        new_config({**given, "lmbda": 0.0067}, processes=3)
    with pytest.raises(ConfigError, match="not for ms-ssim: choose its lmbda"):
        new_config({**given, "objective": "ms-ssim"})


def test_every_recipe_is_of_the_trainers_fields() -> None:
    for entry in REGISTRY.values():
        for name, preset in entry.presets.items():
            assert preset.recipe.keys() <= FIELDS, f"{entry.name} {name}"
            lmbda = preset.recipe.get("lmbda") or [0.013]
            values = {**preset.recipe, "lmbda": lmbda[0] if isinstance(lmbda, list | tuple) else lmbda}
            TrainConfig(**{**values, "data": ["a"], "out": "o"})


def test_weights_choose_the_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = minnen2018.Config("scale", N=8, M=12, levels=2)
    monkeypatch.setitem(minnen2018.PRESETS["minnen2018-scale"], "tiny", Preset(tiny, ""))
    path = tmp_path / "w.safetensors"
    save(create("minnen2018-scale", "tiny"), path)
    given = {"data": ["a"], "out": "o", "start": str(path)}
    assert new_config({**given, "model": "minnen2018-scale"}).preset == "tiny"
    for wrong in ({"model": "minnen2018-scale", "preset": "small"}, {"model": "light"}):
        with pytest.raises(ConfigError, match=r"holds weights of minnen2018-scale .*--model, --preset"):
            new_config({**given, **wrong})


def test_a_model_with_an_objective_of_its_own_takes_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minnen2018.Minnen2018, "own_loss", lambda *_: None)
    given = {"data": ["a"], "out": "o", "model": "minnen2018-scale", "preset": "small"}
    assert new_config(given).objective == "mse"
    with pytest.raises(ConfigError, match="an objective of its own"):
        new_config({**given, "objective": "ms-ssim", "crop": 192})


def test_an_older_file_is_read(tmp_path: Path, tiny_config: Callable[..., TrainConfig]) -> None:
    """Before there were steps: minutes always, and numbers that JSON calls Infinity."""
    saved = json.loads(to_json(tiny_config("o", 7)))
    for name in ("steps", "objective", "recipe", "schedule", "rescale", "compile", "log_every"):
        del saved[name]
    (tmp_path / CONFIG_FILE).write_text(json.dumps({**saved, "minutes": 108.0, "pause_after": float("inf")}))
    config = saved_config(tmp_path)
    assert (config.minutes, config.steps, config.objective) == (108.0, None, "mse")
