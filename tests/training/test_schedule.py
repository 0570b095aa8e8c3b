"""The rate over a training, and what a step draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from lichen.training.config import TrainConfig
from lichen.training.log import At
from lichen.training.schedule import learning_rate, progress, stratified

Configure = Callable[..., TrainConfig]


def test_learning_rate(tiny_config: Configure) -> None:
    config = tiny_config("run", 100_000, warmup=2000)

    def at(step: int, config: TrainConfig = config) -> float:
        return learning_rate(progress(config, At(step)), step, config)

    assert at(0) == pytest.approx(1 / 2000, rel=1e-3)
    assert at(999) == pytest.approx(0.5, rel=1e-3)
    assert at(50_000) == pytest.approx(0.5)
    assert at(100_000) == pytest.approx(0)
    assert at(50_000, dataclasses.replace(config, schedule="constant")) == 1
    short = dataclasses.replace(config, steps=100)
    assert at(5, short) == pytest.approx(0.5, rel=0.02)  # a tenth of the training, not 2000 steps
    by_minutes = dataclasses.replace(config, steps=None, minutes=10.0)
    assert progress(by_minutes, At(7, 150.0)) == 0.25


def test_qualities_are_spread_over_all_processes() -> None:
    u = torch.cat([stratified(3, 4, rank, [0, 17]) for rank in range(4)])
    assert sorted((u * 12).floor().tolist()) == list(range(12))
    assert not torch.equal(u, torch.cat([stratified(3, 4, rank, [0, 18]) for rank in range(4)]))
