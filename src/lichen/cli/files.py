"""What `encode` and `decode` share: inputs, outputs, a progress bar, errors file by file."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lichen.container import write_atomic
from lichen.errors import LichenError
from lichen.picture import MAX_PIXELS


class UsageError(LichenError):
    """A command line that cannot be carried out."""


def add_arguments(p: argparse.ArgumentParser, what: str, into: str) -> None:
    """The arguments that both commands have."""
    p.add_argument("inputs", nargs="+", metavar="IN", help=f"{what}; - reads standard input")
    p.add_argument("-o", "--output", metavar="OUT", help=f"{into}, or a folder for several; - writes standard output")
    p.add_argument("-f", "--force", action="store_true", help="overwrite files that exist")
    p.add_argument("--weights", metavar="FILE", help="weights that Lichen's trainer wrote, in place of those that ship")
    p.add_argument(
        "--max-pixels",
        type=pixels,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse larger pictures; 0: none is too large",
    )
    p.add_argument("--threads", type=_positive, metavar="N", help="processor threads (default: one a core)")


def pixels(text: str) -> int | None:
    """A limit on pixels; None for 0."""
    n = int(text)
    if n < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return n or None


def _positive(text: str) -> int:
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return n


def set_threads(threads: int | None) -> None:
    """Let torch use that many threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def targets(inputs: Sequence[str], output: str | None, suffix: str) -> list[tuple[str, str]]:
    """(input, output) for each input; UsageError where two would share one or the output is unclear."""
    if output is None:
        if "-" in inputs and len(inputs) > 1:
            raise UsageError("standard input cannot be one of several inputs: give -o")
        pairs = [(i, "-" if i == "-" else str(Path(i).with_suffix(suffix))) for i in inputs]
    elif len(inputs) == 1 and not Path(output).is_dir():
        pairs = [(inputs[0], output)]
    else:
        folder = Path(output)
        if "-" in (output, *inputs):
            raise UsageError("several files cannot go through one stream: give a folder with -o")
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file: several outputs need a folder")
        pairs = [(i, str(folder / Path(i).with_suffix(suffix).name)) for i in inputs]
    seen: dict[str, str] = {}
    for source, target in pairs:
        if target != "-" and target in seen:
            raise UsageError(f"{seen[target]} and {source} would both become {target}: encode them into two folders")
        seen[target] = source
    return pairs


def run(pairs: Sequence[tuple[str, str]], work: Callable[[str, str], bytes], force: bool) -> int:
    """Do each pair, show progress on a terminal, go on after errors; 1 if there were any, else 0.

    `work(input, output)` gives the bytes to write. An output that exists is refused without `force`; it appears whole
    or not at all.
    """
    failed = 0
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    show = len(pairs) > 1 and console.is_terminal
    with Progress(*columns, console=console, disable=not show) as progress:
        task = progress.add_task("", total=len(pairs))
        for source, target in pairs:
            progress.update(task, description=Path(source).name[-30:])
            try:
                if target != "-" and Path(target).exists() and not force:
                    raise UsageError(f"{target} exists: give another name with -o, or --force to overwrite it")
                data = work(source, target)
                if target == "-":
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
                else:
                    path = Path(target)
                    path.parent.mkdir(parents=True, exist_ok=True)
                    write_atomic(path, data)
            except BrokenPipeError:
                raise
            except LichenError as e:
                failed += 1
                progress.console.print(f"lichen: {source}: {e}", markup=False, highlight=False, soft_wrap=True)
            except OSError as e:
                failed += 1
                progress.console.print(
                    f"lichen: {source}: {e.strerror or e} ({e.filename or target})",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )
            progress.advance(task)
    return 1 if failed else 0
