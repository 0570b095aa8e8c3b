"""Weights: safetensors files that name their model and its configuration, those that ship, and their identity.

The identity of weights is the SHA-256 over the model's name and every parameter's name, shape and values as float32; a
.lichen file carries its first 8 bytes. It does not depend on how a file stores them, half precision being exact when it
is what was saved, nor on the configuration, which may gain fields.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import hashlib
import json
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lichen.atomic import write_atomic
from lichen.errors import WeightsError
from lichen.models import REGISTRY, Entry, build, create, find
from lichen.models.base import Model

SHIPPED = Path(__file__).parent.parent / "weights"
DEFAULT = "light"

HASH_BYTES = 8


def shipped_state(model: Model) -> dict[str, Tensor]:
    """A model's state dict without what training alone needs."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith(model.training_only)}


def identity(model: Model) -> bytes:
    """First 8 bytes of the SHA-256 of a model's name and weights."""
    digest = hashlib.sha256(model.name.encode())
    for key, value in sorted(shipped_state(model).items()):
        digest.update(f"{key} {list(value.shape)}".encode())
        digest.update(np.ascontiguousarray(value.detach().cpu().numpy(), "<f4").tobytes())
    return digest.digest()[:HASH_BYTES]


def save(model: Model, path: Path, *, half: bool = False) -> None:
    """Write weights with the model's name, configuration and objective, without what training alone needs.

    `half` stores float16 and rounds the model's own too.
    """
    if half:
        with torch.no_grad():
            for p in model.parameters():
                p.copy_(p.half().float())
    tensors = {k: (v.half() if half else v).contiguous() for k, v in shipped_state(model).items()}
    config = json.dumps(dataclasses.asdict(model.cfg))
    metadata = {
        "model": model.name,
        "config": config,
        "objective": model.objective,
        "identity": identity(model).hex(),
    }
    write_atomic(path, safetensors.torch.save(tensors, metadata))


def metadata_of(path: Path) -> dict[str, str]:
    """What a weights file says of itself: "model", "config", "objective" ("mse" where the file says nothing),
    "identity". WeightsError if it is none."""
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
    except FileNotFoundError:
        raise WeightsError(f"there are no weights at {path}") from None
    except (SafetensorError, OSError) as e:
        raise WeightsError(f"{path} is no file of weights ({e}): Lichen reads safetensors that it wrote itself") from e
    if not {"model", "config", "identity"} <= metadata.keys():
        raise WeightsError(f"{path} does not say which model it is for: Lichen reads safetensors that it wrote itself")
    return {"objective": "mse", **metadata}


def read(path: Path) -> Model:
    """The model of a weights file, in float32 and eval mode, whatever torch's defaults are at the time.

    Torch's random numbers go on as if nothing had been. WeightsError where file and model do not fit.
    """
    metadata = metadata_of(path)
    entry = find(metadata["model"])
    config_class = type(next(iter(entry.presets.values())).config)
    try:
        with torch.device("cpu"), torch.inference_mode(False), torch.random.fork_rng(devices=[]):
            model = build(entry, config_class(**json.loads(metadata["config"]))).float()
            with safe_open(path, framework="pt") as f:
                tensors = {k: f.get_tensor(k).float() for k in f.keys()}  # noqa: SIM118 (safe_open is no mapping)
            model.load_state_dict(tensors)
        model.objective = metadata["objective"]
    except (TypeError, ValueError, RuntimeError, SafetensorError) as e:
        raise WeightsError(f"{path} does not fit {entry.name}: {e}") from e
    return model.eval()


@functools.cache
def shipped() -> Mapping[str, Path]:
    """Weights that came with the package: identity (hex) -> file."""
    return {metadata_of(p)["identity"]: p for p in sorted(SHIPPED.glob("*.safetensors"))}


def _read_shipped(path: Path) -> Model:
    with _reading:  # threads that come together read once
        return _read_once(path)


_reading = threading.Lock()


@functools.lru_cache(maxsize=2)
def _read_once(path: Path) -> Model:
    return read(path)


def shared_default() -> Model:
    """The default model, one for all who encode without naming one: for reading only."""
    return _read_shipped(SHIPPED / file_name(DEFAULT))


def by_identity(wanted: bytes) -> Model:
    """The shipped model of an identity, kept in memory. WeightsError where none has it."""
    path = shipped().get(wanted.hex())
    if path is None:
        raise WeightsError(
            f"the file was written with weights {wanted.hex()}, which are not among those that came with this version: "
            "give the file of these weights (--weights)"
        )
    return _read_shipped(path)


def load(
    model: str | None = None,
    *,
    preset: str | None = None,
    objective: str = "mse",
    weights: str | Path | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> Model:
    """A model ready to encode and decode.

    `load()` gives the default model with the weights that ship, `load(name, preset=...)` another's, where it has any;
    objective="ms-ssim" asks for those that were trained for MS-SSIM in place of the squared error;
    `load(weights=path)` reads a file that Lichen wrote. Each call gives a model of its own, which may be changed;
    `load("minnen2018-joint", state_dict=...)` takes a state dict, of Lichen's names or of CompressAI's. WeightsError
    where the weights do not fit or the model has none that ship.
    """
    if weights is not None:
        found = read(Path(weights))
        if model not in (None, found.name):
            raise WeightsError(f"{weights} holds weights of {found.name}, not of {model}")
        if objective not in ("mse", found.objective):
            raise WeightsError(f"{weights} holds weights trained for {found.objective}, not for {objective}")
        if preset is not None and create(found.name, preset).cfg != found.cfg:
            raise WeightsError(f"{weights} holds weights of another preset than {preset}")
        return found
    entry = find(DEFAULT if model is None else model)
    if state_dict is not None:
        return _from_state_dict(entry, preset, state_dict)
    path = _shipped_of(entry, preset, objective)
    if path is None:
        which = entry.name if preset is None else f"{entry.name}, preset {preset},"
        which += "" if objective == "mse" else f" for {objective}"
        raise WeightsError(f"no weights of {which} come with this version: train some, or give a file (--weights)")
    return copy.deepcopy(_read_shipped(path))


def file_name(name: str, objective: str = "mse") -> str:
    """Of a model's weights that ship: NAME.safetensors, or NAME-ms-ssim.safetensors."""
    return f"{name}.safetensors" if objective == "mse" else f"{name}-{objective}.safetensors"


def _shipped_of(entry: Entry, preset: str | None, objective: str) -> Path | None:
    """The file of a model's weights that ship; of one of its presets, whichever file has that configuration."""
    if preset is None:
        path = SHIPPED / file_name(entry.name, objective)
        return path if path.exists() else None
    wanted = entry.name, objective, dataclasses.asdict(create(entry.name, preset).cfg)
    for path in shipped().values():
        metadata = metadata_of(path)
        if (metadata["model"], metadata["objective"], json.loads(metadata["config"])) == wanted:
            return path
    return None


def _from_state_dict(entry: Entry, preset: str | None, state_dict: Mapping[str, Tensor]) -> Model:
    if entry.translate is not None:
        config, state_dict = entry.translate(state_dict)
        model = build(entry, config)
    else:
        model = create(entry.name, preset)
    try:
        model.load_state_dict(dict(state_dict))
    except RuntimeError as e:
        raise WeightsError(f"the state dict does not fit {entry.name}: {e}") from e
    return model.eval()


__all__ = ["REGISTRY", "by_identity", "identity", "load", "read", "save", "shipped"]
