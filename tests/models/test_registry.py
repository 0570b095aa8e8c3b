"""What every registered model has to do, with tiny weights; files are tested in tests/test_codec.py."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny import CONFIGS, crops_of

from lichen import container
from lichen.errors import WeightsError
from lichen.models import REGISTRY, Entry, build, create, find, light, register
from lichen.models.base import Model
from lichen.training.loss import TrainingLoss


def batch(model: Model, photo: object) -> tuple[torch.Tensor, torch.Tensor | None]:
    x = crops_of(photo)[[0, 9, 30]]  # type: ignore[arg-type]
    return x, torch.tensor([5.0, 50.0, 95.0]) if model.variable_rate else None


def test_training_gives_pictures_and_bits(tiny: Model, photo: object) -> None:
    x, quality = batch(tiny, photo)
    tiny.train()
    x_hat, bits = tiny(x, quality)
    tiny.eval()
    assert x_hat.shape == x.shape
    assert bits
    for part, b in bits.items():
        assert b.shape == (3,), part
        assert bool((b > 0).all()), part


def test_gradient_reaches_every_parameter(tiny: Model, photo: object) -> None:
    x, quality = batch(tiny, photo)
    tiny.train()
    if tiny.own_loss is not None:
        loss = sum(tiny.own_loss(x, quality, torch.full((3,), 0.01), done)[0] for done in (0.0, 0.2, 0.22, 0.9))
    elif tiny.staged is not None:
        objective = TrainingLoss(tiny, "mse", 0.01)
        loss = sum(objective(x, quality, torch.full((3,), 0.01), done)[0] for done in (0.0, 0.2, 0.22, 0.9))
    else:
        x_hat, bits = tiny(x, quality)
        loss = ((x_hat - x) ** 2).mean() * 1e4 + sum(b.mean() for b in bits.values())
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    missing = [n for n, p in tiny.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    wild = [n for n, p in tiny.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    tiny.zero_grad(set_to_none=True)
    tiny.eval()
    assert missing == []
    assert wild == []


def test_every_model_has_a_tiny_configuration() -> None:
    assert CONFIGS.keys() == REGISTRY.keys()


@pytest.mark.parametrize("name", REGISTRY)
def test_presets_build(name: str) -> None:
    entry = find(name)
    assert entry.number is not None and find(entry.number) is entry
    assert "small" in entry.presets
    for preset, p in entry.presets.items():
        assert dataclasses.is_dataclass(p.config)
        assert p.summary
        with torch.device("meta"):
            model = create(name, preset)
        assert model.name == name
        if preset.startswith("small"):
            assert sum(q.numel() for q in model.parameters()) <= 1e6, "a small preset ships in 2 MB, 2 bytes a weight"


def test_names_and_numbers_are_taken_once() -> None:
    entry = REGISTRY["light"]
    with pytest.raises(ValueError, match="light is registered already"):
        register(dataclasses.replace(entry, number=255))
    for number in (entry.number, 255):
        with pytest.raises(ValueError, match=f"lighter cannot have the number {number}"):
            register(dataclasses.replace(entry, name="lighter", number=number))


def test_readers_without_models_know_their_names() -> None:
    assert {entry.number: name for name, entry in REGISTRY.items()} == container.MODELS


def test_unknown_names() -> None:
    with pytest.raises(WeightsError, match="Lichen knows light"):
        find("heavy")
    with pytest.raises(WeightsError, match="it has default, small"):
        create("light", "huge")


def test_a_built_model_knows_its_name() -> None:
    entry = Entry("light", 1, light.Light, light.PRESETS, "", "")
    assert build(entry, CONFIGS["light"]).name == "light"
