"""Measure what is new and keep it in a store.

A row is written to the disk as soon as it is measured, so that a stop of any kind loses at most the measurement under
way, and the next run goes on from there.

Sizes and qualities may be measured by several processes at once. Times are measured one codec at a time by a single
process, on a few pictures, warm: one run that does not count, then the median of some. Peak memory is that of a fresh
process, above what it held with the codec loaded, for the middle setting on the first of those pictures.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import os
import platform
import signal
import statistics
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from lichen.benchmark import metrics, programs
from lichen.benchmark.codecs import Codec
from lichen.benchmark.datasets import pixels
from lichen.benchmark.programs import CodecError
from lichen.benchmark.store import Key, Row, Store, digest
from lichen.cluster import Cluster
from lichen.errors import LichenError
from lichen.picture import Pixels

DIED = "the process that measured it died; where memory was short, take fewer (--processes)"


def measure(
    codecs: Sequence[Codec],
    pictures: Sequence[str | Path],
    store: Store,
    *,
    ms_ssim: bool = False,
    again: Collection[str] = (),
    processes: int = 1,
    timed: int | None = None,
    repeats: int = 1,
    memory: bool = False,
    limits: Mapping[str, int] | None = None,
    cluster: str | None = None,
    on_error: Callable[[str], None] | None = None,
    console: Console | None = None,
) -> list[Row]:
    """Rows of all codecs at all their settings on all pictures; what `store` has already is not measured again.

    ms_ssim: measure it too, of pictures that are large enough. again: names of codecs to measure whatever the store
    has. processes: for sizes and qualities. timed: on how many pictures, evenly spaced, times are taken (None: all);
    repeats: how often, after one
    run that does not count where it is more than 1. memory: measure peak memory too. limits: codec -> on how many
    pictures, evenly spaced, to measure a slow one. cluster: the address of a Ray cluster that measures rates and
    qualities in place of processes here, "local" to start one; codecs and pictures go to it. on_error: what to do with
    the sentence of a measurement that failed, by default raise it. console: where a progress bar goes, by default
    standard error if it is a terminal.

    After Ctrl-C, which raises KeyboardInterrupt as ever, what was under way is finished and the store has all of it.
    """
    run = _Run([Path(p) for p in pictures], store, ms_ssim, on_error)
    chosen = {c.name: spread(len(pictures), (limits or {}).get(c.name)) for c in codecs}
    clocked = spread(len(pictures), timed) if repeats else []
    every = [(i, c, float(s)) for i in range(len(pictures)) for c in codecs if i in chosen[c.name] for s in c.settings]

    def lacks(i: int, c: Codec, s: float) -> bool:
        row = store.rows.get(run.key(i, c, s))
        return c.name in again or row is None or (ms_ssim and _lacks_ms_ssim(row))

    def untimed(i: int, c: Codec, s: float) -> bool:
        row = store.rows.get(run.key(i, c, s))
        return c.name in again or row is None or row.encode_s is None or row.repeats < repeats

    timing = [j for j in every if j[0] in (clocked if j[0] in chosen[j[1].name] else []) and untimed(*j)]
    apart = processes > 1 or cluster is not None
    together = set() if apart else {(i, c.name, s) for i, c, s in timing}
    quality = [j for j in every if lacks(*j) and (j[0], j[1].name, j[2]) not in together]
    weighed = [(c, clocked[0]) for c in codecs if memory and clocked and len(c.settings)]
    weighed = [(c, i) for c, i in weighed if _unweighed(store.rows.get(run.key(i, c, middle(c))))]
    with progress_bar(len(quality) + len(timing) + len(weighed), console) as step:
        if quality and apart:
            run.spread_out(quality, _pool(codecs, processes, cluster), step)
        else:
            for i, c, s in quality:
                step(f"{c.name} {s:g} {run.paths[i].name}")
                run.one(i, c, s, 0)
        for i, c, s in sorted(timing, key=lambda j: (j[1].name, j[0])):
            step(f"time {c.name} {s:g} {run.paths[i].name}")
            run.one(i, c, s, repeats)
        for c, i in weighed:
            step(f"memory {c.name} {run.paths[i].name}")
            run.weigh(i, c)
    keys = [run.key(*j) for j in every]
    return [store.rows[k] for k in keys if k in store.rows]


def spread(n: int, wanted: int | None) -> list[int]:
    """Up to `wanted` of the indices 0..n-1, evenly spaced; all of them for None."""
    if wanted is None or wanted >= n:
        return list(range(n))
    return sorted({k * n // wanted for k in range(wanted)})


def middle(codec: Codec) -> float:
    """The setting in the middle."""
    return float(codec.settings[len(codec.settings) // 2])


def _lacks_ms_ssim(row: Row) -> bool:
    return row.ms_ssim is None and metrics.takes_ms_ssim(row.width, row.height)


def _unweighed(row: Row | None) -> bool:
    return row is None or row.encode_mb is None


class _Run:
    """What the steps of `measure` share."""

    def __init__(
        self, paths: Sequence[Path], store: Store, ms_ssim: bool, on_error: Callable[[str], None] | None
    ) -> None:
        self.paths, self.store, self.ms_ssim, self.on_error = paths, store, ms_ssim, on_error
        self.digests = [digest(pixels(p)) for p in paths]

    def key(self, i: int, codec: Codec, setting: float) -> Key:
        return codec.name, codec.version, setting, self.digests[i]

    def failed(self, i: int, codec: str, setting: float, error: LichenError) -> None:
        if self.on_error is None:
            raise error
        self.on_error(f"{codec} {setting:g} on {self.paths[i].name}: {error}")

    def one(self, i: int, codec: Codec, setting: float, repeats: int) -> None:
        try:
            old = self.store.rows.get(self.key(i, codec, setting)) if repeats else None
            row = _measure(codec, setting, str(self.paths[i]), self.digests[i], self.ms_ssim, repeats, old)
            self.store.add(row)
        except LichenError as e:
            self.failed(i, codec.name, setting, e)

    def weigh(self, i: int, codec: Codec) -> None:
        """Peak memory, by a process of its own for each direction."""
        row = self.store.rows.get(self.key(i, codec, middle(codec)))
        if row is None:
            return
        both: list[float | None] = []
        for decoding in (False, True):
            try:
                with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_ready) as pool:
                    both.append(pool.submit(_peak, codec, middle(codec), str(self.paths[i]), decoding).result())
            except LichenError as e:
                return self.failed(i, codec.name, middle(codec), e)
            except BrokenProcessPool:
                return self.failed(i, codec.name, middle(codec), CodecError(DIED))
        self.store.add(dataclasses.replace(row, encode_mb=both[0], decode_mb=both[1]))

    def spread_out(self, jobs: Sequence[tuple[int, Codec, float]], pool: Pool, step: Any) -> None:
        """Jobs by several processes, a few waiting; each result is kept when it comes."""
        waiting: dict[Future[Row], tuple[int, Codec, float]] = {}
        todo = iter(jobs)

        def collect(done: Collection[Future[Row]]) -> None:
            for future in done:
                i, codec, setting = waiting.pop(future)
                step(f"{codec.name} {setting:g} {self.paths[i].name}")
                try:
                    self.store.add(future.result())
                except LichenError as e:
                    self.failed(i, codec.name, setting, e)
                except BrokenProcessPool as e:
                    raise LichenError(
                        f"{codec.name} {setting:g} on {self.paths[i].name}, or one beside it: {DIED}"
                    ) from e

        try:
            while True:
                while len(waiting) < 2 * pool.workers and (job := next(todo, None)) is not None:
                    i, codec, setting = job
                    arguments = (codec.name, setting, str(self.paths[i]), self.digests[i], self.ms_ssim)
                    waiting[pool.submit(*arguments)] = job
                if not waiting:
                    break
                collect(wait(waiting, return_when=FIRST_COMPLETED).done)
        finally:
            pool.finish()
            collect([f for f in list(waiting) if f.done() and not f.cancelled() and f.exception() is None])


class Pool(Protocol):
    """Workers that measure."""

    @property
    def workers(self) -> int:
        """How many."""
        ...

    def submit(self, codec: str, setting: float, path: str, of: str, ms_ssim: bool) -> Future[Row]:
        """Measure by and by."""
        ...

    def finish(self) -> None:
        """Finish what is under way, forget what waits."""
        ...


def _pool(codecs: Sequence[Codec], processes: int, cluster: str | None) -> Pool:
    if cluster is None:
        return _Processes(codecs, processes)
    return _Nodes(codecs, Cluster(cluster))


class _Processes:
    """Of this machine."""

    def __init__(self, codecs: Sequence[Codec], workers: int) -> None:
        self.workers = workers
        context = get_context("spawn")
        self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_ready, initargs=(tuple(codecs),))

    def submit(self, *job: Any) -> Future[Row]:
        return self._pool.submit(_measure_by_name, *job)

    def finish(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class _Nodes:
    """Of a cluster. Each picture goes to it once; a row says on which kind of machine it was measured."""

    def __init__(self, codecs: Sequence[Codec], cluster: Cluster) -> None:
        self._cluster = cluster
        self._codecs = {c.name: cluster.share(c) for c in codecs}
        self._picture: tuple[str, Any] = ("", None)

    @property
    def workers(self) -> int:
        return self._cluster.workers

    def submit(self, codec: str, setting: float, path: str, of: str, ms_ssim: bool) -> Future[Row]:
        if self._picture[0] != of:  # pictures come one after the other
            self._picture = (of, self._cluster.put(pixels(path)))
        picture = self._picture[1]
        return self._cluster.submit(_measure, self._codecs[codec], setting, path, of, ms_ssim, 0, None, picture)

    def finish(self) -> None:
        self._cluster.finish()


_codecs: dict[str, Codec] = {}  # of a worker


def _ready(codecs: Sequence[Codec] = ()) -> None:
    """Begin a worker: Ctrl-C is its parent's business, without its parent it ends, and it computes on one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"  # torch is not loaded yet
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _codecs.update({c.name: c for c in codecs})


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _measure_by_name(codec: str, *arguments: Any) -> Row:
    return _measure(_codecs[codec], *arguments)


