"""The training loop: any model of the registry, on one processor or many.

Started by torchrun it runs one process a device; Lightning Fabric places the model and averages gradients. All
randomness of a step comes from (seed, process, step), and a checkpoint holds weights, their average, the optimizer, the
step and the seconds spent: a training that stops and resumes is the training that did not stop.
"""

from __future__ import annotations

import logging
import math
import os
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lichen.atomic import write_atomic
from lichen.errors import LichenError
from lichen.interrupt import asked_to_stop
from lichen.models import create
from lichen.training.config import (
    CHECKPOINT_FILE,
    CONFIG_FILE,
    WEIGHTS_FILE,
    ConfigError,
    TrainConfig,
    resolve,
    to_json,
)
from lichen.training.data import Crops, DataError, Loader, load_pictures, to_floats
from lichen.training.log import At, Log, Reporter, describe
from lichen.training.loss import TrainingLoss, squared_error
from lichen.training.processes import leave, mean_of_all, processes_here, start
from lichen.training.schedule import learning_rate, progress, stage, step_seed, stratified
from lichen.training.state import Training, load_checkpoint
from lichen.training.validation import validate

__all__ = ["TrainConfig", "train"]

MAX_BLOWN = 20
"""Steps without a finite gradient, one after another, that a training forgives by leaving them out."""


def train(config: TrainConfig, resume: bool = False, console: Console | None = None) -> Path | None:
    """Train, and return the path of the averaged weights (safetensors); None in processes other than the first.

    `config.out` receives config.json, checkpoint.pt, weights.safetensors, log.csv and tensorboard/. To resume, take the
    configuration from `config.saved_config`. An interruption (SIGINT, SIGTERM) writes a checkpoint and then raises
    KeyboardInterrupt.

    Raises DataError for folders that cannot be trained on, ConfigError for options that do not fit the model or what is
    in `config.out`, WeightsError for an unknown model or preset, LichenError where gradients stay infinite.
    """
    written, stopped = _train(config, resume, console)
    leave()
    if stopped:
        raise KeyboardInterrupt
    return written


def _train(config: TrainConfig, resume: bool, console: Console | None) -> tuple[Path | None, bool]:
    """What `train` returns, and whether it was interrupted. What the training was made of goes with this function."""
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    config, out = resolve(config) if not resume else config, Path(config.out)
    state = load_checkpoint(out) if resume else None
    if not resume:
        _check_new(out)
        _check_crop(config)
    fabric, config = start(config)
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
                places=config.places,
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
            values = mean_of_all(fabric, running) if line else running
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
