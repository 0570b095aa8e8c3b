"""The training loop: any model of the registry, on one processor or many.

Started by torchrun it runs one process a device (Lightning Fabric carries gradients between them). All randomness of
a step comes from (seed, process, step), and a checkpoint holds weights, their average, the optimizer, the step and the
seconds spent, so that a training which stops and resumes is the training that did not stop.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor, nn

from lichen.models.light import PRESETS, QUALITY_MAX, QUALITY_MIN, Light, lmbda_of
from lichen.training.data import Pictures, load_pictures, random_crops
from lichen.training.loss import bits_per_pixel, rate_distortion, squared_error


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides a training, saved beside its weights."""

    data: list[str]
    out: str
    model: str = "light"
    preset: str = "default"
    minutes: float = 60.0  # of training in all, over all resumes
    pause_after: float = math.inf  # minutes after which this run stops, to be resumed
    lr: float = 2e-3
    warmup: int = 1000  # steps
    betas: tuple[float, float] = (0.9, 0.99)
    batch: int = 4  # crops a process
    crop: int = 128
    clip: float = 1.0  # norm of the gradient
    average: float = 0.999  # decay of the moving average of weights
    precision: str = "auto"  # auto, 32-true or bf16-mixed
    seed: int = 0
    start_crops: int = 3000  # crops of 64x64 for the start from data
    checkpoint_seconds: float = 100.0
    validate_seconds: float = 600.0
    cache: str = field(default_factory=lambda: str(Path.home() / ".cache" / "lichen" / "pixels"))


def choose_precision() -> str:
    """bf16-mixed where this machine multiplies bfloat16 at least 1.5 times faster than float32, else 32-true."""
    if torch.cuda.is_available():
        return "bf16-mixed"
    seconds = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(4096, 256, dtype=dtype), torch.randn(256, 256, dtype=dtype)
        best = math.inf
        for _ in range(5):
            t = time.perf_counter()
            a @ b
            best = min(best, time.perf_counter() - t)
        seconds.append(best)
    return "bf16-mixed" if seconds[0] > 1.5 * seconds[1] else "32-true"


def cosine(done: float, step: int, warmup: int) -> float:
    """Factor of the learning rate: linear over `warmup` steps, cosine to zero over the share `done` of the training."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@torch.no_grad()
def validate(net: nn.Module, pictures: Pictures, crop: int = 256, count: int = 36, batch: int = 6) -> dict[str, float]:
    """Loss, bpp and PSNR (dB, mean over crops) on fixed held-out crops, qualities spread evenly from 1 to 100."""
    size = min([crop] + [min(p.shape[:2]) // 64 * 64 for p in pictures.held_out])
    x = random_crops(pictures.held_out, count, size, [0, 0, 7])
    quality = torch.linspace(QUALITY_MIN, QUALITY_MAX, count)
    sums = torch.zeros(3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for xs, qs in zip(x.split(batch), quality.split(batch), strict=True):
            x_hat, bits = net(xs, qs)
            bpp, mse = bits_per_pixel(bits, xs), squared_error(x_hat, xs)
            loss = rate_distortion(bpp, mse, lmbda_of(qs))
            sums += torch.stack([loss * len(xs), bpp.sum(), (-10 * mse.log10()).sum()])
    loss, bpp, psnr = (sums / count).tolist()
    return {"loss": loss, "bpp": bpp, "psnr": psnr}


def write_atomic(path: Path, save: Any) -> None:
    part = path.with_name(path.name + ".part")
    save(part)
    os.replace(part, path)


class Average:
    """Exponential moving average of a network's parameters, with a shorter memory at the start."""

    def __init__(self, net: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {k: v.detach().clone() for k, v in net.state_dict().items()}

    @torch.no_grad()
    def update(self, net: nn.Module, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 10))
        current = net.state_dict()
        torch._foreach_lerp_(list(self.values.values()), [current[k] for k in self.values], 1 - decay)


