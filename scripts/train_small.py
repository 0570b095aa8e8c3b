"""Train the preset `small` of every registered model, one after another, all with the same data and settings.

    python scripts/train_small.py --data DIR... --work DIR --into DIR [--only NAME[:PRESET] ...] [--jobs N]
    python scripts/train_small.py ... --only NAME[:PRESET] ... --ms-ssim      # fine-tune those in --into for MS-SSIM

Each is a plain `lichen train` command on one thread, printed before it runs, --jobs of them at a time. What was
interrupted goes on where it was, what is finished is skipped: run the script again until it says that all are done.
--work gets a folder a model, what its training prints in train.txt; --into gets NAME.safetensors a model in half
precision, as src/lichen/weights wants them, and NAME-ms-ssim.safetensors.
Other settings are another training and want another --work.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from lichen.models import REGISTRY, find, weights
from lichen.models.weights import DEFAULT, read, save
from lichen.training.config import CHECKPOINT_FILE, WEIGHTS_FILE, option

SETTINGS: dict[str, Any] = {
    "steps": 16_000,
    "batch": 4,  # crops a step
    "crop": 128,
    "lr": 1e-3,
    "seed": 0,
}
OTHERWISE: dict[str, dict[str, Any]] = {"toderici2017": {"batch": 8, "crop": 64}}
"""What goes before these for a model."""

MS_SSIM: dict[str, Any] = {
    "steps": 3_000,
    "batch": 2,
    "crop": 192,
    "lr": 3e-4,
    "seed": 0,
    "objective": "ms-ssim",
}
"""Of a fine-tuning, 0.22 G pixels."""


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", nargs="+", required=True, metavar="DIR", help="folders of pictures")
    p.add_argument("--work", required=True, type=Path, metavar="DIR", help="for the trainings")
    p.add_argument("--into", required=True, type=Path, metavar="DIR", help="for the weights")
    p.add_argument("--only", nargs="+", metavar="NAME[:PRESET]", help="these models (default: all with a preset small)")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="trainings at a time (default: 2)")
    p.add_argument("--ms-ssim", action="store_true", help="fine-tune weights of --into for MS-SSIM")
    args = p.parse_args()
    wanted = args.only or [name for name, entry in REGISTRY.items() if "small" in entry.presets]
    models = [chosen(item) for item in wanted]
    with ThreadPoolExecutor(args.jobs) as pool:
        done = list(pool.map(lambda model: finish(*model, args.data, args.work, args.into, args.ms_ssim), models))
    failed = [item for item, ok in zip(wanted, done, strict=True) if not ok]
    print(f"not done: {', '.join(failed)}" if failed else f"all {len(wanted)} are done")
    return 1 if failed else 0


def chosen(item: str) -> tuple[str, str]:
    """NAME or NAME:PRESET -> a model's name and its preset."""
    name, _, preset = item.partition(":")
    preset = preset or "small"
    if preset not in find(name).presets:
        raise SystemExit(f"{name} has no preset {preset}: it has {', '.join(find(name).presets)}")
    return name, preset


def file_name(name: str, preset: str, objective: str = "mse") -> str:
    """NAME.safetensors; the preset is added where the name stands for another one."""
    return weights.file_name(name if preset == "small" and name != DEFAULT else f"{name}-{preset}", objective)


def finish(name: str, preset: str, data: list[str], work: Path, into: Path, ms_ssim: bool = False) -> bool:
    """Train a model as far as it is not, and put its weights into `into`. False where the training failed."""
    settings = SETTINGS | OTHERWISE.get(name, {})
    out, target = work / f"{name}-{preset}", into / file_name(name, preset)
    if ms_ssim:
        settings = MS_SSIM | {"start": target}
        out, target = work / f"{name}-{preset}-ms-ssim", into / file_name(name, preset, "ms-ssim")
    if target.exists() and step_of(out) >= settings["steps"]:
        print(f"{target} is there", flush=True)
        return True
    if step_of(out) < settings["steps"]:
        line = command(name, preset, settings, data, out)
        print(shlex.join(line), flush=True)
        out.mkdir(parents=True, exist_ok=True)
        with (out / "train.txt").open("a") as log:
            ran = subprocess.run(line, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)
        if ran.returncode or step_of(out) < settings["steps"]:
            return False
    into.mkdir(parents=True, exist_ok=True)
    save(read(out / WEIGHTS_FILE), target, half=True)
    print(f"{target}: {target.stat().st_size} bytes", flush=True)
    return True


def step_of(out: Path) -> int:
    """How far the training in a folder is."""
    path = out / CHECKPOINT_FILE
    return int(torch.load(path, weights_only=True, mmap=True)["step"]) if path.exists() else -1


def command(name: str, preset: str, settings: Mapping[str, Any], data: list[str], out: Path) -> list[str]:
    """The command that begins a training, or goes on with it."""
    line = [sys.executable, "-m", "lichen", "train", "--model", name, "--preset", preset]
    line += ["--data", *data, "--out", str(out)]
    for key, value in settings.items():
        line += [option(key), str(value)]
    return [*line, "--resume"] if (out / CHECKPOINT_FILE).exists() else line


if __name__ == "__main__":
    raise SystemExit(main())
