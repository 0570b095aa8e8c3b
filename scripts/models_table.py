"""The tables of docs/models.md: what every model costs, and what weights reach, measured from files.

    python scripts/models_table.py                                         # parameters and products alone
    python scripts/models_table.py --data DIR                              # and the weights that ship, on Kodak
    python scripts/models_table.py --data DIR --every 6 --weights FOLDER   # and those of FOLDER, on four pictures

DIR has kodim01.png to kodim24.png, FOLDER files of weights that Lichen wrote, a name a file (NAME.safetensors). A table
stands between two marker comments; what is outside of them stays as it is. Without --data the measured tables stay too.
What was measured once is kept (--store): delete the store to take times anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pages
import torch
from rich.console import Console

from lichen.atomic import write_atomic
from lichen.benchmark import datasets, metrics, published, report, runner
from lichen.benchmark.bd import Curve, CurveError, bd_rate
from lichen.benchmark.codecs import LichenCodec
from lichen.benchmark.complexity import Complexity, complexity
from lichen.benchmark.store import Row, Store
from lichen.codec import identity_of
from lichen.errors import LichenError, WeightsError
from lichen.models import REGISTRY, create, find
from lichen.models import weights as weights_files
from lichen.models.base import Model

DOCUMENT = Path(__file__).parent.parent / "docs" / "models.md"

QUALITIES = (1.0, 34.0, 67.0, 100.0)
"""The four levels of a `small` preset."""

PUBLISHED: Mapping[str, Sequence[str]] = {
    "minnen2018-factorized": ["factorized-compressai-mse"],
    "minnen2018-scale": ["scale-hyperprior-iclr18-mse", "scale-hyperprior-compressai-mse"],
    "minnen2018-mean-scale": ["mean-scale-hyperprior-neurips18-mse", "mean-scale-hyperprior-compressai-mse"],
    "minnen2018-joint": ["joint-neurips18-mse", "joint-compressai-mse"],
    "balle2018": ["balle2017-mse"],
    "lee2019": ["lee-iclr19"],
    "toderici2017": ["toderici-cvpr17-nominal-rate"],
}
"""How a model's name begins -> its curves in `benchmark/published.py`."""

RATES = (0.25, 0.5, 0.75, 1.0)
"""Bits per pixel: of a published curve, the points nearest to these are shown."""


