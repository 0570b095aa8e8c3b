"""The training loop: any model of the registry, on one processor or many.

Started by torchrun it runs one process a device; Lightning Fabric places the model and averages gradients. All
randomness of a step comes from (seed, process, step), and a checkpoint holds weights, their average, the optimizer, the
step and the seconds spent: a training that stops and resumes is the training that did not stop.
"""

from __future__ import annotations

import dataclasses
import gc
import io
import logging
import math
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from rich.console import Console
from torch import Tensor, nn

from lichen.container import write_atomic
from lichen.errors import LichenError
from lichen.interrupt import asked_to_stop
from lichen.layers.batch_norm import BatchNorm
from lichen.layers.ms_ssim import ms_ssim_error
from lichen.models import create
from lichen.models.base import Model
from lichen.models.weights import read as read_weights
from lichen.models.weights import save as save_weights
from lichen.training.config import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    ConfigError,
    TrainConfig,
    resolve,
    to_json,
)
from lichen.training.data import Crops, DataError, Loader, Pictures, load_pictures, random_crops, to_floats
from lichen.training.log import At, Log, Reporter, describe
from lichen.training.loss import TrainingLoss, squared_error

__all__ = ["TrainConfig", "train"]

MAX_BLOWN = 20
"""Steps without a finite gradient, one after another, that a training forgives by leaving them out."""

WARMUP_SHARE = 0.1
"""Of a training, at most, in which the learning rate rises."""

VALIDATION_CROPS, VALIDATION_SIZE, VALIDATION_BATCH = 36, 256, 6


def train(config: TrainConfig, resume: bool = False, console: Console | None = None) -> Path | None:
    """Train, and return the path of the averaged weights (safetensors); None in processes other than the first.

    `config.out` receives config.json, checkpoint.pt, weights.safetensors, log.csv and tensorboard/. To resume, take the
    configuration from `config.saved_config`. An interruption (SIGINT, SIGTERM) writes a checkpoint and then raises
    KeyboardInterrupt.

    Raises DataError for folders that cannot be trained on, ConfigError for options that do not fit the model or what is
    in `config.out`, WeightsError for an unknown model or preset, LichenError where gradients stay infinite.
    """
    written, stopped = _train(config, resume, console)
    _leave()
    if stopped:
        raise KeyboardInterrupt
    return written


