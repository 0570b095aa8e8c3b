"""Tiny models: every registered one, small enough for a test and far enough from zero to exercise all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from lichen.models import balle2018, build, find, hu2020, lee2019, light, mentzer2018, minnen2018, toderici2017
from lichen.models.base import Model

CONFIGS: dict[str, Any] = {
    "light": light.Config(c1=8, c2=16, M=12, N=4, n1=1, n2=1, h=8, e=16, levels=3),
    "minnen2018-factorized": minnen2018.Config("factorized", N=8, M=12, levels=3),
    "minnen2018-scale": minnen2018.Config("scale", N=8, M=12),
    "minnen2018-mean-scale": minnen2018.Config("mean-scale", N=8, M=12),
    "minnen2018-context": minnen2018.Config("context", N=8, M=12),
    "minnen2018-joint": minnen2018.Config("joint", N=8, M=12, levels=3),
    "mentzer2018": mentzer2018.Config(C=3, H_target=0.1, n=8, groups=1, features=6),
    "lee2019-base": lee2019.Config(N=8, M1=6),
    "lee2019-hybrid": lee2019.Config(N=8, M1=6, M2=5),
    "hu2020": hu2020.Config(N=8, M=12, E=8, C2=8, K=8, C1=4),
    "toderici2017": toderici2017.Config(
        "residual-gru", "additive", 5, 6, (4, 6, 8, 8), (8, 8, 8, 8, 8), (1, 1, 3, 1), context=6
    ),
    "balle2018-factorized": balle2018.Config("simplified-gdn", "rdft", N=8, M=12, levels=3),
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
        if name.startswith(("minnen2018", "lee2019")):  # random transforms alone leave latents that all round to zero
            x = crops_of(photo)[::8]
            q = torch.full((len(x),), 50.0) if model.variable_rate else None
            _spread(model.g_a[-1], lambda: model.analyse(x, q), 5.0)
            if getattr(model.prior, "h_a", None) is not None:
                _spread(model.prior.h_a.net[-1], lambda: model.prior.h_a(model.analyse(x, q), None), 2.0)
        if name == "mentzer2018":  # latents that use all symbols, logits that differ
            model.eval()
            _spread(model.g_a.layers[-1][1], lambda: model.g_a(crops_of(photo)[::8])[0], 3.0)
            model.g_a.layers[-1][1].bias[0] += 2.0  # a generous importance map
            for p in model.prior.network.parameters():
                p.mul_(2)
        if name.startswith("lee2019"):
            model.prior.h_s.net[-1].weight.mul_(8.0)
            _spread(model.prior.entropy_parameters.head.linear, lambda: _means(model.prior, model.analyse(x, q)), 2.0)
        if name == "hu2020":
            x = crops_of(photo)[::8]
            _spread(model.g_a[-1][-1], lambda: model.analyse(x, None), 5.0)
            _spread(model.prior.h_a2[-1], lambda: model.prior.hyper_analysis(model.analyse(x, None))[0], 3.0)
            _spread(model.prior.h_a1[-1], lambda: model.prior.hyper_analysis(model.analyse(x, None))[1], 2.0)
        if name == "balle2018-factorized":
            x = crops_of(photo)[::8]
            y = model.analyse(x, torch.full((len(x),), 50.0))
            model.g_a[-1].spectrum.mul_(5.0 / float(y.std()))
        if name == "toderici2017":  # bits about which the entropy coder is anything but undecided
            for predictor in model.prior.predictors:
                predictor.out[-1].weight.mul_(8.0)
        for p in model.parameters():
            p.copy_(p.half().float())
    return model.eval()


def _means(prior: Any, y: torch.Tensor) -> torch.Tensor:
    return prior.parameters_of(prior.h_s(prior.h_a(y).round()), y, None)[0]


def _spread(last: Any, output: Callable[[], torch.Tensor], deviation: float) -> None:
    """Scale a last layer so that its output has about this standard deviation."""
    factor = deviation / float(output().std())
    last.weight.mul_(factor)
    last.bias.mul_(factor)
