"""Corrupt .lichen files by the thousand and decode each: whatever it is, it gives a LichenError or a picture.

    python scripts/fuzz.py --inputs 100000          # the closing line has exceptions, slowest input, largest memory
    python scripts/fuzz.py --only 4711              # one of these inputs again, with its traceback, and its file kept

Most inputs have their checksums, lengths and counts mended, so that the damage reaches the header, the tables, the
coder and the networks; files of every model, with tiles, layers, alpha and metadata. An input follows from --seed and
its number alone. Processes of their own decode, with a limit on memory and on time; the exit status is 1 if anything
went wrong, and the inputs are then kept (--keep).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import itertools
import multiprocessing
import os
import random
import resource
import struct
import sys
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import lichen.pillow
from lichen import codec
from lichen.coding.coder import Encoder
from lichen.container import MODELS, SIGNATURE, Container, Header, header_only, parts
from lichen.errors import LichenError
from lichen.models.base import Model
from lichen.models.weights import identity, load

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"  # a tiny model of every kind
PICTURE = ROOT / "examples" / "coffee.png"


# ---- files as they should be -----------------------------------------------------------------------------------------

Chunks = list[tuple[bytes, bytes]]  # type and payload


@dataclass(frozen=True)
class Original:
    name: str
    head: dict[str, Any]  # the fields of HEAD but the number of chunks
    body: Chunks
    model: Model


def originals() -> list[Original]:
    """Small files of every kind that there is."""
    with Image.open(PICTURE) as image:
        photo = np.asarray(image.convert("RGB"))
    models = {path.stem: load(weights=path) for path in sorted(GOLDEN.glob("*.safetensors"))}
    light, shipped = models["light"], load()
    found: list[Original] = []

    def add(name: str, picture: Any, model: Model, quality: float = 40, **options: Any) -> None:
        found.append(original(name, lichen.encode(picture, quality, model=model, **options), model))

    for name, model in models.items():
        add(name, photo[100:140, 200:256], model)
    everything = with_everything(photo[60:190, 200:270])
    add("light with tiles, alpha and metadata", everything, light, 70, tile=1)
    add("light in grey", photo[100:133, 200:217, 1], light)
    add("light of one pixel", photo[:1, :1], light)
    add("light of one row", photo[:1, :300], light)
    add("minnen2018-factorized with tiles", photo[60:190, 200:270], models["minnen2018-factorized"], tile=1)
    add("toderici2017 with tiles and metadata", everything.crop((0, 0, 66, 30)), models["toderici2017"], 100, tile=1)
    add("the default weights", photo[100:164, 200:264], shipped)
    add("the default weights with metadata", everything.convert("LA").crop((0, 0, 40, 30)), shipped, 90)
    deep = photo[60:100, 200:250].astype(np.uint16) * 256 + photo[160:200, 200:250]
    add("light with alpha of 16 bits", np.dstack([deep, deep[..., 0]]), light)
    add("light with alpha as PNG", photo[100:140, 200:250, 0], light)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(everything)[:40, :50, 3]).save(buffer, "PNG")  # as a Pillow without WebP writes it
    band = struct.pack(">II", 40, len(buffer.getvalue())) + buffer.getvalue()
    found[-1].body.extend([(b"ALPH", band), (b"note", b"a chunk that no reader knows")])
    return found


def original(name: str, data: bytes, model: Model) -> Original:
    chunks = [(p.type.encode(), data[p.offset : p.offset + p.length]) for p in parts(data)]
    h = header_only(data)
    head = {"version": h.version, "model": h.model, "weights": h.weights, "quality": h.quality}
    head |= {"width": h.width, "height": h.height, "tile": h.tile, "colour": int(h.grey)}
    return Original(name, head, chunks[1:], model)


def with_everything(photo: np.ndarray[Any, Any]) -> Image.Image:
    """(H, W, 3) -> a picture of mode RGBA with a soft mask, ICC profile, EXIF and XMP."""
    image = Image.fromarray(
        np.dstack([photo, photo[..., 2] // 2 + np.arange(len(photo), dtype=np.uint8)[:, None] // 2])
    )
    exif = Image.Exif()
    exif[0x010E], exif[0x8769] = "coffee", {0x829A: (1, 60)}
    image.info = {"icc_profile": bytes(16) + b"RGB " + bytes(range(180)), "exif": exif.tobytes(), "xmp": b"<x/>" * 50}
    return image


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def head_payload(head: dict[str, Any], count: int) -> bytes:
    name = head["model"].encode() if isinstance(head["model"], str) else None
    model = bytes([head["model"]]) if name is None else bytes([0, len(name)]) + name
    sizes = b"".join(varint(head[side]) for side in ("width", "height", "tile"))
    fixed = head["weights"] + struct.pack(">H", head["quality"])
    return bytes([head["version"]]) + model + fixed + sizes + bytes([head["colour"]]) + varint(count)


def written(chunks: Chunks) -> bytes:
    """A file of any chunks, with true lengths and checksums."""
    out = [SIGNATURE]
    for kind, payload in chunks:
        body = kind + varint(len(payload)) + payload
        out.append(body + struct.pack(">I", zlib.crc32(body)))
    return b"".join(out)


# ---- damage ----------------------------------------------------------------------------------------------------------

SIDES = (0, 1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 257, 1000, 4096, 10_000, 13_377, 16_383, 16_384, 65_535)
SIDES += (65_536, 65_537, 2**20, 2**24 - 1, 2**24, 2**24 + 1, 2**31, 2**32 - 1, 2**35 - 1)
KINDS = (
    b"HEAD",
    b"TILE",
    b"LAYR",
    b"ALPH",
    b"ICCP",
    b"EXIF",
    b"XMP ",
    b"note",
    b"NOTE",
    b"\0\0\0\0",
    b"T\xc4LE",
    b" ILE",
)
BOMB = zlib.compress(bytes(65 * 2**20), 9)  # one mebibyte more than metadata may have
LARGE = zlib.compress(b"<x/>" * 2**20, 9)  # and what it may


@dataclass
class File:
    """A file on its way to damage, and what was done to it."""

    rng: random.Random
    head: dict[str, Any]
    body: Chunks
    others: list[Original]
    done: list[str]

    def index(self, *kinds: bytes) -> int | None:
        """Of a chunk of one of these types, any at random."""
        found = [i for i, (kind, _) in enumerate(self.body) if kind in kinds]
        return self.rng.choice(found) if found else None


def noise(rng: random.Random, data: bytes) -> bytes:
    """Bytes changed, removed, repeated, set to one value, put in or cut off."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at, n = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 4, 8, 40))
        match rng.randrange(8):
            case 0 | 1:
                out[at : at + 1] = rng.randbytes(min(1, len(out) - at))
            case 2:
                for i in range(at, min(at + 1, len(out))):
                    out[i] ^= 1 << rng.randrange(8)
            case 3:
                del out[at : at + n]
            case 4:
                out[at:at] = rng.randbytes(n)
            case 5:
                out[at : at + n] = bytes([rng.choice((0, 255, rng.randrange(256)))]) * n
            case 6:
                source = rng.randrange(len(out) + 1)
                out[at : at + n] = out[source : source + n]
            case _:
                del out[at:]
    return bytes(out)


