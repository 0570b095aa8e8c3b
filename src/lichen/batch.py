"""Many pictures: what has to be done, and doing it, several at a time.

    plan      inputs (files, folders, patterns, URLs) -> jobs (source, target), what is done already, what is refused
    run       each job's bytes by a worker: a thread here or a core of a cluster

Threads, and not processes, because they share one model, and because most of a picture's time is spent where Python
lets others run: one holds the interpreter for a seventh (encoding) to a fifth (decoding) of it, so that up to
`MOST_THREADS` pay. A picture on one thread takes less processor time than on two; hence as many pictures at a time as
there are cores, and one picture alone on all of them. More cores than `MOST_THREADS` are for a cluster's processes.

Paths are read and written by the process that runs the command, so that a cluster needs no common file system; URLs by
the workers. Whatever is interrupted, a target is there as a whole or not at all.
"""

from __future__ import annotations

import os
import secrets
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from lichen import places
from lichen.atomic import write_atomic
from lichen.errors import LichenError
from lichen.places import Found

MOST_THREADS = 8
STREAM = "-"  # standard input, standard output


class UsageError(LichenError):
    """A command line that cannot be carried out."""


@dataclass(frozen=True)
class Job:
    """A source, its target, and the source's size in bytes."""

    source: str
    target: str
    bytes: int = 0


@dataclass
class Plan:
    """What has to be done. done: how many targets are there already. refused: sources, and sentences that say why.
    many: whether a folder or a pattern was given."""

    jobs: list[Job] = field(default_factory=list)
    done: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    many: bool = False


@dataclass
class Outcome:
    """What became of a job. after: the target's size in bytes; error: a sentence, None where all went well; notes:
    sentences for the user; data: what is still to be written here."""

    job: Job
    after: int = 0
    error: str | None = None
    notes: Sequence[str] = ()
    data: bytes | None = None


class Work(Protocol):
    """Makes a target's bytes of a source: a path or bytes. A second result: sentences for the user."""

    def __call__(self, source: str | bytes, target: str) -> tuple[bytes, Sequence[str]]:
        """Raises LichenError for what cannot be done."""
        ...


# ---- what has to be done ---------------------------------------------------------------------------------------------


def plan(
    inputs: Sequence[str], output: str | None, suffix: str, suffixes: Collection[str], force: bool, renew: bool = True
) -> Plan:
    """Jobs for inputs: files, "-", folders, patterns, URLs of these.

    output: a file for one file, else a folder, below which the sources' own folders are kept; None puts targets beside
    their sources. suffix: of targets (".lichen"). suffixes: of the files that count in folders. In folders and for
    patterns a target that is as new as its source is done already, and an older one is made again if `renew` says so; a
    single file's target must not exist. force: do it in all cases. A target that is an input is always refused.

    Raises UsageError where the output is unclear, a name is empty or two single files would share one, PlaceError where
    a store cannot be listed.
    """
    if "" in inputs or output == "":
        raise UsageError("an empty name is no file and no folder: give a dot for this folder")
    found, todo = [], Plan()

    def unreadable(e: OSError) -> None:
        todo.refused.append((str(e.filename), e.strerror or str(e)))

    for place in inputs:
        many, files = (False, [Found(STREAM, STREAM)]) if place == STREAM else places.find(place, suffixes, unreadable)
        todo.many |= many
        found += [(f, many) for f in files]
        if many and not files and not places.is_folder(place):
            todo.refused.append((place, "nothing matches this pattern"))
    folder = _folder(inputs, output, todo.many)
    targets: dict[str, tuple[Found, bool]] = {}
    takers: dict[str, Found] = {}  # by what a target is, however it is spelled
    for f, many in found:
        if many and not places.stays_below(f.name):
            todo.refused.append((f.place, "its name leads out of the folder: rename it"))
            continue
        target = _target(f, output, folder, suffix)
        other = takers.setdefault(places.canonical(target), f)
        if other is f:
            targets[target] = (f, many)
        elif not (many and other.place == f.place):
            sentence = f"{other.place} and {f.place} would both become {target}: encode them into two folders"
            if not many:
                raise UsageError(sentence)
            todo.refused.append((f.place, sentence))
    _choose(todo, targets, force, renew)
    return todo


def _folder(inputs: Sequence[str], output: str | None, many: bool) -> str | None:
    """The folder that outputs go to, None for a single output or outputs beside their inputs."""
    if output is None:
        if STREAM in inputs and len(inputs) > 1:
            raise UsageError("standard input has no name to be given in a folder: encode it alone, with a file as -o")
        return None
    if not many and len(inputs) == 1 and (output == STREAM or not (output.endswith("/") or places.is_folder(output))):
        return None
    if STREAM in inputs:
        raise UsageError("standard input has no name to be given in a folder: encode it alone, with a file as -o")
    if output == STREAM:
        raise UsageError("several files cannot go through one stream: give a folder with -o")
    if not places.is_url(output) and os.path.lexists(output) and not places.is_folder(output):
        raise UsageError(f"{output} is a file: several outputs need a folder")
    return output


def _target(source: Found, output: str | None, folder: str | None, suffix: str) -> str:
    if folder is not None:
        return places.join(folder, str(PurePosixPath(source.name).with_suffix(suffix)))
    if output is not None:
        return output
    return STREAM if source.place == STREAM else places.with_suffix(source.place, suffix)


