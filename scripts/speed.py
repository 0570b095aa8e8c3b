"""How long encoding and decoding take, in units of the model's own transforms, beside CompressAI in the same process.

    python scripts/speed.py PICTURE [--threads 2] [--repeats 5]

The picture is cut to 768x512 (or 512x768). Times are medians of interleaved repeats, warm; the ratios are what counts:

    encode = analysis transform + hyper transforms + all coding, over the analysis transform alone
    decode = all decoding + synthesis transform, over the synthesis transform alone

CompressAI (`pip install --no-deps compressai==1.2.8`) runs its joint model with the same widths and with random
weights, as Lichen's paper model does here; without it that part is left out.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import bare_compressai
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

import lichen
from lichen import tiles
from lichen.benchmark.complexity import complexity
from lichen.coding.coder import Decoder, Encoder
from lichen.models import create
from lichen.models.base import Model


def medians(repeats: int, **runs: Callable[[], object]) -> dict[str, float]:
    """Seconds of each run: the median of interleaved repeats after one that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for k in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            if k:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(s) for name, s in seconds.items()}


def lichen_times(model: Model, x: torch.Tensor, quality: float, repeats: int) -> dict[str, float]:
    """Seconds of the transforms alone, and of encoding to bytes and decoding from them."""
    q = torch.tensor([quality]) if model.variable_rate else None

    def encode() -> bytes:
        encoder = Encoder()
        model.code([encoder], model.analyse(x, q), q)
        return encoder.finish()

    data, y = encode(), model.analyse(x, q)

    def decode() -> torch.Tensor:
        decoder = Decoder(data)
        y_hat = model.code([decoder], None, q, (y.shape[1], y.shape[2]))
        decoder.finish()
        return model.synthesise(y_hat, q)

    return medians(
        repeats,
        analysis=lambda: model.analyse(x, q),
        synthesis=lambda: model.synthesise(y, q),
        encode=encode,
        decode=decode,
    )


def compressai_times(model: torch.nn.Module, x: torch.Tensor) -> dict[str, float]:
    """One run each: a minute of these is enough."""
    coded, y = model.compress(x), model.g_a(x)
    return medians(
        1,
        analysis=lambda: model.g_a(x),
        synthesis=lambda: model.g_s(y),
        encode=lambda: model.compress(x),
        decode=lambda: model.decompress(coded["strings"], coded["shape"]),
    )


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("picture")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=5)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    pixels = np.asarray(Image.open(args.picture).convert("RGB"))[:768, :768]
    pixels = pixels[:512] if pixels.shape[1] >= 768 else pixels[:, :512]
    if pixels.shape[0] * pixels.shape[1] != 768 * 512:
        p.error(f"{args.picture} is smaller than 768x512")
    x = tiles.to_tensor(pixels, create("light"))

    torch.manual_seed(0)
    console = Console(width=80)
    table = Table(title=f"768x512, {args.threads} threads, median of {args.repeats}: seconds")
    for column in ("model", "g_a", "encode", "ratio", "g_s", "decode", "ratio"):
        table.add_column(column, justify="left" if column == "model" else "right", no_wrap=True)
    rows: list[tuple[str, dict[str, float]]] = []
    with torch.inference_mode():
        rows.append(("light", lichen_times(lichen.load(), x, 60.0, args.repeats)))
        rows.append(("minnen2018-joint", lichen_times(create("minnen2018-joint").eval(), x, 60.0, args.repeats)))
        try:
            with bare_compressai.google() as google:
                theirs = google.JointAutoregressiveHierarchicalPriors(192, 192).eval()
                theirs.update(force=True)
                rows.append(("CompressAI mbt2018", compressai_times(theirs, x)))
        except ImportError as e:
            console.print(f"CompressAI is left out. {e}")
    for name, s in rows:
        ratios = s["encode"] / s["analysis"], s["decode"] / s["synthesis"]
        table.add_row(
            name, f"{s['analysis']:.3f}", f"{s['encode']:.3f}", f"{ratios[0]:.2f}",
            f"{s['synthesis']:.3f}", f"{s['decode']:.3f}", f"{ratios[1]:.2f}",
        )  # fmt: skip
    console.print(table)
    for name in ("light", "minnen2018-joint"):
        c = complexity(create(name))
        console.print(
            f"{name}: {c.parameters / 1e6:.1f} M parameters; kMAC/pixel: analysis {c.analysis:.1f}, synthesis "
            f"{c.synthesis:.1f}, hyper-analysis {c.hyper_analysis:.2f}, prior {c.prior:.2f}",
            soft_wrap=False,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
