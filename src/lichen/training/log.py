"""What a training tells: log.csv, TensorBoard, and a progress bar or, away from a terminal, plain lines."""

from __future__ import annotations

import datetime
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch import Tensor

from lichen.atomic import write_atomic

FIELDS = ("step", "seconds", "split", "loss", "bpp", "psnr", "ms_ssim", "mpx_per_second", "waited")


@dataclass
class At:
    """How far a training is."""

    step: int = 0
    seconds: float = 0.0


class Log:
    """log.csv, and TensorBoard scalars and pictures where that is installed.

    Rows: step, seconds, split (training or held-out), loss, bpp, PSNR in dB, MS-SSIM in dB, megapixels per second,
    share of the time spent waiting for data. What is not known stays empty.
    """

    def __init__(self, out: Path, at: At) -> None:
        """Go on at `at`: later rows, of a run that was killed after its last checkpoint, are dropped."""
        self.path, self.fields = out / "log.csv", list(FIELDS)
        lines: list[str] = []
        if at.step and self.path.exists():
            first, *lines = self.path.read_text().splitlines() or [",".join(FIELDS)]
            self.fields = first.split(",")
        kept = [",".join(self.fields), *(line for line in lines if int(line.split(",")[0]) <= at.step)]
        held_out = [int(line.split(",")[0]) for line in kept[1:] if ",held-out," in line]
        self.last_held_out = max(held_out, default=-1)  # step
        write_atomic(self.path, "".join(f"{line}\n" for line in kept).encode())
        self.board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(out / "tensorboard"), purge_step=at.step + 1 if at.step else None)
        except ModuleNotFoundError:
            pass

    def write(self, at: At, split: str, values: Mapping[str, float]) -> None:
        """One row."""
        row = {"step": str(at.step), "seconds": f"{at.seconds:.1f}", "split": split}
        row |= {name: f"{value:.5f}" for name, value in values.items()}
        if split == "held-out":
            self.last_held_out = at.step
        with self.path.open("a") as f:
            f.write(",".join(row.get(name, "") for name in self.fields) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{split}/{name}", value, at.step)

    def pictures(self, at: At, x: Tensor, x_hat: Tensor) -> None:
        """Originals and what becomes of them, side by side: (B, 3, H, W) in 0..1 each."""
        if self.board is not None:
            for k, pair in enumerate(zip(x, x_hat.clamp(0, 1), strict=True)):
                self.board.add_image(f"held-out/{k}", torch.cat(pair, dim=2), at.step)

    def close(self) -> None:
        """Write what TensorBoard holds back."""
        if self.board is not None:
            self.board.close()


class Reporter:
    """A bar on a terminal; elsewhere (a file, a pipe) a plain line now and then, without control characters."""

    def __init__(self, console: Console | None, quiet: bool) -> None:
        self.console = Console(stderr=True) if console is None else console
        self.quiet, self.live = quiet, self.console.is_terminal
        self.progress = Progress(
            BarColumn(20), TextColumn("{task.description}"), console=self.console, disable=quiet or not self.live
        )
        self.bar = self.progress.add_task("", total=1.0)
        self.shown = 0.0

    def __enter__(self) -> Self:
        self.progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.progress.stop()

    def say(self, text: str) -> None:
        """A line for good."""
        if self.quiet:
            return
        if self.live:
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=self.console.file, flush=True)

    def update(self, done: float, text: str, line: bool) -> None:
        """The state of things; away from a terminal it is a line, where `line` asks for one."""
        if self.live:
            if time.monotonic() - self.shown > 0.2:
                self.progress.update(self.bar, completed=min(1.0, done), description=text)
                self.shown = time.monotonic()
        elif line:
            self.say(text)


def describe(at: At, values: Mapping[str, float], left: float | None = None) -> str:
    """One line: step, loss, bits per pixel, dB, and where known speed, waiting, seconds left."""
    text = f"step {at.step}  loss {values['loss']:.3f}  {values['bpp']:.3f} bpp  {values['psnr']:.2f} dB"
    if "ms_ssim" in values:
        text += f"  MS-SSIM {values['ms_ssim']:.2f} dB"
    if "mpx_per_second" in values:
        text += f"  {values['mpx_per_second']:.2f} Mpx/s  {values['waited']:.1%} waiting"
    if left is not None:
        text += f"  {datetime.timedelta(seconds=round(left))} left"
    return text
