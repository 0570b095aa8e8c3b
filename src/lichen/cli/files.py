"""What `encode` and `decode` share: arguments, a progress bar, errors file by file, the table at the end."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from lichen import batch
from lichen.batch import STREAM, UsageError
from lichen.interrupt import asked_to_stop, terminated_as_interrupted
from lichen.picture import MAX_PIXELS

if TYPE_CHECKING:
    from lichen.batch import Outcome, Plan, Work, Workers

__all__ = ["UsageError", "add_arguments", "pixels", "positive", "quality", "run", "set_threads"]

FINISHING = "lichen: finishing what is under way; Ctrl-C again drops it\n"

FEW = 10  # files that get a line each without --verbose


def add_arguments(p: argparse.ArgumentParser, what: str, into: str) -> None:
    """The arguments that both commands have."""
    p.add_argument(
        "inputs", nargs="+", metavar="IN", help=f"{what}, folders of them, patterns, URLs; - reads standard input"
    )
    p.add_argument("-o", "--output", metavar="OUT", help=f"{into}, or a folder for several; - writes standard output")
    p.add_argument("-f", "--force", action="store_true", help="overwrite files that exist, do again what is done")
    p.add_argument("-v", "--verbose", action="store_true", help="a line for each file")
    p.add_argument("--weights", metavar="FILE", help="weights that Lichen's trainer wrote, in place of those that ship")
    p.add_argument(
        "--max-pixels",
        type=pixels,
        default=MAX_PIXELS,
        metavar="N",
        help="refuse larger pictures; 0: none is too large",
    )
    p.add_argument("--threads", type=positive, metavar="N", help="processor threads (default: one per core)")
    where = p.add_mutually_exclusive_group()
    where.add_argument(
        "-j", "--jobs", type=positive, metavar="N", help="pictures at a time (default: one per thread, 8 at most)"
    )
    where.add_argument("--cluster", metavar="ADDRESS", help="have a Ray cluster do it ('local': one here)")


def pixels(text: str) -> int | None:
    """A limit on pixels; None for 0."""
    n = int(text)
    if n < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return n or None


def quality(text: str) -> float:
    """1 to 100."""
    q = float(text)
    if not 1 <= q <= 100:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 100")
    return q


def positive(text: str) -> int:
    """A number from 1 on."""
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return n


def above_zero(text: str) -> float:
    """A finite number above 0."""
    x = float(text)
    if not 0 < x < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return x


def set_threads(threads: int | None) -> None:
    """Let torch use that many threads."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)


def run(
    args: argparse.Namespace, suffix: str, suffixes: Collection[str], work: Callable[[int], Work], renew: bool = True
) -> int:
    """Do what the arguments ask for; 1 if anything failed, 130 if it was interrupted, else 0.

    suffix: of outputs; suffixes: of inputs in folders; work: gives what turns one into the other, told how many. renew:
    whether outputs that are older than their inputs are made again unasked.
    Progress shows on a terminal, errors when they happen, a table at the end where there are several files.
    """
    todo = batch.plan(args.inputs, args.output, suffix, suffixes, args.force, renew)
    if args.cluster and any(job.source.startswith("memory:") or job.target.startswith("memory:") for job in todo.jobs):
        raise UsageError("memory:// is this process's own: a cluster reads and writes what all its nodes see")
    several = todo.many or len(args.inputs) > 1
    piped = any(job.target == STREAM for job in todo.jobs)  # then standard output is the file's alone
    if piped and sys.__stdout__ is None:
        raise UsageError("standard output is closed: give a file with -o")
    table = _Table(todo, lines=not piped and (args.verbose or (several and len(todo.jobs) <= FEW)), several=several)
    console = Console(stderr=True)

    def say(source: str, sentence: str) -> None:
        console.print(f"lichen: {source}: {sentence}", markup=False, emoji=False, highlight=False, soft_wrap=True)

    for source, sentence in todo.refused:
        say(source, sentence)
    if todo.jobs:
        made, workers = work(len(todo.jobs)), _workers(args, len(todo.jobs))
        name = TextColumn("{task.description}", markup=False)
        columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        show = len(todo.jobs) > 1 and console.is_terminal
        with Progress(*columns, console=console, disable=not show, redirect_stdout=sys.stdout.isatty()) as progress:
            task = progress.add_task("", total=len(todo.jobs))
            for outcome in _until_asked(todo, made, workers):
                for note in outcome.notes:
                    say(outcome.job.target, note)
                if outcome.error is not None:
                    say(outcome.job.source, outcome.error)
                table.add(outcome)
                progress.update(task, advance=1, description=Path(outcome.job.source).name[-30:])
    table.end()
    if table.left:
        print(f"lichen: interrupted: {table.left} are left, the same command goes on with them", file=sys.stderr)
        return 130
    return 1 if table.failed else 0


