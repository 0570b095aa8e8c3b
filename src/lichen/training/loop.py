"""The training loop: any model of the registry, on one processor or many.

Started by torchrun it runs one process a device; Lightning Fabric places the model and averages gradients. All
randomness of a step comes from (seed, process, step), and a checkpoint holds weights, their average, the optimizer, the
step and the seconds spent: a training that stops and resumes is the training that did not stop.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from lichen.errors import LichenError
from lichen.models import create
from lichen.models.base import Model
from lichen.models.weights import read as read_weights
from lichen.models.weights import save as save_weights
from lichen.training.data import DataError, Pictures, load_pictures, random_crops
from lichen.training.loss import bits_per_pixel, rate_distortion, squared_error


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training; saved as config.json beside its weights."""

    data: list[str]
    out: str
    model: str = "light"
    preset: str | None = None  # the model's first
    start: str | None = None  # a file of weights to begin with, in place of the model's own start
    minutes: float = 60.0  # of training in all, over all resumes
    pause_after: float = math.inf  # minutes after which this run stops, to be resumed
    lmbda: float = 0.013  # rate against distortion, for models of one quality
    lr: float = 2e-3  # at its peak
    warmup: int = 2000  # steps
    betas: tuple[float, float] = (0.9, 0.99)
    batch: int = 4  # crops a process and step
    crop: int = 128
    clip: float = 1.0  # norm of the gradient
    average: float = 0.999  # decay of the moving average of weights
    precision: str = "auto"  # auto, 32-true or bf16-mixed
    seed: int = 0
    start_crops: int = 3000  # of 64x64, for models that start from data
    checkpoint_seconds: float = 100.0
    validate_seconds: float = 600.0
    cache: str = field(default_factory=lambda: str(Path.home() / ".cache" / "lichen" / "pixels"))


MAX_BLOWN = 20
"""Steps without a finite gradient, one after another, that a training forgives by leaving them out."""


@dataclass
class Progressed:
    """How far a training is."""

    step: int = 0
    seconds: float = 0.0


def choose_precision() -> str:
    """bf16-mixed on a GPU, and where this processor multiplies bfloat16 1.5 times faster than float32; else 32-true."""
    if torch.cuda.is_available():
        return "bf16-mixed"
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(4096, 256).to(dtype), torch.randn(256, 256).to(dtype)
        best = math.inf
        for _ in range(5):
            t = time.perf_counter()
            torch.mm(a, b)
            best = min(best, time.perf_counter() - t)
        seconds.append(best)
    return "bf16-mixed" if seconds[0] > 1.5 * seconds[1] else "32-true"


