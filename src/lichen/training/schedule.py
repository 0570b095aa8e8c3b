"""How far a training is, the rate there, and the randomness of a step."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lichen.training.config import TrainConfig
from lichen.training.log import At

WARMUP_SHARE = 0.1
"""Of a training, at most, in which the learning rate rises."""


def progress(config: TrainConfig, at: At) -> float:
    """How far a training is: 0 at its start, 1 at its end, by steps or by time."""
    if config.steps is not None:
        return at.step / config.steps
    assert config.minutes is not None
    return at.seconds / 60 / config.minutes


def stage(config: TrainConfig, done: float) -> float:
    """How far a model is on its way through stages, 0..1: at the end from the start where it began with weights."""
    return done if config.start is None else 1.0


def learning_rate(done: float, step: int, config: TrainConfig) -> float:
    """Its factor, 0..1: linear over `warmup` steps or a tenth of the training, then cosine to zero or constant."""
    rise = min(1.0, max((step + 1) / max(1, config.warmup), done / WARMUP_SHARE))
    return rise if config.schedule == "constant" else rise * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def step_seed(*numbers: int) -> int:
    """A seed for torch from (seed, process, step)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def stratified(batch: int, processes: int, rank: int, seed: list[int]) -> Tensor:
    """(batch,) in 0..1: of batch * processes equal parts of 0..1 each has one number, in one of the processes."""
    rng = np.random.default_rng([*seed, 1])
    u = (rng.permutation(batch * processes) + rng.random(batch * processes)) / (batch * processes)
    return torch.from_numpy(u[rank * batch : (rank + 1) * batch]).float()