def _train(config: TrainConfig, resume: bool, console: Console | None) -> tuple[Path | None, bool]:
    """What `train` returns, and whether it was interrupted. What the training was made of goes with this function."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    config, out = resolve(config) if not resume else config, Path(config.out)
    state = _load_checkpoint(out) if resume else None
    if not resume:
        _check_new(out)
        _check_crop(config)
    fabric, config = _start(config)
    cuda, rank, processes = fabric.device.type == "cuda", fabric.global_rank, fabric.world_size
    with Reporter(console, quiet=rank > 0) as report:
        if cuda and processes == 1 and (gpus := torch.cuda.device_count()) > 1:
            report.say(f"one of {gpus} GPUs is used: torchrun --standalone --nproc-per-node {gpus} -m lichen train ...")
        with fabric.rank_zero_first(local=True):
            pictures = load_pictures(config.data, Path(config.cache), config.crop, report.say)

        torch.manual_seed(step_seed(config.seed))
        training = Training(config, pictures, begin=state is None)
        net, at, running = training.net, training.at, training.running
        objective = TrainingLoss(net, config.objective, training.lmbda).train()
        model, opt = fabric.setup(objective, training.optimizer)
        training.average.to(fabric.device)
        if state is not None:
            training.load(state)
            if state.get("processes", processes) != processes:
                was = f"{state['processes']} processes of {config.batch} crops a step"
                report.say(f"this training ran in {was} and goes on in {processes}")
            if state.get("pictures", pictures.identity) != pictures.identity:
                report.say("the pictures are not those it began with: it goes on with others, held-out ones included")

        log = None
        if rank == 0:
            for left_behind in out.glob(".lichen-*.part"):  # of a run that was killed while it wrote
                left_behind.unlink(missing_ok=True)
            write_atomic(out / CONFIG_FILE, to_json(config).encode())
            log = Log(out, at)

        def check() -> None:
            assert log is not None
            averaged = TrainingLoss(training.average.model(config), config.objective, training.lmbda).to(fabric.device)
            values, shown = validate(averaged, pictures, config, stage(config, progress(config, at)))
            log.write(at, "held-out", values)
            log.pictures(at, *shown)
            report.say(f"held-out at {describe(at, values)}")

        if rank == 0 and state is None:
            training.save(out, processes)
            check()

        sampler = Crops(pictures.training)
        loader = Loader(
            lambda step: sampler.draw(
                config.batch,
                config.crop,
                [config.seed, rank, step],
                rescale=config.rescale,
                hard_every=config.hard_every,
            ),
            count(at.step),
            threads=max(1, min(4, (os.cpu_count() or 1) // processes_here() - 1)),
            pin=cuda,
        )
        began, before, first = time.monotonic(), at.seconds, at.step
        saved = checked = began
        pace = Pace(at, loader)

        def show(line: bool) -> None:
            values = _mean_of_all(fabric, running) if line else running
            values = values | pace.measure(config.batch * processes * config.crop**2)
            report.update(progress(config, at), describe(at, values, pace.left(config)), line)
            if line and log is not None:
                log.write(at, "training", values)
                pace.start()

        blown, finished, stopped = 0, False, False
        with loader, asked_to_stop() as asked:
            while True:
                tick = not cuda or at.step % 10 == 0
                if tick:  # the first process's clock is everyone's
                    at.seconds, stopped = fabric.broadcast((before + time.monotonic() - began, asked.is_set()))
                    paused = config.pause_after is not None and (at.seconds - before) / 60 >= config.pause_after
                    stopped_or_paused = stopped or (paused and at.step > first)
                finished = progress(config, at) >= 1
                if finished or (tick and stopped_or_paused):
                    break
                if tick and rank == 0 and time.monotonic() - saved >= config.checkpoint_seconds:
                    training.save(out, processes)
                    saved = time.monotonic()
                if tick and rank == 0 and time.monotonic() - checked >= config.validate_seconds:
                    check()
                    checked = time.monotonic()
                done = progress(config, at)
                for group in training.optimizer.param_groups:
                    group["lr"] = config.lr * learning_rate(done, at.step, config)

                x = to_floats(loader.next().to(fabric.device, non_blocking=True))
                u = stratified(config.batch, processes, rank, [config.seed, at.step])
                quality, lmbda = objective.conditions(u)
                torch.manual_seed(step_seed(config.seed, rank, at.step))
                quality = None if quality is None else quality.to(fabric.device)
                loss, bpp, x_hat = model(x, quality, lmbda.to(fabric.device), stage(config, done))
                opt.zero_grad(set_to_none=True)
                fabric.backward(loss)
                norm: Any = fabric.clip_gradients(model, opt, max_norm=config.clip, error_if_nonfinite=False)
                at.step += 1
                if math.isfinite(float(norm)):  # the same in all processes, so all do the step or leave it out
                    opt.step()
                    training.average.update(net, at.step)
                    mse = squared_error(x_hat.detach(), x).mean().item()
                    now = {"loss": loss.item(), "bpp": bpp.mean().item(), "psnr": -10 * math.log10(max(mse, 1e-10))}
                    share = max(0.02, 1 / at.step)
                    running.update({k: (1 - share) * running.get(k, v) + share * v for k, v in now.items()})
                    blown = 0
                else:
                    blown += 1
                    if blown > MAX_BLOWN:
                        raise LichenError(f"{blown} steps in a row gave no finite gradient: lower the rate (--lr)")
                if running:
                    show(at.step % config.log_every == 0)
        if at.step % config.log_every and running and at.step > first:
            show(True)
        if log is not None:
            training.save(out, processes)
            if finished and log.last_held_out < at.step:
                check()
            log.close()
            if not finished:
                report.say(f"stopped at step {at.step}: go on with --out {config.out} --resume")
    fabric.barrier()
    return out / WEIGHTS_FILE if rank == 0 else None, stopped


# ---- Schedule and randomness -----------------------------------------------------------------------------------------


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


# ---- Validation and average ------------------------------------------------------------------------------------------


@torch.no_grad()
def validate(
    objective: TrainingLoss, pictures: Pictures, config: TrainConfig, done: float
) -> tuple[dict[str, float], tuple[Tensor, Tensor]]:
    """Loss, bpp, PSNR and MS-SSIM (dB) on fixed held-out crops, qualities spread evenly; and a few crops, (x, x_hat).

    Crops of 256x256, smaller where pictures are. Bits are those of training's noise; batch normalization is that of
    use.
    """
    device = next(objective.parameters()).device
    smallest = min(min(p.shape[:2]) for p in pictures.held_out)
    size = max(config.crop, min(VALIDATION_SIZE, smallest // 64 * 64))
    crops = random_crops(pictures.held_out, VALIDATION_CROPS, size, [7])
    objective.train()
    for module in objective.modules():
        if isinstance(module, BatchNorm | nn.modules.batchnorm._BatchNorm):
            module.eval()
    rows, shown = [], []
    torch.manual_seed(0)
    for x, u in zip(
        crops.split(VALIDATION_BATCH), torch.linspace(0, 1, len(crops)).split(VALIDATION_BATCH), strict=True
    ):
        quality, lmbda = objective.conditions(u)
        x = x.to(device)
        loss, bpp, x_hat = objective(x, None if quality is None else quality.to(device), lmbda.to(device), done)
        row = {"loss": loss.mean(), "bpp": bpp.mean(), "psnr": (-10 * squared_error(x_hat, x).log10()).mean()}
        if config.objective == "ms-ssim":
            row["ms_ssim"] = (-10 * ms_ssim_error(x, x_hat).log10()).mean()
        rows.append({k: float(v) for k, v in row.items()})
        if len(rows) % 2:
            shown.append((x[:1], x_hat[:1].float()))
    before, after = zip(*shown, strict=True)
    return {k: float(np.mean([row[k] for row in rows])) for k in rows[0]}, (torch.cat(before), torch.cat(after))


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


class Pace:
    """Speed, waiting and time left, since the last `start`."""

    def __init__(self, at: At, loader: Loader) -> None:
        self.at, self.loader = at, loader
        self.start()

    def start(self) -> None:
        """Begin to measure."""
        self.began, self.step, self.waited = time.monotonic(), self.at.step, self.loader.waited

    def measure(self, pixels: int) -> dict[str, float]:
        """Megapixels per second, for so many pixels a step, and the share of the time spent waiting for data."""
        seconds = max(1e-9, time.monotonic() - self.began)
        steps = self.at.step - self.step
        return {
            "mpx_per_second": steps * pixels / seconds / 1e6,
            "waited": (self.loader.waited - self.waited) / seconds,
        }

    def left(self, config: TrainConfig) -> float:
        """Seconds to the end of the training."""
        if config.steps is None:
            assert config.minutes is not None
            return max(0.0, config.minutes * 60 - self.at.seconds)
        steps = max(1, self.at.step - self.step)
        return max(0, config.steps - self.at.step) * (time.monotonic() - self.began) / steps


# ---- Start, checkpoint, processes ------------------------------------------------------------------------------------


def choose_precision() -> str:
    """bf16-mixed on a GPU that has it, and where this processor multiplies bfloat16 1.5 times faster than float32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
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


