"""Trials of how to go on training the default model, at equal cost, and their table in docs/training.md.

    python scripts/trials.py --data DIR... --work DIR [--only NAME ...] [--jobs N]      # train what is not finished
    python scripts/trials.py                                                            # the table alone, from its logs

Each begins with the weights that shipped at one commit, changes one thing of the first trial, and sees as many pixels
as that does or, where a pixel costs more, proportionally fewer, on one thread, with the same seed. Then it is measured
as scripts/held_out.py does. All run the source of that commit; a trial that changes it has a patch. Kept are, in
docs/training-logs/trials: NAME.csv, of the training, NAME-held-out.csv, of the measure, and NAME.patch.
What was interrupted goes on where it was: run the script again until it says that all are done.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import held_out
import pages
import safetensors.torch
import torch

from lichen.models import create
from lichen.models.base import Model
from lichen.models.weights import DEFAULT, read, save
from lichen.training.config import CHECKPOINT_FILE, TrainConfig, resolve, saved_config
from lichen.training.loop import train

ROOT = Path(__file__).parent.parent
LOGS = ROOT / "docs" / "training-logs" / "trials"
COMMIT = "fb1eeeb"  # whose source all run
START = f"{COMMIT}:src/lichen/weights/light.safetensors"  # what all begin with

PIXELS = 1.0e9  # that the first trial sees
BASE: Mapping[str, Any] = {"batch": 4, "crop": 192, "lr": 1e-3, "seed": 0}


@dataclass(frozen=True)
class Trial:
    """What differs from the first trial."""

    what: str  # the table's line
    settings: Mapping[str, Any] = field(default_factory=dict)  # fields of the trainer's configuration
    cost: float = 1.0  # of a pixel in training, against the first trial's, measured on a quiet machine
    patched: bool = False  # by NAME.patch

    def steps(self) -> int:
        """As many as make the cost equal."""
        values = {**BASE, **self.settings}
        return round(PIXELS / self.cost / (values["batch"] * values["crop"] ** 2))


TRIALS: Mapping[str, Trial] = {
    "base": Trial("4 crops of 192x192, rate 1e-3, cosine to zero"),
    "rounded-scales": Trial("scales learn from rounded latents, not from noise", cost=1.01, patched=True),
    "groups": Trial("latents in 3 groups of channels, each seen by those after it", cost=1.04, patched=True),
    "deeper": Trial("a block more at 1/8 and at 1/16, to both sides", cost=1.24, patched=True),
    "analysis": Trial("an analysis of twice as many blocks", cost=1.27, patched=True),
    "kernels-5": Trial("depthwise kernels of 5x5 in all blocks", cost=1.35, patched=True),
    "lr-2e-3": Trial("rate 2e-3", {"lr": 2e-3}),
    "lr-5e-4": Trial("rate 5e-4", {"lr": 5e-4}),
    "lr-2e-4": Trial("rate 2e-4", {"lr": 2e-4}),
    "batch-2": Trial("2 crops of 192x192, twice the steps", {"batch": 2}),
    "crop-128": Trial("9 crops of 128x128", {"crop": 128, "batch": 9}),
    "crop-256": Trial("2 crops of 256x256", {"crop": 256, "batch": 2}),
    "photographs": Trial("no crop made harder than photographs are", {"hard_every": 0}),
    "rescale-2": Trial("crops from regions up to twice as large", {"rescale": 2.0}),
}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", nargs="+", metavar="DIR", help="folders of training pictures")
    p.add_argument("--work", type=Path, metavar="DIR", help="for the trainings")
    p.add_argument("--only", nargs="+", choices=TRIALS, metavar="NAME", help=f"of {', '.join(TRIALS)}")
    p.add_argument("--jobs", type=int, default=2, metavar="N", help="trials at a time (default: 2)")
    p.add_argument("--one", choices=TRIALS, help=argparse.SUPPRESS)  # the training itself, in a process of its own
    args = p.parse_args()
    if (args.data is None) != (args.work is None):
        p.error("--data and --work go together")
    if args.one:
        finish(args.one, args.data, args.work)
        return 0
    if args.data:
        names = args.only or list(TRIALS)
        with ThreadPoolExecutor(args.jobs) as pool:
            done = list(pool.map(lambda name: run(name, args.data, args.work), names))
        failed = [name for name, ok in zip(names, done, strict=True) if not ok]
        print(f"not done: {', '.join(failed)}" if failed else f"all {len(names)} are done")
        if failed:
            return 1
    text = table()
    print(text)
    pages.write(ROOT / "docs" / "training.md", "trials", text, "trials.py")
    return 0


# ---- Training --------------------------------------------------------------------------------------------------------


def run(name: str, data: Sequence[str], work: Path) -> bool:
    """Train and measure one, in a process of its own with its own source. False where that failed."""
    out = work / name
    if not (LOGS / f"{name}-held-out.csv").exists():
        out.mkdir(parents=True, exist_ok=True)
        line = [sys.executable, __file__, "--one", name, "--work", str(work), "--data", *data]
        print(f"{name}: {TRIALS[name].steps()} steps", flush=True)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(source(name, work))}
        with (out / "train.txt").open("a") as log:
            if subprocess.run(line, env=environment, stdout=log, stderr=log).returncode:
                return False
        for made, kept in (("log.csv", f"{name}.csv"), ("held-out.csv", f"{name}-held-out.csv")):
            shutil.copy(out / made, LOGS / kept)
        print(f"{name}: done", flush=True)
    return True


def source(name: str, work: Path) -> Path:
    """The folder that has the trial's package: the commit's, with the trial's patch."""
    folder = work / name / "source"
    if not folder.exists():
        part = folder.with_name("source.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        subprocess.run(["tar", "-x", "-C", str(part)], input=git("archive", COMMIT, "src"), check=True)
        if TRIALS[name].patched:
            subprocess.run(["patch", "-s", "-p1", "-d", str(part), "-i", str(LOGS / f"{name}.patch")], check=True)
        part.rename(folder)
    return folder / "src"


def git(*arguments: str) -> bytes:
    """What a git command prints about this repository."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def finish(name: str, data: Sequence[str], work: Path) -> None:
    """Train a trial as far as it is not, and measure it."""
    out, trial = work / name, TRIALS[name]
    torch.set_num_threads(1)
    if (out / CHECKPOINT_FILE).exists():
        weights = train(saved_config(out), resume=True)
    else:
        out.mkdir(parents=True, exist_ok=True)
        start = out / "start.safetensors"
        save(grown(), start)
        settings: dict[str, Any] = {**BASE, **trial.settings, "steps": trial.steps()}
        weights = train(resolve(TrainConfig(data=list(data), out=str(out), start=str(start), **settings)))
    assert weights is not None
    held_out.write(out / "held-out.csv", held_out.measure(read(weights), held_out.held_out_crops(data)))


def grown() -> Model:
    """The default model with the weights of the start; parts that these lack are as new, without effect."""
    net = create(DEFAULT)
    known = {k: v.float() for k, v in safetensors.torch.load(git("show", START)).items()}
    rest = net.load_state_dict(known, strict=False)
    assert not rest.unexpected_keys, rest.unexpected_keys
    return net


# ---- The table -------------------------------------------------------------------------------------------------------


def table() -> str:
    """A line a finished trial, the best first."""
    start = held_out.points_of(LOGS / "start-held-out.csv")
    lines = ["| trial | steps | cost of a pixel | loss | BD-rate, % | logs |", "|---|---|---|---|---|---|"]
    lines.append(f"| none: as they began | 0 | | {held_out.loss(start):.3f} | | [csv]({link('start-held-out.csv')}) |")
    rows = []
    for name, trial in TRIALS.items():
        log = LOGS / f"{name}-held-out.csv"
        if log.exists():
            points = held_out.points_of(log)
            loss, bd = held_out.loss(points), held_out.difference(points, start)
            patch = f", [patch]({link(f'{name}.patch')}) on {COMMIT}" if trial.patched else ""
            logs = f"[training]({link(f'{name}.csv')}), [csv]({link(log.name)}){patch}"
            rows.append(
                (loss, f"| {trial.what} | {trial.steps()} | {trial.cost:.2f} | {loss:.3f} | {bd:+.2f} | {logs} |")
            )
    return "\n".join(lines + [line for _, line in sorted(rows)])


def link(file: str) -> str:
    """From docs/training.md."""
    return f"training-logs/trials/{file}"


if __name__ == "__main__":
    raise SystemExit(main())