def latents(file: File) -> str | None:
    """A coded stream of noise, or changed within; mostly of whole words, which the coder asks for."""
    i = file.index(b"TILE", b"LAYR")
    if i is None:
        return None
    kind, payload = file.body[i]
    rng = file.rng
    changed = noise(rng, payload) if rng.random() < 0.8 else rng.randbytes(4 * rng.randrange(40))
    if kind == b"TILE" and rng.random() < 0.9:
        changed = changed[: len(changed) // 4 * 4]
    file.body[i] = kind, changed
    return "latents"


def alpha(file: File) -> str | None:
    """ALPH changed, its numbers made absurd, or of one value."""
    rng, i = file.rng, file.index(b"ALPH")
    if i is None:
        file.body.append((b"ALPH", rng.randbytes(rng.choice((0, 1, 1, 4, 30)))))
        return "alpha added"
    payload = file.body[i][1]
    match rng.randrange(3):
        case 0:
            number = rng.choice((0, 1, 2, 2**31, 2**32 - 1, rng.randrange(2**32)))
            at = rng.choice((0, 4))
            changed = payload[:at] + struct.pack(">I", number) + payload[at + 4 :]
        case 1:
            changed = payload[:8] + noise(rng, payload[8:200]) + payload[200:]
        case _:
            changed = noise(rng, payload)
    file.body[i] = b"ALPH", changed
    return "alpha"


def metadata(file: File) -> str | None:
    """A zlib stream that is broken, whole but of noise, or unpacks to too much."""
    rng, i = file.rng, file.index(b"ICCP", b"EXIF", b"XMP ")
    if i is None:
        return None
    kind, payload = file.body[i]
    choice = rng.random()
    if choice < 0.01:
        changed = rng.choice((BOMB, LARGE))
    elif choice < 0.5:
        changed = noise(rng, payload)
    else:
        with contextlib.suppress(zlib.error):
            payload = zlib.decompress(payload)
        changed = zlib.compress(noise(rng, payload))
    file.body[i] = kind, changed
    return "metadata"


def header(file: File) -> str:
    """A field of HEAD set to something that may make sense elsewhere."""
    rng, head = file.rng, file.head
    name = rng.choice(
        ("width", "height", "width", "height", "tile", "quality", "colour", "weights", "model", "version")
    )
    match name:
        case "width" | "height":
            head[name] = rng.choice((*SIDES, head[name] + 1, abs(head[name] - 1), rng.randrange(1, 400)))
        case "tile":
            head[name] = rng.choice((0, 1, 2, 3, 2**18, 2**18 + 1, 2**35 - 1))
        case "quality":
            head[name] = rng.choice((0, 1, 255, 256, 257, 25_600, 25_601, 0xFFFF, rng.randrange(0x10000)))
        case "colour":
            head[name] = rng.choice((0, 1, 1, 2, 255))
        case "weights":
            head[name] = rng.choice((rng.choice(file.others).head[name], rng.randbytes(8)))
        case "model":
            head[name] = rng.choice((*MODELS, "light", "../../etc/passwd", "", 255, 77))
        case _:
            head[name] = rng.choice((0, 2, 255))
    return f"{name} {head[name].hex() if name == 'weights' else head[name]}"


def size(file: File) -> str:
    """Another size, with as many tiles as it asks for as long as they are few: they are repeated or left out."""
    rng, head = file.rng, file.head
    head["width"], head["height"] = rng.randrange(1, 300), rng.randrange(1, 300)
    head["tile"] = rng.choice((0, head["tile"], 1, 2))
    side = 64 * head["tile"]
    n = -(-head["width"] // side) * -(-head["height"] // side) if side else 1
    tiles = [chunk for chunk in file.body if chunk[0] == b"TILE"]
    if tiles:
        rest = [chunk for chunk in file.body if chunk[0] != b"TILE"]
        file.body = [*itertools.islice(itertools.cycle(tiles), n), *rest]
    return f"size {head['width']}x{head['height']} in tiles of {side}"


def order(file: File) -> str | None:
    """Chunks repeated, left out, exchanged or renamed."""
    rng, body = file.rng, file.body
    if not body:
        return None
    i, j = rng.randrange(len(body)), rng.randrange(len(body))
    match rng.randrange(4):
        case 0:
            body.insert(j, body[i])
            return "chunk repeated"
        case 1:
            del body[i]
            return "chunk left out"
        case 2:
            body[i], body[j] = body[j], body[i]
            return "chunks exchanged"
        case _:
            body[i] = rng.choice(KINDS), body[i][1]
            return f"chunk called {body[i][0]!r}"


def splice(file: File) -> str | None:
    """Of two files: the header of one and the chunks of the other, a chunk, or a stream of both."""
    rng, other = file.rng, file.rng.choice(file.others)
    if not file.body or not other.body:
        return None
    i, (kind, payload) = rng.randrange(len(file.body)), rng.choice(other.body)
    match rng.randrange(5):
        case 0:
            file.body = list(other.body)
        case 1:
            file.head = {**other.head, "width": file.head["width"], "height": file.head["height"]}
        case 2:
            file.body.insert(i, (kind, payload))
        case 3:
            file.body[i] = file.body[i][0], payload
        case _:
            own = file.body[i][1]
            cut = 4 * rng.randrange(len(own) // 4 + 1)
            file.body[i] = file.body[i][0], own[:cut] + payload[cut:]
    return f"spliced with {other.name}"


def raw(rng: random.Random, data: bytes, other: bytes) -> tuple[str, bytes]:
    """Damage that nothing mends."""
    at = rng.randrange(len(data) + 1)
    match rng.randrange(4):
        case 0 | 1:
            return "cut short", data[:at]
        case 2:
            return "noise", noise(rng, data)
        case _:
            return "another file's end", data[:at] + other[rng.randrange(len(other) + 1) :]


def made_up(rng: random.Random, of: Original) -> Original:
    """A whole file by its writer's own means, but of latents that no picture has: any, up to the coder's bounds."""
    width, height, quality = rng.randrange(1, 100), rng.randrange(1, 100), rng.randrange(256, 25_601)
    model = of.model
    q = codec.quality_tensor(quality) if model.variable_rate else None
    coder, generator = Encoder(), torch.Generator().manual_seed(rng.randrange(2**32))
    with torch.inference_mode():
        h, w = -(-height // model.stride), -(-width // model.stride)
        y = model.analyse(torch.zeros(1, 3, h * model.stride, w * model.stride), q)
        y = torch.randn(y.shape, generator=generator) * 10.0 ** rng.uniform(-1, 9)
        y = y.sign() if model.layers(q) else y.clamp(-(2**30), 2**30)
        try:
            model.code([coder], y, q)
        except LichenError:  # the prior's mean taken off, it is out of bounds
            return of
    head = of.head
    header = Header(head["model"], head["weights"], quality if q is not None else 0, width, height, grey=head["colour"])
    data = Container(header, [coder.finish()], {}, [[end] for end in coder.ends]).to_bytes()
    return original(f"{of.name}, made up", data, model)


WAYS: tuple[Callable[[File], str | None], ...]
WAYS = (latents, latents, latents, latents, alpha, metadata, header, header, size, order, splice)


def damaged(files: list[Original], seed: int, number: int) -> tuple[str, Original, bytes]:
    """What was done, to which file, and what became of it."""
    rng = random.Random(f"{seed}/{number}")
    start = rng.choice(files)
    times = rng.choice((1, 1, 1, 2, 3))
    if rng.random() < 0.05:
        start, times = made_up(rng, start), rng.choice((0, 0, 1))
    file = File(rng, dict(start.head), list(start.body), files, [])
    for _ in range(times):
        file.done.append(rng.choice(WAYS)(file) or "nothing")
    count = len(file.body)
    if rng.random() < 0.03:
        count = rng.choice((max(count - 1, 0), count + 1, 1000, 2**35 - 1))
        file.done.append(f"number of chunks {count}")
    head = head_payload(file.head, count)
    if rng.random() < 0.1:
        head = noise(rng, head)
        file.done.append("noise in the header")
    data = written([(b"HEAD", head), *file.body])
    if rng.random() < 0.12:
        other = rng.choice(files)
        done, data = raw(rng, data, written([(b"HEAD", head_payload(other.head, len(other.body))), *other.body]))
        file.done.append(done)
    return f"{start.name}: {', '.join(file.done) or 'as it is'}", start, data


# ---- what becomes of it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Models:
    """As readers find them: those that came with the package, and those that the caller gives."""

    by_identity: dict[bytes, Model]

    @classmethod
    def of(cls, files: list[Original]) -> Models:
        return cls({identity(file.model): file.model for file in files})

    def for_file(self, data: bytes, otherwise: Model) -> Model:
        try:
            return self.by_identity.get(header_only(data[:512]).weights, otherwise)
        except LichenError:
            return otherwise


def outcome(data: bytes, model: Model) -> str:
    """Read a file in all ways. "picture", or the name of the LichenError that decoding raised, and where."""
    for partial in (False, True):
        with contextlib.suppress(LichenError):
            codec.describe(data, partial)
    opened = None
    with contextlib.suppress(OSError, Image.DecompressionBombError):  # what Pillow's users expect
        opened = Image.open(io.BytesIO(data))
    try:
        picture = codec.decode(data, model=model, partial=True)
    except LichenError as e:
        frames = traceback.extract_tb(e.__traceback__)
        return f"{type(e).__name__} ({Path(frames[-1].filename).stem})"
    metadata = {name: opened.info.get(name) for name in picture.info} if opened else {}
    if opened is None or (opened.size, opened.mode, metadata) != (picture.size, picture.mode, picture.info):
        raise AssertionError(f"lichen.pillow sees {opened}, decode gives {picture}")
    return "picture"


@dataclass(frozen=True)
class Report:
    """Of one input."""

    number: int
    what: str
    outcome: str  # "picture", a LichenError's name, or what went wrong
    seconds: float  # of processor time
    growth: float  # of the process's memory since its start, at its peak, in MB
    trace: str = ""  # where something went wrong


def run(files: list[Original], models: Models, seed: int, number: int, base: float) -> Report:
    what, start, data = damaged(files, seed, number)
    model = models.for_file(data, start.model)
    begin, trace = time.process_time(), ""
    try:
        found = outcome(data, model)
    except BaseException as e:  # all there is: Rust's panics and Ctrl-C among it
        if isinstance(e, KeyboardInterrupt):
            raise
        found, trace = type(e).__name__, traceback.format_exc()
    return Report(number, what, found, time.process_time() - begin, peak() - base, trace)


def peak() -> float:
    """The largest memory that the process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


# ---- processes -------------------------------------------------------------------------------------------------------


def work(pipe: Connection, seed: int, numbers: range, memory: int) -> None:
    """Announce each input, then report on it."""
    os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] = "64"  # of 1024 kernels, one for each new size: no growth of ours
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    files = originals()
    models = Models.of(files)
    for file in files:
        data = written([(b"HEAD", head_payload(file.head, len(file.body))), *file.body])
        assert outcome(data, file.model) == "picture", file.name
    limit(memory)
    base = peak()
    for number in numbers:
        pipe.send(number)
        pipe.send(dataclasses.astuple(run(files, models, seed, number, base)))
    pipe.send(None)


def limit(memory: int) -> None:
    """Let the process have that many MB more than it has."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + memory * 2**20,) * 2)


@dataclass
class Worker:
    """A process at its share of the inputs."""

    seed: int
    numbers: range
    memory: int
    target: Callable[[Connection, int, range, int], None]
    last: int | None = None  # the input that it announced
    busy: bool = False  # with that
    waited: float = 0.0  # seconds, for its report

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, end = context.Pipe(duplex=False)
        self.process = context.Process(
            target=self.target, args=(end, self.seed, self.numbers, self.memory), daemon=True
        )
        self.process.start()
        end.close()
        self.last, self.busy, self.waited = None, False, 0.0

    def again(self) -> None:
        """Go on after the input that was the process's last."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        if self.last is None:
            raise SystemExit("fuzz: a process ended before its first input: see above")
        self.numbers = range(self.last + self.numbers.step, self.numbers.stop, self.numbers.step)
        self.start()


def reports(
    seed: int,
    inputs: int,
    jobs: int = 1,
    memory: int = 1024,
    timeout: float = 60.0,
    seconds: float = float("inf"),
    target: Callable[[Connection, int, range, int], None] = work,
) -> Iterator[Report]:
    """On all inputs, as they come; until the seconds are over. What kills its process or does not end is reported."""
    looked = time.monotonic()
    end = looked + seconds
    workers = [Worker(seed, range(k, inputs, jobs), memory, target) for k in range(min(jobs, inputs))]
    for worker in workers:
        worker.start()
    try:
        while workers and looked < end:
            ready = wait([worker.pipe for worker in workers], timeout=1.0)
            since, looked = looked, time.monotonic()
            for worker in list(workers):
                how = ""
                if worker.pipe in ready:
                    try:
                        message = worker.pipe.recv()
                    except EOFError:
                        worker.process.join()
                        how = f"the process ended with {worker.process.exitcode}"
                    else:
                        if message is None:
                            worker.process.join()
                            workers.remove(worker)
                        elif isinstance(message, tuple):
                            worker.busy = False
                            yield Report(*message)
                        else:
                            worker.last, worker.busy, worker.waited = message, True, 0.0
                elif worker.busy:
                    worker.waited += min(looked - since, 2.0)  # where the whole machine stood still, no more
                    how = f"no end after {timeout:g} s" if worker.waited > timeout else ""
                if how and worker.last is not None:
                    yield Report(worker.last, "", how, worker.waited, 0.0, how)
                if how:
                    worker.again()
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()


# ---- the whole -------------------------------------------------------------------------------------------------------


@dataclass
class Summary:
    """Of all reports."""

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: Report | None = None
    largest: Report | None = None
    wrong: list[Report] = field(default_factory=list)

    def add(self, report: Report) -> None:
        self.outcomes[report.outcome] += 1
        if self.slowest is None or report.seconds > self.slowest.seconds:
            self.slowest = report
        if self.largest is None or report.growth > self.largest.growth:
            self.largest = report
        if report.trace:
            self.wrong.append(report)

    def table(self) -> str:
        """Exceptions by where they came from."""
        return "\n".join(f"{n:>10,}  {name}" for name, n in self.outcomes.most_common())

    def line(self) -> str:
        """The closing line."""
        by_name: Counter[str] = Counter()
        for name, n in self.outcomes.items():
            by_name[name.split(" (")[0]] += n
        counts = ", ".join(f"{n:,} {name}" for name, n in by_name.most_common())
        if self.slowest is None or self.largest is None:
            return "no inputs"
        return (
            f"{sum(by_name.values()):,} inputs: {counts}; "
            f"{f'{len(self.wrong)} went wrong' if self.wrong else 'nothing but LichenError was raised'}; "
            f"slowest {self.slowest.seconds:.2f} s (input {self.slowest.number}, {self.slowest.what}); "
            f"largest memory +{self.largest.growth:.0f} MB (input {self.largest.number}, {self.largest.what})"
        )


def fuzz(
    inputs: int,
    seed: int = 0,
    jobs: int = 1,
    memory: int = 1024,
    timeout: float = 60.0,
    seconds: float = float("inf"),
    keep: Path | None = None,
    show: Callable[[str], None] = print,
) -> Summary:
    """Try so many inputs; those that go wrong are kept, each with its trace."""
    summary = Summary()
    files: list[Original] = []
    begin = time.monotonic()
    for report in reports(seed, inputs, jobs, memory, timeout, seconds):
        summary.add(report)
        n = sum(summary.outcomes.values())
        if n % 5000 == 0:
            show(f"{n:,} inputs, {n / (time.monotonic() - begin):.0f} a second, {len(summary.wrong)} went wrong")
        if report.trace:
            files = files or originals()
            what, _, data = damaged(files, seed, report.number)
            show(f"input {report.number} ({what}): {report.trace.strip().splitlines()[-1]}")
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{report.number}.lichen").write_bytes(data)
                (keep / f"{seed}-{report.number}.txt").write_text(f"{what}\n{report.trace}")
    return summary


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--inputs", type=int, default=100_000, metavar="N", help="how many (default: %(default)s)")
    p.add_argument("--seed", type=int, default=0, help="of the random numbers (default: %(default)s)")
    p.add_argument("--seconds", type=float, default=float("inf"), metavar="S", help="stop after so long")
    p.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    p.add_argument("--memory", type=int, default=1024, metavar="MB", help="limit a process (default: %(default)s more)")
    p.add_argument("--timeout", type=float, default=60.0, metavar="S", help="limit an input (default: %(default)s)")
    p.add_argument(
        "--keep", type=Path, default=Path("fuzz"), metavar="DIR", help="what went wrong (default: %(default)s)"
    )
    p.add_argument("--only", type=int, metavar="NUMBER", help="this input alone, in this process")
    args = p.parse_args()
    if args.only is not None:
        return only(args.seed, args.only, args.keep)
    summary = fuzz(args.inputs, args.seed, args.jobs, args.memory, args.timeout, args.seconds, args.keep)
    print(summary.table() + "\n")
    print(summary.line())
    return 1 if summary.wrong else 0


def only(seed: int, number: int, keep: Path) -> int:
    """One input, kept and looked at."""
    torch.set_num_threads(1)
    files = originals()
    what, _, data = damaged(files, seed, number)
    keep.mkdir(parents=True, exist_ok=True)
    path = keep / f"{seed}-{number}.lichen"
    path.write_bytes(data)
    print(f"{what}: {path}, {len(data)} bytes")
    report = run(files, Models.of(files), seed, number, peak())
    print(f"{report.outcome}, {report.seconds:.3f} s, +{report.growth:.0f} MB\n{report.trace}")
    return 1 if report.trace else 0


if __name__ == "__main__":
    sys.exit(main())