def processes_here() -> int:
    """How many processes torchrun started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("WORLD_SIZE", 1)))


def _start(config: TrainConfig) -> tuple[Fabric, TrainConfig]:
    """The engine, and the configuration with the precision that the first process chose."""
    net = create(config.model, config.preset)
    staged = net.own_loss is not None or net.staged is not None
    fabric = _fabric("32-true" if config.precision == "auto" else config.precision, staged)
    if config.precision == "auto":
        precision = fabric.broadcast(choose_precision())
        config = dataclasses.replace(config, precision=precision)  # type: ignore[arg-type]
        if precision != "32-true":
            fabric = _fabric(precision, staged)
    if fabric.device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    return fabric, config


def _fabric(precision: Any, staged: bool) -> Fabric:
    """staged: whether some weights may have no part in a step, as in a loss that a paper trains in stages."""
    processes, devices = int(os.environ.get("WORLD_SIZE", 1)), processes_here()
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        strategy=DDPStrategy(find_unused_parameters=staged, gradient_as_bucket_view=True) if processes > 1 else "auto",
        devices=devices,
        num_nodes=processes // devices,
        precision=precision,
    )
    fabric.launch()
    return fabric


def _leave() -> None:
    """End the group of processes: not with the interpreter, and after everything that holds it.

    A thread of gloo may drop the last tensor of a collective late, and needs the interpreter's lock for it. In an
    interpreter that ends, the process, its work done, then aborts (pytorch/pytorch, issue 190489); and where the model
    is the group's last holder, it waits for that thread with the lock held.
    """
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _mean_of_all(fabric: Fabric, values: dict[str, float]) -> dict[str, float]:
    mean: Any = fabric.all_reduce(torch.tensor(list(values.values()), device=fabric.device), reduce_op="mean")
    return dict(zip(values, mean.tolist(), strict=True))


def _load_checkpoint(out: Path) -> dict[str, Any]:
    path = out / CHECKPOINT_FILE
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        raise LichenError(f"there is no checkpoint at {path}: train without --resume first") from None
    except Exception as e:  # a damaged file raises whatever its bytes lead to
        raise LichenError(f"{path} cannot be read ({e}): it is no checkpoint of this trainer") from e
    return state


def _check_new(out: Path) -> None:
    """ConfigError where `out` holds a training already or cannot be written to."""
    if (out / CHECKPOINT_FILE).exists():
        raise ConfigError(f"{out} holds a training already: go on with it (--resume), or choose another folder (--out)")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise ConfigError(f"{out} cannot be made ({e.strerror}): choose another folder (--out)") from e
    if not os.access(out, os.W_OK):
        raise ConfigError(f"{out} cannot be written to: choose another folder (--out)")


def _check_crop(config: TrainConfig) -> None:
    """DataError for crops that the model cannot take. Multiples of 64 suit all, others are tried."""
    if config.crop % 64 == 0:
        return
    assert config.lmbda is not None
    objective = TrainingLoss(create(config.model, config.preset), config.objective, config.lmbda).train()
    quality, lmbda = objective.conditions(torch.full((2,), 0.5))
    x = torch.rand(2, 3, config.crop, config.crop)
    try:
        with torch.no_grad():
            _, _, x_hat = objective(x, quality, lmbda, 0.0)
        suits = x_hat.shape == x.shape
    except (RuntimeError, ValueError, AssertionError):
        suits = False
    if not suits:
        raise DataError(f"{config.model} takes no crops of {config.crop}: --crop has to be a multiple of 64")


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
