"""Tiny models: every registered one, small enough for a test and far enough from zero to exercise all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lichen.models import build, find, light, minnen2018, toderici2017
from lichen.models.base import Model

CONFIGS: dict[str, Any] = {
    "light": light.Config(c1=8, c2=16, M=12, N=4, n1=1, n2=1, h=8, e=16, levels=3),
    **{
        name: minnen2018.Config(next(iter(p.values())).config.prior, N=8, M=12)
        for name, p in minnen2018.PRESETS.items()
    },
    "toderici2017": toderici2017.Config(
        "residual-gru", "additive", 5, 6, (4, 6, 8, 8), (8, 8, 8, 8, 8), (1, 1, 3, 1), context=6
    ),
}


def crops_of(photo: npt.NDArray[np.uint8], size: int = 64) -> torch.Tensor:
    """(64, 3, size, size) in 0..1: the photograph cut up."""
    x = torch.from_numpy(photo.copy()).permute(2, 0, 1).float() / 255
    return x.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous()


def make_tiny(name: str, photo: npt.NDArray[np.uint8]) -> Model:
    """A model started from a photograph where it can, every weight moved a little at random from a fixed seed."""
    torch.manual_seed(0)
    model = build(find(name), CONFIGS[name])
    model.start_from(crops_of(photo))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
        if name.startswith("minnen2018"):  # random transforms alone leave latents that all round to zero
            x = crops_of(photo)[::8]
            q = torch.full((len(x),), 50.0) if model.variable_rate else None
            _spread(model.g_a[-1], lambda: model.analyse(x, q), 5.0)
            if getattr(model.prior, "h_a", None) is not None:
                _spread(model.prior.h_a.net[-1], lambda: model.prior.h_a(model.analyse(x, q), None), 2.0)
        if name == "toderici2017":  # bits about which the entropy coder is anything but undecided
            for predictor in model.prior.predictors:
                predictor.out[-1].weight.mul_(8.0)
        for p in model.parameters():
            p.copy_(p.half().float())
    return model.eval()


def _spread(last: Any, output: Callable[[], torch.Tensor], deviation: float) -> None:
    """Scale a last layer so that its output has about this standard deviation."""
    factor = deviation / float(output().std())
    last.weight.mul_(factor)
    last.bias.mul_(factor)