def train(config: TrainConfig, resume: bool = False, console: Console | None = None) -> Path:
    """Train, and return the path of the averaged weights (safetensors).

    `config.out` receives config.json, checkpoint.pt, weights.safetensors and log.csv.
    """
    precision = choose_precision() if config.precision == "auto" else config.precision
    processes = int(os.environ.get("WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator="auto", strategy="ddp" if processes > 1 else "auto", precision=precision, devices="auto" if processes == 1 else processes
    ) if torch.cuda.is_available() else Fabric(accelerator="cpu", strategy="ddp" if processes > 1 else "auto", precision=precision, devices=processes)
    fabric.launch()
    rank, out = fabric.global_rank, Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    if rank == 0:
        pictures = load_pictures(config.data, Path(config.cache), config.crop)
    fabric.barrier()
    if rank != 0:
        pictures = load_pictures(config.data, Path(config.cache), config.crop)

    torch.manual_seed(config.seed)
    net = Light(PRESETS[config.preset])
    checkpoint_path = out / "checkpoint.pt"
    step, spent = 0, 0.0
    state = torch.load(checkpoint_path, weights_only=True) if resume else None
    if state:
        net.load_state_dict(state["model"])
        step, spent = state["step"], state["seconds"]
    else:
        net.start_from_data(random_crops(pictures.training, config.start_crops, 64, [config.seed, 0, 2**40], places=1))
    average = Average(net, config.average)
    if state:
        average.values = state["average"]
    opt: Any = torch.optim.AdamW(
        [p for p in net.parameters() if p.requires_grad], config.lr, betas=config.betas, weight_decay=0.0, fused=True
    )
    if state:
        opt.load_state_dict(state["optimizer"])
    model, opt = fabric.setup(net, opt)
    log_path = out / "log.csv"
    if rank == 0:
        (out / "config.json").write_text(json.dumps(asdict(config), indent=2))
        if not (resume and log_path.exists()):
            log_path.write_text("step,seconds,split,loss,bpp,psnr\n")

    def log(split: str, **row: float) -> None:
        with open(log_path, "a", newline="") as f:
            csv.writer(f).writerow([step, f"{spent:.1f}", split] + [f"{row[k]:.5f}" for k in ("loss", "bpp", "psnr")])

    def save() -> None:
        state = {"model": net.state_dict(), "average": average.values, "optimizer": opt.state_dict(), "step": step, "seconds": spent}
        write_atomic(checkpoint_path, lambda p: torch.save(state, p))
        write_atomic(out / "weights.safetensors", lambda p: save_file({k: v.contiguous() for k, v in average.values.items()}, p))

    def check() -> None:
        averaged = Light(net.cfg)
        averaged.load_state_dict(average.values)
        log("held-out", **validate(averaged, pictures))

    began, before = time.monotonic(), spent
    saved = checked = time.monotonic()
    running: dict[str, float] = {}
    columns = [BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn()]
    with Progress(*columns, console=console, disable=rank != 0) as progress:
        bar = progress.add_task("", total=1.0)
        done = spent / 60 / config.minutes
        while True:
            if step % 10 == 0:  # all processes agree on the time
                spent = fabric.broadcast(before + time.monotonic() - began)
                done = spent / 60 / config.minutes
                if rank == 0 and time.monotonic() - saved > config.checkpoint_seconds:
                    save()
                    saved = time.monotonic()
                if rank == 0 and time.monotonic() - checked > config.validate_seconds:
                    check()
                    checked = time.monotonic()
                if done >= 1 or (spent - before) / 60 >= config.pause_after:
                    break
            for group in opt.param_groups:
                group["lr"] = config.lr * cosine(done, step, config.warmup)
            x = random_crops(pictures.training, config.batch, config.crop, [config.seed, rank, step]).to(fabric.device)
            torch.manual_seed(hash((config.seed, rank, step)) % 2**31)
            quality = (QUALITY_MIN + torch.rand(config.batch) * (QUALITY_MAX - QUALITY_MIN)).to(fabric.device)
            x_hat, bits = model(x, quality)
            bpp, mse = bits_per_pixel(bits, x), squared_error(x_hat, x)
            loss = rate_distortion(bpp, mse, lmbda_of(quality))
            opt.zero_grad(set_to_none=True)
            fabric.backward(loss)
            fabric.clip_gradients(model, opt, max_norm=config.clip)
            opt.step()
            average.update(net, step)
            step += 1
            if rank == 0:
                now = {"loss": loss.item(), "bpp": bpp.mean().item(), "psnr": -10 * math.log10(mse.mean().item())}
                running = {k: 0.98 * running.get(k, v) + 0.02 * v for k, v in now.items()}
                if step % 50 == 0:
                    speed = step * 0 + config.batch * processes * config.crop**2 / 1e6
                    text = f"step {step} loss {running['loss']:.3f} {running['bpp']:.3f} bpp {running['psnr']:.2f} dB"
                    progress.update(bar, completed=min(1.0, done), description=text)
                if step % 250 == 0:
                    log("training", **running)
        if rank == 0:
            check()
            save()
    fabric.barrier()
    return out / "weights.safetensors"