def _choose(todo: Plan, targets: dict[str, tuple[Found, bool]], force: bool, renew: bool) -> None:
    """Jobs of what is not done and may be written."""
    inputs = {source.identity for source, _ in targets.values()}
    there = places.existing(target for target in targets if target != STREAM)
    for target, (source, many) in targets.items():
        old = there.get(target)
        if old is not None and old.identity in inputs:
            todo.refused.append((source.place, f"{target} is an input: give another name with -o"))
        elif old is not None and places.is_folder(target):
            todo.refused.append((source.place, f"{target} is a folder: give another name with -o"))
        elif old is not None and not force and not many and old.regular:
            todo.refused.append(
                (source.place, f"{target} exists: give another name with -o, or --force to overwrite it")
            )
        elif old is not None and not force and old.regular and not _older(old, source):
            todo.done += 1
        elif old is not None and not force and old.regular and not renew:
            todo.refused.append(
                (
                    source.place,
                    f"{target} is older, perhaps what it was made of: give another folder with -o, or --force",
                )
            )
        else:
            todo.jobs.append(Job(source.place, target, source.bytes))


def _older(old: Found, source: Found) -> bool:
    if old.modified is None or source.modified is None:
        return False
    whole_seconds = old.modified == int(old.modified)  # as stores and some disks keep them
    return old.modified < (int(source.modified) if whole_seconds else source.modified)


# ---- doing it --------------------------------------------------------------------------------------------------------


class Workers(Protocol):
    """Where jobs are done. workers: how many there are; remote: whether they may not see this machine's files."""

    @property
    def workers(self) -> int: ...  # noqa: D102

    @property
    def remote(self) -> bool: ...  # noqa: D102

    def share(self, value: Any) -> Any:
        """A value in the form in which `submit` takes it to all of them."""
        ...

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function by and by."""
        ...

    def finish(self, wait: bool = True) -> None:
        """Wait for what is under way, or do not, and let them go."""
        ...


class Threads:
    """Of this process. begin: what each of them calls first."""

    remote = False

    def __init__(self, workers: int, begin: Callable[[], None] | None = None) -> None:
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, initializer=begin)

    def share(self, value: Any) -> Any:
        """The value itself."""
        return value

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function by and by."""
        return self._pool.submit(function, *arguments)

    def finish(self, wait: bool = True) -> None:
        """Forget what has not begun; what has cannot be stopped."""
        self._pool.shutdown(wait=wait, cancel_futures=True)


class Here:
    """This very thread: one job after the other, and Ctrl-C stops at once."""

    remote = False
    workers = 1

    def share(self, value: Any) -> Any:
        """The value itself."""
        return value

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Call a function now."""
        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future

    def finish(self, wait: bool = True) -> None:
        """There is nothing to wait for."""


def run(jobs: Sequence[Job], work: Work, workers: Workers, asked: threading.Event) -> Iterator[Outcome]:
    """Do jobs and give each one's outcome when it is there; errors are outcomes too.

    asked: once it is set no more jobs begin, and those under way are finished.
    """
    shared = workers.share(work)
    mark = f"{secrets.token_hex(4)}-"
    waiting: dict[Future[Outcome], Job] = {}
    todo = iter(jobs)
    while True:
        while len(waiting) < 2 * workers.workers - 1 and not asked.is_set() and (job := next(todo, None)) is not None:
            try:
                data = _here(job.source, workers.remote)
            except OSError as e:
                yield Outcome(job, error=_sentence(e, job.source))
                continue
            waiting[workers.submit(convert, shared, job, data, mark)] = job
        if asked.is_set():
            waiting = {future: job for future, job in waiting.items() if not future.cancel()}
        if not waiting:
            break
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            job = waiting.pop(future)
            try:
                outcome = future.result()
            except LichenError as e:
                outcome = Outcome(job, error=str(e))
            yield _kept(outcome)
    if workers.remote:
        places.sweep((job.target for job in jobs if places.is_url(job.target)), mark)


def _here(source: str, remote: bool) -> bytes | None:
    """The bytes of what this process has to read, None where a worker reads it."""
    if source == STREAM:
        return standard_input()
    return Path(source).read_bytes() if remote and not places.is_url(source) else None


def standard_input() -> bytes:
    """All of it. OSError where it is closed."""
    if sys.stdin is None:
        raise OSError("standard input is closed")
    return sys.stdin.buffer.read()


def convert(work: Work, job: Job, data: bytes | None, mark: str) -> Outcome:
    """One job, in a worker. data: the source's bytes, where they are at hand; the target's bytes are written if it is a
    URL, else they are the outcome's data."""
    try:
        source = data if data is not None else places.read(job.source) if places.is_url(job.source) else job.source
        result, notes = work(source, job.target)
        outcome = Outcome(job, len(result), notes=notes, data=result)
        if places.is_url(job.target):
            places.write(job.target, result, mark)
            outcome.data = None
        return outcome
    except LichenError as e:
        return Outcome(job, error=str(e))
    except OSError as e:
        return Outcome(job, error=_sentence(e, job.source))
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, RuntimeError) and "memory" not in str(e):
            raise
        return Outcome(job, error="there is too little memory for it: encode fewer at a time (--jobs 1)")


def _kept(outcome: Outcome) -> Outcome:
    """Write what is still to be written."""
    target = outcome.job.target
    if outcome.data is None:
        return outcome
    try:
        if target == STREAM:
            sys.stdout.buffer.write(outcome.data)
            sys.stdout.buffer.flush()
        else:
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, outcome.data)
    except BrokenPipeError:
        raise
    except OSError as e:
        return Outcome(outcome.job, error=_sentence(e, target))
    outcome.data = None
    return outcome


def _sentence(error: OSError, place: str) -> str:
    return f"{error.strerror or error} ({error.filename or place})"
