"""`lichen train`: any model on any folder of pictures."""

from __future__ import annotations

import argparse
from typing import Any

from lichen.errors import LichenError


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser(
        "train",
        help="train a model on folders of pictures",
        description="Train a model. Under torchrun: one process a device.",
    )
    p.add_argument("--data", nargs="+", required=True, metavar="DIR", help="folders of pictures")
    p.add_argument("--out", required=True, metavar="DIR", help="folder for weights, checkpoint and log")
    p.add_argument("--model", default="light", metavar="NAME", help="a model of `lichen models`")
    p.add_argument("--preset", metavar="NAME", help="one of its presets (default: its first)")
    p.add_argument(
        "--weights", dest="start", metavar="FILE", help="weights to begin with (default: the model's own start)"
    )
    budget = p.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, default=60.0, help="of training in all (default 60)")
    p.add_argument(
        "--pause-after", type=float, metavar="MIN", help="stop this run after so many minutes, to be resumed"
    )
    p.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    p.add_argument("--lmbda", type=float, help="rate against distortion, for models of one quality")
    p.add_argument("--lr", type=float, help="peak of the learning rate")
    p.add_argument("--batch", type=int, help="crops a process and step")
    p.add_argument("--crop", type=int, help="side of a crop, a multiple of 64")
    p.add_argument("--precision", choices=["auto", "32-true", "bf16-mixed"], help="arithmetic (default: measured)")
    p.add_argument("--seed", type=int, help="of crops and noise")
    p.add_argument("--cache", help="folder for decoded pictures")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Train, and say where the weights are."""
    try:
        from lichen.training.loop import TrainConfig, train
    except ModuleNotFoundError as e:
        raise LichenError(f"training needs {e.name}: pip install 'lichen[train]'") from e

    named = (
        "model",
        "preset",
        "start",
        "minutes",
        "pause_after",
        "lmbda",
        "lr",
        "batch",
        "crop",
        "precision",
        "seed",
        "cache",
    )
    given = {k: getattr(args, k) for k in named if getattr(args, k) is not None}
    path = train(TrainConfig(data=args.data, out=args.out, **given), resume=args.resume)
    if path is not None:
        print(f"weights: {path}")
    return 0
