"""`lichen train`: any model on any folder of pictures."""

from __future__ import annotations

import argparse
import os
from typing import Any

from lichen.errors import LichenError


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser(
        "train",
        help="train a model on folders of pictures",
        description="Train a model. Under torchrun: one process per device. docs/training.md tells more.",
        argument_default=argparse.SUPPRESS,
    )
    p.add_argument("--data", nargs="+", metavar="DIR", help="folders of pictures")
    p.add_argument("--out", required=True, metavar="DIR", help="folder for weights, checkpoint and log")
    p.add_argument("--resume", action="store_true", help="go on with the training in --out; needs no other option")
    p.add_argument("--model", metavar="NAME", help="a model of `lichen models` (default: light)")
    p.add_argument("--preset", metavar="NAME", help="one of its presets (default: its first)")
    p.add_argument("--recipe", choices=["paper"], help="take what the preset's paper says for the options not given")
    p.add_argument(
        "--weights", dest="start", metavar="FILE", help="weights to begin with (default: the model's own start)"
    )
    p.add_argument("--objective", choices=["mse", "ms-ssim"], help="the distortion to train for (default: mse)")
    budget = p.add_mutually_exclusive_group()
    budget.add_argument(
        "--minutes", type=float, metavar="N", help="length of the training, over all resumes (default: 60)"
    )
    budget.add_argument("--steps", type=int, metavar="N", help="its length in steps, in place of minutes")
    p.add_argument(
        "--pause-after", type=float, metavar="MIN", help="stop this run after so many minutes, to be resumed"
    )
    p.add_argument("--lmbda", type=float, metavar="X", help="distortion against rate, for models of one quality")
    p.add_argument("--lr", type=float, metavar="X", help="learning rate at its peak")
    p.add_argument("--schedule", choices=["cosine", "constant"], help="of the learning rate (default: cosine, to zero)")
    p.add_argument(
        "--warmup", type=int, metavar="N", help="steps in which the rate rises, at most a tenth of the training"
    )
    p.add_argument("--batch", type=int, metavar="N", help="crops per process and step")
    p.add_argument("--crop", type=int, metavar="N", help="side of a crop, for most models a multiple of 64")
    p.add_argument("--rescale", type=float, metavar="X", help="make crops from regions up to so many times larger")
    p.add_argument("--precision", choices=["auto", "32-true", "bf16-mixed"], help="arithmetic (default: measured)")
    p.add_argument("--compile", action="store_true", help="compile the model (torch.compile)")
    p.add_argument("--seed", type=int, metavar="N", help="seed of crops and noise")
    p.add_argument("--cache", metavar="DIR", help="folder for decoded pictures (default: ~/.cache/lichen/pixels)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, and say where the weights are."""
    try:
        from lichen.training.config import new_config, saved_config
        from lichen.training.loop import train
    except ModuleNotFoundError as e:
        raise LichenError(f"training needs {e.name}: pip install 'lichen[train]'") from e

    given = {k: v for k, v in vars(args).items() if k not in ("run", "command", "resume")}
    resume = hasattr(args, "resume")
    config = saved_config(args.out, given) if resume else new_config(given, int(os.environ.get("WORLD_SIZE", 1)))
    path = train(config, resume=resume)
    if path is not None:
        print(f"weights: {path}")
    return 0
