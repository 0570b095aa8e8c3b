"""One process or many, on processors or GPUs: Lightning Fabric, started by torchrun."""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import time
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from lichen.models import create
from lichen.training.config import TrainConfig


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


def start(config: TrainConfig) -> tuple[Fabric, TrainConfig]:
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


def leave() -> None:
    """End the group of processes: not with the interpreter, and after everything that holds it.

    A thread of gloo may drop the last tensor of a collective late, and needs the interpreter's lock for it. In an
    interpreter that ends, the process, its work done, then aborts (pytorch/pytorch, issue 190489); and where the model
    is the group's last holder, it waits for that thread with the lock held.
    """
    gc.collect()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def mean_of_all(fabric: Fabric, values: dict[str, float]) -> dict[str, float]:
    """Each value's mean over the processes."""
    mean: Any = fabric.all_reduce(torch.tensor(list(values.values()), device=fabric.device), reduce_op="mean")
    return dict(zip(values, mean.tolist(), strict=True))
