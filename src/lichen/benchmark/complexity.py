"""How much a model computes: parameters, and multiply-accumulates a pixel part by part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from lichen.models.base import Model


@dataclass(frozen=True)
class Complexity:
    """Parameters, and thousands of multiply-accumulates a pixel (kMAC/px)."""

    parameters: int
    analysis: float  # g_a
    synthesis: float  # g_s
    hyper_analysis: float  # h_a, which the encoder alone runs
    prior: float  # h_s, context and entropy parameters, which both run


@torch.no_grad()
def complexity(model: Model, height: int = 512, width: int = 768) -> Complexity:
    """Count the products of one picture. Convolutions count all taps of their kernel, causal ones their causal taps;
    networks over a window around each position count every window on its own."""
    x, quality = torch.zeros(1, 3, height, width), torch.tensor([50.0]) if model.variable_rate else None
    prior = model.prior
    level = prior.condition(quality)

    def kmac(run: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counter:
            run()
        return counter.get_total_flops() / 2 / 1000 / (height * width)

    y = model.analyse(x, quality)
    has_hyper = getattr(prior, "h_a", None) is not None
    has_context = getattr(prior, "context", None) is not None
    hyper_analysis, parameters_of_y = 0.0, 0.0
    if hasattr(prior, "hyper_analysis"):  # of several levels
        hyper_analysis = kmac(lambda: prior.hyper_analysis(y))
        parameters_of_y = kmac(lambda: prior(y, level)) - hyper_analysis
        y = prior(y, level)[0]  # with the features that the synthesis sees
    if has_hyper:
        hyper_analysis = kmac(lambda: prior.h_a(y, level))
        z_hat, _ = prior.z_prior(prior.h_a(y, level), level)
        parameters_of_y += kmac(lambda: prior.h_s(z_hat, level))
    if has_hyper or has_context:
        psi = prior.h_s(z_hat, level) if has_hyper else None
        phi = prior.context(prior.seen(y, level)) if has_context else None
        parameters_of_y += kmac(lambda: prior.entropy_parameters(psi, phi, level))
    if has_context:
        parameters_of_y += kmac(lambda: prior.context(prior.seen(y, level))) * prior.context.share
    if hasattr(prior, "products"):  # a prior of another kind counts for itself
        parameters_of_y += prior.products(y.shape[1], y.shape[2]) / 1000 / (height * width)
    return Complexity(
        sum(p.numel() for name, p in model.named_parameters() if not name.startswith(model.training_only)),
        kmac(lambda: model.analyse(x, quality)),
        kmac(lambda: model.synthesise(y, quality)),
        hyper_analysis,
        parameters_of_y,
    )