replaced = partial(pages.replaced, script="models_table.py")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A table whose first columns, `left` of them, are text and the others numbers."""
    rule = ["---"] * left + ["---:"] * (len(header) - left)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, rule, *rows])


# ---- What models cost ------------------------------------------------------------------------------------------------


def kmac(thousands: float) -> str:
    return "0" if thousands == 0 else f"{thousands:.1f}" if thousands >= 9.95 else f"{thousands:.2f}"


def cost_row(model: str, preset: str, c: Complexity) -> list[str]:
    parts = (c.analysis, c.synthesis, c.hyper_analysis, c.prior, c.encoder, c.decoder)
    return [model, preset, f"{c.parameters / 1e6:.2f}", *map(kmac, parts)]


def cost_table(console: Console) -> str:
    """A row for every preset of the registry."""
    todo = [(entry.name, preset) for entry in REGISTRY.values() for preset in entry.presets]
    rows = []
    with runner.progress_bar(len(todo), console) as step:
        for model, preset in todo:
            step(f"{model} {preset}")
            rows.append(cost_row(model, preset, complexity(create(model, preset))))
    header = [
        "model",
        "preset",
        "parameters, M",
        "analysis",
        "synthesis",
        "hyper-analysis",
        "prior",
        "encoder",
        "decoder",
    ]
    return markdown(header, rows, left=2)


# ---- What weights reach ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weights:
    """A file of weights, as a codec that can be measured. file: its name, without the ending."""

    model: str
    preset: str
    file: str
    codec: LichenCodec


def find_weights(folder: Path | None, threads: int) -> list[Weights]:
    """Those that ship and those of a folder, each once, in the registry's order of models and presets. WeightsError for
    other files."""
    paths = list(weights_files.shipped().values())
    if folder is not None:
        given = sorted(folder.glob("*.safetensors"))
        if not given:
            raise WeightsError(f"{folder} holds no weights: give a folder with files NAME.safetensors")
        paths += given
    found: dict[bytes, Weights] = {}
    for path in paths:
        model = weights_files.read(path)
        found.setdefault(identity_of(model), as_codec(model, path.stem, threads))
    return sorted(found.values(), key=place)


def place(w: Weights) -> tuple[int, int, bool]:
    """Where weights stand in the tables."""
    presets = [described.config for described in find(w.model).presets.values()]
    cfg = w.codec.model.cfg
    at = presets.index(cfg) if cfg in presets else len(presets)
    return list(REGISTRY).index(w.model), at, w.codec.model.objective == "ms-ssim"


def as_codec(model: Model, stem: str, threads: int) -> Weights:
    """stem: of the file's name, told where it is not the model's."""
    presets = find(model.name).presets
    preset = next((p for p, described in presets.items() if described.config == model.cfg), "of its own")
    settings = QUALITIES if model.variable_rate else (1.0,)
    name = f"{model.name} {identity_of(model).hex()}, {threads} threads"  # so that times of others are not used again
    codec = LichenCodec(model, name=name, settings=settings, threads=threads)
    if model.objective == "ms-ssim" and stem == weights_files.file_name(model.name, "ms-ssim").split(".")[0]:
        preset += ", for MS-SSIM"
    elif stem not in (model.name, f"{model.name}-{preset}"):
        preset += f" ({stem})"
    return Weights(model.name, preset, stem, codec)


def measure(weights: Sequence[Weights], pictures: Sequence[Path], store: Store, console: Console) -> list[Row]:
    """A row a quality and picture. What is not in the store yet is measured, warm."""
    rows: list[Row] = []
    for w in weights:
        for quality in w.codec.settings:  # the frozen prior and its tables are made at first use
            w.codec.decode(w.codec.encode(np.zeros((64, 64, 3), np.uint8), quality))
        rows += runner.measure([w.codec], pictures, store, ms_ssim=True, console=console)
    return rows


def similarity(ms_ssim: float | None) -> str:
    return "" if ms_ssim is None else f"{ms_ssim:.4f} ({metrics.decibels(ms_ssim):.2f} dB)"


def measured_table(weights: Sequence[Weights], measured: Sequence[Row]) -> str:
    """A row a quality, averaged over the pictures."""
    points, rows = report.averages(measured), []
    for w in weights:
        for p in points[w.codec.name]:
            quality = f"{p.setting:g}" if w.codec.model.variable_rate else "fixed"
            times = f"{p.encode_s:.2f}", f"{p.decode_s:.2f}"
            rows.append([w.model, w.preset, quality, f"{p.bpp:.3f}", f"{p.psnr:.2f}", similarity(p.ms_ssim), *times])
    header = ["model", "preset", "quality", "bpp", "PSNR, dB", "MS-SSIM", "encode, s", "decode, s"]
    return markdown(header, rows, left=2)


ANCHOR = "minnen2018-factorized"
"""Against whose `small`, trained for the squared error, BD-rates are taken."""


def distances_table(weights: Sequence[Weights], measured: Sequence[Row]) -> str:
    """BD-rates of all weights with several qualities against those of `ANCHOR`, by either metric, and their ranges."""
    points = report.averages(measured)
    several = [w for w in weights if len(w.codec.settings) > 1]
    anchor = next(w for w in several if w.file == ANCHOR)
    header = ["model", "preset", "BD-rate, PSNR", "over dB", "BD-rate, MS-SSIM", "over dB"]
    rows = []
    for w in several:
        cells = [w.model, w.preset]
        for kind in ("psnr", "ms_ssim"):
            if w is anchor:
                cells += ["0", ""]
                continue
            try:
                d = bd_rate(*(curve(points[c.codec.name], kind) for c in (w, anchor)))
                cells += [f"{d.value:+.1f} %", f"{d.low:.2f} to {d.high:.2f}"]
            except CurveError:  # they share no range
                cells += ["-", ""]
        rows.append(cells)
    return markdown(header, rows, left=2)


def curve(points: Sequence[report.Point], kind: str) -> Curve:
    """Of averages, by PSNR or MS-SSIM in dB."""
    of = [(p.bpp, metrics.decibels(p.ms_ssim or 0.0) if kind == "ms_ssim" else p.psnr) for p in points]
    return Curve.of(kind, of)


def published_curves() -> dict[str, str]:
    """Published codec -> the first model of the registry that it belongs to."""
    found: dict[str, str] = {}
    for name in REGISTRY:
        for begin, codecs in PUBLISHED.items():
            for codec in codecs if name.startswith(begin) else ():
                found.setdefault(codec, name)
    return found


def published_table() -> str:
    """Points of publications, as published: no interpolation, nothing measured here."""
    rows = []
    for codec, model in published_curves().items():
        points = published.points("kodak", codec)
        nearest = {min(points, key=lambda p: abs(p.bpp - rate)) for rate in RATES}
        for p in sorted(nearest, key=lambda p: p.bpp):
            rows.append([model, f"`{codec}`", f"{p.bpp:.3f}", f"{p.psnr:.2f}", similarity(p.ms_ssim)])
    return markdown(["model", "published curve", "bpp", "PSNR, dB", "MS-SSIM"], rows, left=2)


# ---- The command -----------------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", metavar="DIR", help="Kodak's folder; without it the measured tables stay as they are")
    p.add_argument("--every", type=positive, default=1, metavar="N", help="only every Nth picture")
    p.add_argument("--weights", type=Path, metavar="FOLDER", help="measure the weights of this folder too")
    p.add_argument("--store", default="results/models.jsonl", metavar="FILE", help="results (default: %(default)s)")
    p.add_argument("--threads", type=positive, default=2, metavar="N", help="processor threads (default: %(default)s)")
    p.add_argument("--document", type=Path, default=DOCUMENT, metavar="FILE", help="default: docs/models.md")
    args = p.parse_args(argv)
    try:
        run(args)
    except (LichenError, OSError) as e:
        print(f"models_table: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"models_table: stopped; what was measured is in {args.store}: run again to go on", file=sys.stderr)
        return 130
    return 0


def positive(text: str) -> int:
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return n


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    console = Console(stderr=True)
    text = args.document.read_text(encoding="utf-8")
    tables = {"published": published_table()}
    if args.data is not None:
        pictures = datasets.find("kodak", args.data)[:: args.every]
        weights = find_weights(args.weights, args.threads)
        rows = measure(weights, pictures, Store(args.store), console)
        which = f"all {len(pictures)}" if args.every == 1 else f"{len(pictures)} of the 24"
        machines = "; ".join(sorted({r.machine for r in rows}))
        about = f"Means over {which} pictures. Times: {machines}; torch's threads: {args.threads}."
        tables["measured"] = f"{about}\n\n{measured_table(weights, rows)}"
        tables["distances"] = distances_table(weights, rows)
    for name in (*tables, "cost"):
        replaced(text, name, "")  # a missing place shows before the work
    tables["cost"] = cost_table(console)
    for name, body in tables.items():
        text = replaced(text, name, body)
    write_atomic(args.document, text.encode())


if __name__ == "__main__":
    sys.exit(main())