@contextlib.contextmanager
def bar_of_shares(what: str) -> Iterator[Callable[[float], None]]:
    """A bar on a terminal while the block runs; what it gives is to be called with the share that is done."""
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=1.0)
        yield lambda share: progress.update(task, completed=share)


def _workers(args: argparse.Namespace, jobs: int) -> Workers:
    """A cluster, or threads among which torch's own are divided; one picture alone has them all."""
    if args.cluster:
        from lichen.cluster import Cluster

        return Cluster(args.cluster)
    import torch

    threads = args.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    if jobs == 1:
        return batch.Here()
    at_once = min(args.jobs or batch.MOST_THREADS, jobs)
    if args.threads or not args.jobs:
        at_once = min(at_once, threads)
    return batch.Threads(at_once, partial(torch.set_num_threads, max(1, threads // at_once)))


def _until_asked(todo: Plan, work: Work, workers: Workers) -> Iterator[Outcome]:
    """All outcomes, or after Ctrl-C those of what is under way; after a second one nothing more."""
    try:
        if isinstance(workers, batch.Here):
            with terminated_as_interrupted():
                yield from batch.run(todo.jobs, work, workers, threading.Event())
            return
        with asked_to_stop(FINISHING) as asked:
            yield from batch.run(todo.jobs, work, workers, asked)
    except KeyboardInterrupt:
        workers.finish(wait=False)
        others = (t for t in threading.enumerate() if t is not threading.main_thread())
        if any(not t.daemon for t in others):  # jobs, or tiles of one picture: they would be waited for
            Console(stderr=True).show_cursor()  # which a bar has hidden
            print("lichen: interrupted", file=sys.stderr, flush=True)
            sys.stdout.flush()
            os._exit(130)
        raise
    finally:
        workers.finish()


class _Table:
    """Bytes before and after, in 80 columns: a line a file where there are to be some, and the sums where several files
    were asked for."""

    def __init__(self, todo: Plan, *, lines: bool, several: bool) -> None:
        self.lines, self.several = lines, several
        self.done, self.failed, self.left, self.skipped = 0, len(todo.refused), len(todo.jobs), todo.done
        self.before = self.after = 0
        if lines and todo.jobs:
            self._head()

    def add(self, outcome: Outcome) -> None:
        """Count a file, and show it."""
        self.left -= 1
        if outcome.error is not None:
            self.failed += 1
            return
        self.done += 1
        self.before += outcome.job.bytes
        self.after += outcome.after
        if self.lines:
            name = outcome.job.source
            self._line(name if len(name) <= 36 else f"...{name[-33:]}", outcome.job.bytes, outcome.after)

    def end(self) -> None:
        """Show the sums."""
        if not self.several:
            return
        if not self.lines:
            self._head()
        self._line(_files(self.done), self.before, self.after)
        if self.skipped:
            print(f"{_files(self.skipped)} skipped: done before (--force does them again)")
        if self.failed:
            print(f"{_files(self.failed)} failed")

    def _head(self) -> None:
        print(f"{'':<37}{'bytes before':>16}{'bytes after':>16}{'ratio':>10}")

    def _line(self, name: str, before: int, after: int) -> None:
        ratio = f"{100 * after / before:.1f} %" if before else ""
        print(f"{name:<37}{before:>16,}{after:>16,}{ratio:>10}")


def _files(n: int) -> str:
    return f"{n} file{'s' * (n != 1)}"