def cosine(done: float, step: int, warmup: int) -> float:
    """Factor of the learning rate: linear over `warmup` steps, cosine to zero over the share `done` of the training."""
    return min(1.0, (step + 1) / max(1, warmup)) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def step_seed(*numbers: int) -> int:
    """A seed for torch from (seed, process, step)."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def qualities(model: Model, count: int, config: TrainConfig, u: Tensor) -> tuple[Tensor | None, Tensor]:
    """u (count,) in 0..1 -> qualities (None for a model of one) and lmbda, (count,)."""
    if not model.variable_rate:
        return None, torch.full((count,), config.lmbda)
    quality = 1 + 99 * u
    return quality, model.lmbda_of(quality)


@torch.no_grad()
def validate(
    model: Model, pictures: Pictures, config: TrainConfig, count: int = 36, batch: int = 6
) -> dict[str, float]:
    """Loss, bpp and PSNR (dB) on fixed held-out crops of up to 256x256, qualities spread evenly; training's noise."""
    size = min([256] + [min(p.shape[:2]) // 64 * 64 for p in pictures.held_out])
    x = random_crops(pictures.held_out, count, size, [7])
    model.train()
    rows = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for xs, us in zip(x.split(batch), torch.linspace(0, 1, count).split(batch), strict=True):
            quality, lmbda = qualities(model, len(xs), config, us)
            x_hat, bits = model(xs, quality)
            bpp, mse = bits_per_pixel(bits, xs), squared_error(x_hat, xs)
            rows.append([float(rate_distortion(bpp, mse, lmbda)), float(bpp.mean()), float((-10 * mse.log10()).mean())])
    loss, bpp_, psnr = np.mean(rows, axis=0).tolist()
    return {"loss": loss, "bpp": bpp_, "psnr": psnr}


class Average:
    """Exponential moving average of a network's state, with a shorter memory at the start."""

    def __init__(self, net: Model, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: Model, step: int) -> None:
        """Take in the weights of a step."""
        decay = min(self.decay, (step + 1) / (step + 10))
        current = net.state_dict()
        torch._foreach_lerp_(list(self.values.values()), [current[k] for k in self.values], 1 - decay)

    def model(self, like: Model, config: TrainConfig) -> Model:
        """A model of the averaged weights, on the CPU."""
        averaged = create(like.name, config.preset)
        averaged.load_state_dict(self.values)
        return averaged


class Log:
    """log.csv, and TensorBoard scalars where that is installed."""

    FIELDS = ("loss", "bpp", "psnr")

    def __init__(self, out: Path, resume: bool) -> None:
        self.path = out / "log.csv"
        if not (resume and self.path.exists()):
            self.path.write_text("step,seconds,split,loss,bpp,psnr\n")
        self.board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(out / "tensorboard"))
        except ModuleNotFoundError:
            pass

    def write(self, at: Progressed, split: str, row: dict[str, float]) -> None:
        """One row; loss, bpp, PSNR in dB."""
        with self.path.open("a", newline="") as f:
            csv.writer(f).writerow([at.step, f"{at.seconds:.1f}", split, *(f"{row[k]:.5f}" for k in self.FIELDS)])
        if self.board is not None:
            for k in self.FIELDS:
                self.board.add_scalar(f"{split}/{k}", row[k], at.step)


def write_atomic(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then put it in place."""
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)


def _fabric(precision: Any) -> Fabric:
    processes = int(os.environ.get("WORLD_SIZE", 1))
    gpus = torch.cuda.is_available()
    devices = int(os.environ.get("LOCAL_WORLD_SIZE", processes)) if processes > 1 else 1
    nodes = processes // devices
    fabric = Fabric(
        accelerator="cuda" if gpus else "cpu",
        strategy="ddp" if processes > 1 else "auto",
        devices=devices,
        num_nodes=nodes,
        precision=precision,
    )
    fabric.launch()
    return fabric


def _load_checkpoint(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise LichenError(f"there is no checkpoint at {path}: train without --resume first")
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def _begin(config: TrainConfig, pictures: Pictures) -> Model:
    """The network before its first step: of a file of weights, or of the model's own start."""
    net = create(config.model, config.preset)
    if config.start is None:
        net.start_from(random_crops(pictures.training, config.start_crops, 64, [config.seed, 2**20], places=1))
        return net
    given = read_weights(Path(config.start))
    if (given.name, given.cfg) != (net.name, net.cfg):
        raise LichenError(f"{config.start} holds weights of {given.name} ({given.cfg}), not of {net.name} ({net.cfg})")
    net.load_state_dict(given.state_dict())
    return net


def train(config: TrainConfig, resume: bool = False, console: Console | None = None) -> Path | None:
    """Train, and return the path of the averaged weights (safetensors); None in processes other than the first.

    `config.out` receives config.json, checkpoint.pt, weights.safetensors and log.csv. Raises DataError for folders that
    cannot be trained on and WeightsError for an unknown model or preset.
    """
    if config.crop % 64:
        raise DataError(f"crops of {config.crop} are no multiple of 64")
    out = Path(config.out)
    state = _load_checkpoint(out / "checkpoint.pt") if resume else None
    net = create(config.model, config.preset)
    fabric = _fabric(choose_precision() if config.precision == "auto" else config.precision)
    rank, processes = fabric.global_rank, fabric.world_size
    out.mkdir(parents=True, exist_ok=True)
    with fabric.rank_zero_first():
        pictures = load_pictures(config.data, Path(config.cache), config.crop)

    at = Progressed()
    average = Average(net, config.average)
    if state is not None:
        net.load_state_dict(state["model"])
        average.values, at = state["average"], Progressed(state["step"], state["seconds"])
    else:
        torch.manual_seed(step_seed(config.seed))
        net = _begin(config, pictures)
        average = Average(net, config.average)
    opt: Any = torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad], config.lr, betas=config.betas, weight_decay=0.0, fused=True
    )
    if state is not None:
        opt.load_state_dict(state["optimizer"])
    net.train()
    model, opt = fabric.setup(net, opt)
    average.values = {k: v.to(fabric.device) for k, v in average.values.items()}
    log = Log(out, resume) if rank == 0 else None
    if log is not None:
        write_atomic(out / "config.json", lambda p: p.write_text(json.dumps(asdict(config), indent=2)))

    def save() -> None:
        state = {
            "model": net.state_dict(),
            "average": average.values,
            "optimizer": opt.state_dict(),
            "step": at.step,
            "seconds": at.seconds,
        }
        write_atomic(out / "checkpoint.pt", lambda p: torch.save(state, p))
        save_weights(average.model(net, config), out / "weights.safetensors")

    def check() -> None:
        assert log is not None
        log.write(at, "held-out", validate(average.model(net, config), pictures, config))

    began, before = time.monotonic(), at.seconds
    saved = checked = began
    running: dict[str, float] = {}
    blown = 0
    columns = (BarColumn(20), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=rank != 0) as progress:
        bar = progress.add_task("", total=1.0)
        while True:
            if at.step % 10 == 0:  # the first process's clock is everyone's
                at.seconds = fabric.broadcast(before + time.monotonic() - began)
                if rank == 0 and time.monotonic() - saved > config.checkpoint_seconds:
                    save()
                    saved = time.monotonic()
                if rank == 0 and time.monotonic() - checked > config.validate_seconds:
                    check()
                    checked = time.monotonic()
                if at.seconds / 60 >= config.minutes or (at.seconds - before) / 60 >= config.pause_after:
                    break
            done = at.seconds / 60 / config.minutes
            for group in opt.param_groups:
                group["lr"] = config.lr * cosine(done, at.step, config.warmup)
            x = random_crops(pictures.training, config.batch, config.crop, [config.seed, rank, at.step], harden=True)
            torch.manual_seed(step_seed(config.seed, rank, at.step))
            u = (torch.randperm(config.batch) + torch.rand(config.batch)) / config.batch  # spread over the qualities
            quality, lmbda = qualities(net, config.batch, config, u)
            x, lmbda = x.to(fabric.device), lmbda.to(fabric.device)
            x_hat, bits = model(x, None if quality is None else quality.to(fabric.device))
            bpp, mse = bits_per_pixel(bits, x), squared_error(x_hat, x)
            loss = rate_distortion(bpp, mse, lmbda)
            opt.zero_grad(set_to_none=True)
            fabric.backward(loss)
            norm: Any = fabric.clip_gradients(model, opt, max_norm=config.clip, error_if_nonfinite=False)
            at.step += 1
            if not math.isfinite(float(norm)):  # the same in all processes, so all leave the step out
                blown += 1
                if blown > MAX_BLOWN:
                    raise LichenError(f"{blown} steps in a row gave no finite gradient: lower the learning rate (--lr)")
                continue
            blown = 0
            opt.step()
            average.update(net, at.step)
            if log is not None:
                now = {"loss": loss.item(), "bpp": bpp.mean().item(), "psnr": -10 * math.log10(mse.mean().item())}
                running = {k: 0.98 * running.get(k, v) + 0.02 * v for k, v in now.items()}
                if at.step % 10 == 0:
                    steps_a_second = at.step / max(at.seconds, 1e-9)
                    speed = steps_a_second * config.batch * processes * config.crop**2 / 1e6
                    text = f"{at.step} loss {running['loss']:.2f} {running['bpp']:.3f} bpp {running['psnr']:.2f} dB"
                    progress.update(bar, completed=min(1.0, done), description=f"{text} {speed:.2f} Mpx/s")
                if at.step % 250 == 0:
                    log.write(at, "training", running)
        if log is not None:
            check()
            save()
    fabric.barrier()
    return out / "weights.safetensors" if rank == 0 else None