@functools.lru_cache(maxsize=2)
def _pixels(path: str) -> Pixels:
    return pixels(path)


def _measure(
    codec: Codec,
    setting: float,
    path: str,
    of: str,
    ms_ssim: bool,
    repeats: int = 0,
    old: Row | None = None,
    picture: Pixels | None = None,
) -> Row:
    """One row; of the same bytes as `old`, its figures are taken over. picture: the path's, where it is at hand."""
    picture = _pixels(path) if picture is None else picture
    with _failing_alone():
        encode, data = _timed(lambda: codec.encode(picture, setting), repeats)
        decode, decoded = _timed(lambda: codec.decode(data), repeats)
    if decoded.shape != picture.shape:
        raise CodecError(f"what it decodes has the shape {decoded.shape}, the picture {picture.shape}")
    times: dict[str, Any] = {"encode_s": encode, "decode_s": decode, "repeats": repeats, "machine": machine()}
    if old is not None and old.bytes == len(data) and not (ms_ssim and _lacks_ms_ssim(old)):
        return dataclasses.replace(old, **times)
    y, yuv = metrics.psnr_ycbcr(picture, decoded)
    return Row(
        codec=codec.name,
        version=codec.version,
        setting=setting,
        image=Path(path).name,
        pixels=of,
        width=picture.shape[1],
        height=picture.shape[0],
        bytes=len(data),
        bpp=metrics.bpp(data, picture),
        psnr=metrics.psnr(picture, decoded),
        ms_ssim=metrics.ms_ssim(picture, decoded) if ms_ssim and metrics.takes_ms_ssim(*picture.shape[:2]) else None,
        psnr_y=y,
        psnr_yuv=yuv,
        **times,
    )


