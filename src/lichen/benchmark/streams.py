"""Does a .lichen file cost what the prior promised, and does it decode to what the model promised?

For every tile's stream: the bits that a perfect coder would need under the prior's probabilities, against the bytes
that the file has for it. For the picture: x_hat of the model's eval forward against x_hat decoded from the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from lichen.benchmark.datasets import pixels
from lichen.benchmark.runner import progress_bar
from lichen.picture import Pixels

if TYPE_CHECKING:
    from lichen.models.base import Model

RELATIVE, ABSOLUTE = 0.005, 16
"""How far a stream may be from its estimate: half a percent of the estimate and 16 bytes."""


@dataclass(frozen=True)
class Check:
    """One file."""

    quality: float
    estimates: tuple[float, ...]  # bytes, one a tile
    payloads: tuple[int, ...]  # bytes, one a tile
    overhead: int  # bytes of the file beside the payloads
    identical: bool  # whether forward and decoding give the same x_hat, bit for bit

    @property
    def beyond(self) -> int:
        """Streams that are further from their estimate than is allowed."""
        pairs = zip(self.estimates, self.payloads, strict=True)
        return sum(abs(payload - estimate) > RELATIVE * estimate + ABSOLUTE for estimate, payload in pairs)

    @property
    def passed(self) -> bool:
        """Whether all is as promised."""
        return self.identical and not self.beyond


def check(picture: Pixels, quality: float, model: Model, *, tile: int | None = None) -> Check:
    """Encode a picture (H, W, 3), decode it, and compare. `tile` as for `lichen.encode`.

    The forward of a model knows no tiles: with several, its part is played by the estimating pass over the same tiles.
    """
    import torch

    from lichen import codec, tiles
    from lichen.coding.coder import Meter

    data = codec.encode(picture, quality, model=model, tile=tile)
    file = codec.read(data)
    header = file.header
    with torch.inference_mode():
        x, q = tiles.to_tensor(picture, model), codec.quality_tensor(header.quality)
        if len(file.tiles) == 1:
            x_hat, bits = model(x, q)
            estimates = [sum(float(b) for b in bits.values())]
        else:
            y = model.analyse(x, q)
            parts, estimates = [], []
            boxes = tiles.tile_boxes(tiles.Box(0, 0, y.shape[1], y.shape[2]), header.tile, model)
            for box in boxes:
                meter = Meter()
                parts.append(model.code([meter], y[:, box.rows, box.columns], q))
                estimates.append(sum(meter.bits.values()))
            y_hat = y.new_empty(*y.shape[:3], parts[0].shape[-1])
            for box, part in zip(boxes, parts, strict=True):
                y_hat[:, box.rows, box.columns] = part
            x_hat = model.synthesise_to(y_hat, q, (x.shape[2], x.shape[3]))
    decoded = codec.reconstruct(file, model=model)
    payloads = tuple(len(t) for t in file.tiles)
    return Check(
        quality,
        tuple(e / 8 for e in estimates),
        payloads,
        len(data) - sum(payloads),
        torch.equal(x_hat[0, :, : header.height, : header.width], decoded),
    )


def check_all(
    pictures: Iterable[str | Path], qualities: Iterable[float], model: Model, *, console: Console | None = None
) -> list[Check]:
    """Every picture at every quality, with a progress bar on a terminal."""
    paths, levels = list(pictures), list(qualities)
    checks = []
    with progress_bar(len(paths) * len(levels), console) as step:
        for path in paths:
            picture = pixels(path)
            for quality in levels:
                step(f"check {quality:g} {Path(path).name}")
                checks.append(check(picture, quality, model))
    return checks


def table(checks: Iterable[Check]) -> str:
    """A line a quality: sums over its files, the stream furthest from its estimate, and how many files are right."""
    groups: defaultdict[float, list[Check]] = defaultdict(list)
    for c in checks:
        groups[c.quality].append(c)
    lines = [
        f"{'':>8}{'estimated':>12}{'payload':>12}{'difference':>20}{'':>8}{'beyond':>8}{'same':>12}",
        f"{'quality':>8}{'bytes':>12}{'bytes':>12}{'%':>8}{'worst, B':>12}{'rest':>8}{'limit':>8}{'x_hat':>12}",
    ]
    for quality, group in sorted(groups.items()):
        pairs = [p for c in group for p in zip(c.estimates, c.payloads, strict=True)]
        estimate, payload = sum(e for e, _ in pairs), sum(p for _, p in pairs)
        worst = max((p - e for e, p in pairs), key=abs)
        same = f"{sum(c.identical for c in group)} of {len(group)}"
        lines.append(
            f"{quality:>8g}{estimate:>12,.0f}{payload:>12,}{100 * (payload / estimate - 1):>+8.2f}{worst:>+12.1f}"
            f"{max(c.overhead for c in group):>8}{sum(c.beyond for c in group):>8}{same:>12}"
        )
    return "\n".join(lines)
