"""State dicts of CompressAI (https://github.com/InterDigitalInc/CompressAI), as published for four architectures.

    CompressAI                  here
    bmshj2018-factorized        minnen2018-factorized
    bmshj2018-hyperprior        minnen2018-scale
    mbt2018-mean                minnen2018-mean-scale
    mbt2018                     minnen2018-joint

The transforms, the hyper transforms, the context and the entropy parameters are then CompressAI's; files are not: the
context sees mu + round(y - mu) here, scales snap to the nearest table, and probabilities come from exact arithmetic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lichen.errors import WeightsError
from lichen.models.minnen2018 import Config, Minnen2018, Prior
from lichen.priors.masked_context import taps_of

_DERIVED = re.compile(
    r"gaussian_conditional\..*|context_prediction\.mask|.*_reparam\..*"
    r"|entropy_bottleneck\.(_offset|_quantized_cdf|_cdf_length|target|likelihood_lower_bound\.bound)"
)
"""Entries that follow from others or are constants."""

_DENSITY = re.compile(r"entropy_bottleneck\._?(matri|bias|factor)(?:x|ces|es|s|)\.?(\d)")
"""The density's layers: `_matrix0` in the published files, `_matrices.0` and `matrices.0` in other versions."""

_LAYERS = {"matri": "matrices", "bias": "biases", "factor": "factors"}


def is_foreign(state_dict: Mapping[str, Any]) -> bool:
    """Whether names are CompressAI's rather than ours."""
    return any("entropy_bottleneck." in key for key in state_dict)


def translate(name: str, state_dict: Mapping[str, Any]) -> tuple[Config, dict[str, Tensor]]:
    """A state dict with CompressAI's names or ours -> its configuration, and the state dict with our names, float32.

    name: the model that it has to be, such as "minnen2018-joint". WeightsError where names or shapes are of no such
    model; nothing is left over silently.
    """
    ours: dict[str, Tensor] = {}
    for key, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"'{key}' is no tensor: give the state dict itself, a mapping of names to tensors")
        ours[key] = value
    if is_foreign(state_dict):
        ours = _rename(ours)
    cfg = _config_of(ours)
    if f"minnen2018-{cfg.prior}" != name:
        raise WeightsError(f"these weights are of minnen2018-{cfg.prior}, not of {name}: load them as that")
    with torch.device("meta"):
        wanted = {key: value.shape for key, value in Minnen2018(cfg).state_dict().items()}
    for key in sorted(wanted.keys() ^ ours.keys()):
        what = "lack" if key in wanted else "hold an unknown"
        raise WeightsError(f"the weights {what} '{key}': they are of another architecture than {name}")
    for key, shape in wanted.items():
        if ours[key].shape != shape:
            raise WeightsError(
                f"'{key}' has the shape {tuple(ours[key].shape)} where {name} with N = {cfg.N} and M = {cfg.M} has "
                f"{tuple(shape)}: the weights are of another architecture"
            )
    return cfg, {key: value.float() for key, value in ours.items()}


def _rename(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CompressAI's names and shapes -> ours; names that are not CompressAI's stay, to be refused."""
    theirs = {key.removeprefix("module."): value for key, value in theirs.items()}
    density = "prior.z_prior" if any(key.startswith("h_a.") for key in theirs) else "prior.y_prior"
    ours = {}
    for key, value in theirs.items():
        part, _, rest = key.partition(".")
        if _DERIVED.fullmatch(key):
            continue
        if match := _DENSITY.fullmatch(key):
            ours[f"{density}.{_LAYERS[match[1]]}.{match[2]}"] = value
        elif key == "entropy_bottleneck.quantiles" and value.ndim == 3 and value.shape[1:] == (1, 3):
            ours[f"{density}.median"] = value[:, 0, 1]
        elif key == "context_prediction.weight" and value.ndim == 4 and value.shape[2:] == (5, 5):
            ours["prior.context.weight"] = taps_of(value)
        elif part == "context_prediction":
            ours[f"prior.context.{rest}"] = value
        elif part == "entropy_parameters":  # 1x1 convolutions, matrices here
            ours[f"prior.entropy_parameters.net.{rest}"] = value.flatten(1) if value.ndim == 4 else value
        elif part in ("h_a", "h_s"):
            ours[f"prior.{part}.net.{rest}"] = value
        else:
            ours[key] = value
    return ours


def _config_of(ours: Mapping[str, Tensor]) -> Config:
    """The prior by which parts there are, N and M by the analysis transform's first and last layer."""
    first, last = (_rows(ours, f"g_a.{layer}.weight") for layer in (0, 6))
    prior: Prior
    if not any(key.startswith("prior.entropy_parameters.") for key in ours) and "prior.y_prior.median" in ours:
        prior = "factorized"
    elif "prior.context.weight" in ours:
        prior = "joint" if "prior.z_prior.median" in ours else "context"
    else:
        prior = "scale" if _rows(ours, "prior.h_s.net.4.weight") == last else "mean-scale"
    return Config(prior, first, last)


def _rows(ours: Mapping[str, Tensor], key: str) -> int:
    if key not in ours or ours[key].ndim == 0 or len(ours[key]) == 0:
        raise WeightsError(
            f"no '{key}' in these weights: they are none of CompressAI's bmshj2018-factorized, bmshj2018-hyperprior, "
            "mbt2018-mean and mbt2018, nor of their namesakes here"
        )
    return len(ours[key])