@contextlib.contextmanager
def _failing_alone() -> Iterator[None]:
    """Whatever a codec's library raises is a failure of that measurement, and not of the run."""
    try:
        yield
    except LichenError:
        raise
    except Exception as e:
        raise CodecError(f"{type(e).__name__}: {e}") from e


def _timed(work: Callable[[], Any], repeats: int) -> tuple[float | None, Any]:
    """The median time of `repeats` runs, None for none, and the last result."""
    result = work() if repeats != 1 else None
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return (statistics.median(seconds) if seconds else None), result


def _peak(codec: Codec, setting: float, path: str, decoding: bool) -> float | None:
    """Peak memory in 10^6 bytes of one run, above what is held before; with programs, theirs. None but on Linux."""
    picture = pixels(path)
    _ = codec.version
    with _failing_alone():
        data = codec.encode(picture[:64, :64].copy(), setting)  # all libraries are loaded now
        codec.decode(data)
        if decoding:
            with get_context("spawn").Pool(1, _ready) as pool:  # so that encoding leaves no memory to be used again
                data = pool.apply(_encoded, (codec, setting, path))
    programs.Peak.bytes = 0
    with contextlib.suppress(OSError, AttributeError):  # give back what is free, so that it is not used unseen (glibc)
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        if decoding:
            codec.decode(data)
        else:
            codec.encode(picture, setting)
        return (_status("VmHWM") - before + programs.Peak.bytes) / 1e6
    except OSError:
        return None


def _encoded(codec: Codec, setting: float, path: str) -> bytes:
    return codec.encode(pixels(path), setting)


def _status(name: str) -> int:
    """Bytes, from this process's /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def machine() -> str:
    """Of what kind this machine is: system, processor and number of cores."""
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


@contextlib.contextmanager
def progress_bar(total: int, console: Console | None = None) -> Iterator[Any]:
    """A bar with the time left on a terminal, nothing elsewhere. Gives a function to call as each step begins."""
    console = console or Console(stderr=True)
    columns = (
        BarColumn(30),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, disable=not (total and console.is_terminal)) as progress:
        task = progress.add_task("", total=total)
        begun = 0

        def step(description: str) -> None:
            nonlocal begun
            progress.update(task, completed=begun, description=description)
            begun += 1

        yield step
        progress.update(task, completed=total, description="")
