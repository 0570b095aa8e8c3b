"""What a checkpoint holds: a network, its average, its optimizer, and how far it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lichen.atomic import write_atomic
from lichen.errors import LichenError
from lichen.models import create
from lichen.models.base import Model
from lichen.models.weights import read as read_weights
from lichen.models.weights import save as save_weights
from lichen.training.config import CHECKPOINT_FILE, WEIGHTS_FILE, TrainConfig
from lichen.training.data import Pictures, random_crops
from lichen.training.log import At


class Average:
    """Exponential moving average of a network's state, with a shorter memory at the start."""

    def __init__(self, net: Model, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in net.state_dict().items()}

    def to(self, device: torch.device) -> None:
        """Move it."""
        self.values = {k: v.to(device) for k, v in self.values.items()}

    def load(self, values: dict[str, Tensor]) -> None:
        """Take the values of a checkpoint."""
        for k, v in self.values.items():
            v.copy_(values[k])

    @torch.no_grad()
    def update(self, net: Model, step: int) -> None:
        """Take in the weights of a step; what counts (integers) is taken over."""
        decay = min(self.decay, (step + 1) / (step + 10))
        current = net.state_dict()
        mixed = [k for k, v in self.values.items() if v.is_floating_point()]
        torch._foreach_lerp_([self.values[k] for k in mixed], [current[k] for k in mixed], 1 - decay)
        for k in self.values.keys() - set(mixed):
            self.values[k].copy_(current[k])

    def model(self, config: TrainConfig) -> Model:
        """A model of the averaged weights, on the CPU."""
        averaged = create(config.model, config.preset)
        averaged.load_state_dict(self.values)
        averaged.objective = config.objective
        return averaged


class Training:
    """What a checkpoint holds: a network, its average, its optimizer, and how far it is."""

    def __init__(self, config: TrainConfig, pictures: Pictures, begin: bool) -> None:
        """At its start; or about to be loaded."""
        assert config.lmbda is not None
        self.config, self.lmbda, self.pictures = config, config.lmbda, pictures.identity
        self.net = create(config.model, config.preset)
        if begin:
            _begin(self.net, config, pictures)
        _channels_last(self.net)
        if config.compile:
            self.net.compile()
        self.average = Average(self.net, config.average)
        weights = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(weights, config.lr, betas=config.betas, weight_decay=0.0, fused=True)
        self.at, self.running = At(), dict[str, float]()  # running means of loss, bpp, PSNR

    def load(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint, on whatever device it is now. LichenError where it is another model's."""
        try:
            self.net.load_state_dict(state["model"])
            self.average.load(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (KeyError, ValueError, RuntimeError) as e:
            raise LichenError(f"the checkpoint in {self.config.out} is not of this training ({e})") from e
        for p, tensors in self.optimizer.state.items():
            for k, v in tensors.items():
                if v.shape == p.shape:  # laid out as its parameter is, which fused kernels rely on
                    tensors[k] = torch.empty_like(p, dtype=v.dtype).detach().copy_(v)
        self.at.step, self.at.seconds = state["step"], state["seconds"]
        self.running.update(state.get("running", {}))

    def save(self, out: Path, processes: int) -> None:
        """Write checkpoint and weights, each whole or not at all."""
        state = {
            "model": self.net.state_dict(),
            "average": self.average.values,
            "optimizer": self.optimizer.state_dict(),
            "step": self.at.step,
            "seconds": self.at.seconds,
            "running": self.running,
            "processes": processes,
            "pictures": self.pictures,
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomic(out / CHECKPOINT_FILE, buffer.getbuffer())
        save_weights(self.average.model(self.config), out / WEIGHTS_FILE)


def load_checkpoint(out: Path) -> dict[str, Any]:
    """What `Training.save` wrote into a folder. LichenError where there is none, or another file."""
    path = out / CHECKPOINT_FILE
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise LichenError(f"there is no checkpoint at {path}: train without --resume first") from None
    except Exception as e:  # a damaged file raises whatever its bytes lead to
        raise LichenError(f"{path} cannot be read ({e}): it is no checkpoint of this trainer") from e
    return state


def _begin(net: Model, config: TrainConfig, pictures: Pictures) -> None:
    """The weights before the first step: of a file, or of the model's own start."""
    if config.start is None:
        size, seed = min(64, config.crop), [config.seed, 2**20]
        net.start_from(random_crops(pictures.training, config.start_crops, size, seed, places=1))
    else:
        net.load_state_dict(read_weights(Path(config.start)).state_dict())


def _channels_last(net: nn.Module) -> None:
    """Lay the kernels of convolutions out with channels last, as the pixels are and as their gradients come.

    As `Module.to(memory_format=torch.channels_last)`, but also where that leaves the layout open, in kernels of one
    input channel (depthwise): their gradients then have the layout that several processes average them in.
    """
    for p in net.parameters():
        if p.dim() == 4:
            _, channels, H, W = p.shape
            strides = (channels * H * W, 1, W * channels, channels)
            p.data = torch.empty_strided(p.shape, strides, dtype=p.dtype).copy_(p.data)
