"""A look inside a codec on one picture: its latents, what the prior expected of them, and what structure is left.

After figure 2 of Minnen, Balle, Toderici (NeurIPS 2018), and the like of Hu, Yang, Liu (AAAI 2020). The better the
prior, the less of the picture can be seen in the normalised residual (y - mu) / sigma: where nothing is left, it is
noise.

A prior of a kind not known here says it itself, with a method `look(y, y_hat, level)` that gives mu and sigma (1, h, w,
M) and a dict of hyper-latents {"z": (1, h', w', N), ...}.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lichen.errors import LichenError
from lichen.picture import Pixels

if TYPE_CHECKING:
    from torch import Tensor

    from lichen.models.base import Model

Array = npt.NDArray[np.float64]

REACH = 2  # of correlations, in latents


@dataclass(frozen=True)
class Look:
    """What was found. Latents are (h, w, M), a row and column per `stride` pixels."""

    model: str
    quality: float | None
    width: int
    height: int
    bits: Mapping[str, float]  # part ("y", "z", ...) -> bits of the whole picture
    y: Array  # before rounding
    y_hat: Array
    mu: Array | None  # None for a prior that does not say
    sigma: Array | None
    hyper: Mapping[str, Array]

    @property
    def residual(self) -> Array | None:
        """(y_hat - mu) / sigma."""
        return None if self.mu is None or self.sigma is None else (self.y_hat - self.mu) / self.sigma

    @property
    def bits_of_y(self) -> Array:
        """Bits of each latent (h, w, M): under N(mu, sigma), else by each channel's own histogram."""
        if self.mu is None or self.sigma is None:
            return _histogram_bits(self.y_hat)
        import torch

        from lichen.priors import gaussian

        v, sigma = torch.from_numpy(self.y_hat - self.mu), torch.from_numpy(self.sigma)
        return np.asarray(gaussian.bits(v, sigma).numpy(), np.float64)

    def numbers(self) -> dict[str, Any]:
        """Bits and bits per pixel of each part, and the correlation left between neighbours in each kind of latents.

        Correlations are means over channels, each counting as many times as it has bits: of neighbours to the right,
        below, and of all within two rows and columns as a 5x5 table.
        """
        pixels = self.width * self.height
        weight = self.bits_of_y.sum((0, 1))
        kinds = {"y": self.y_hat, "mu": self.mu, "sigma": self.sigma, "residual": self.residual}
        found = {k: correlation(v, weight) for k, v in kinds.items() if v is not None}
        found |= {k: correlation(v) for k, v in self.hyper.items()}
        residual = self.residual
        active = weight > 0.01 * weight.mean()
        return {
            "model": self.model,
            "quality": self.quality,
            "width": self.width,
            "height": self.height,
            "bits": {k: round(b, 1) for k, b in self.bits.items()},
            "bits_per_pixel": {k: b / pixels for k, b in self.bits.items()},
            "channels": self.y.shape[-1],
            "channels_in_use": int((self.y_hat.std((0, 1)) > 0).sum()),
            "half_the_bits_in_channels": int(np.searchsorted(np.sort(weight)[::-1].cumsum(), weight.sum() / 2) + 1),
            "residual_deviation": None if residual is None else float(residual[..., active].std()),
            "correlation": {
                k: {"right": float(c[REACH, REACH + 1]), "below": float(c[REACH + 1, REACH]), "table": c.tolist()}
                for k, c in found.items()
            },
        }


def look(picture: Pixels, model: Model, quality: float = 50.0) -> Look:
    """Look at uint8 (H, W, 3). quality: 1 to 100, without meaning for models of one quality."""
    import torch

    from lichen import tiles
    from lichen.coding.coder import Meter

    with torch.inference_mode():
        x = tiles.to_tensor(picture, model)
        q = torch.tensor([quality]) if model.variable_rate else None
        y = model.analyse(x, q)
        meter = Meter()
        y_hat = model.code([meter], y, q)[..., : y.shape[-1]]  # some priors add features for the synthesis
        mu, sigma, hyper = None, None, {}
        if hasattr(model.prior, "look"):
            mu, sigma, hyper = model.prior.look(y, y_hat, model.prior.condition(q))
    height, width = picture.shape[:2]
    return Look(
        model.name,
        quality if model.variable_rate else None,
        width,
        height,
        dict(meter.bits),
        _array(y),
        _array(y_hat),
        None if mu is None else _array(mu),
        None if sigma is None else _array(sigma),
        {k: _array(v) for k, v in hyper.items()},
    )


def bits(picture: Pixels, model: Model, quality: float = 50.0) -> dict[str, float]:
    """Part ("y", "z", ...) -> bits that the prior estimates for a picture (H, W, 3)."""
    import torch

    from lichen import tiles
    from lichen.coding.coder import Meter

    with torch.inference_mode():
        q = torch.tensor([quality]) if model.variable_rate else None
        meter = Meter()
        model.code([meter], model.analyse(tiles.to_tensor(picture, model), q), q)
    return dict(meter.bits)


def _array(t: Tensor) -> Array:
    return np.asarray(t[0].double().numpy(), np.float64)


def correlation(v: Array, weight: Array | None = None) -> Array:
    """(h, w, C) -> (5, 5): correlation of a latent with those up to two rows and columns away, 1 in the middle.

    The mean over channels that vary, each counting as its `weight` (C,); zeros where none does.
    """
    size = 2 * REACH + 1
    found = np.zeros((size, size))
    found[REACH, REACH] = 1.0
    h, w = v.shape[:2]
    centred = v - v.mean((0, 1))
    variance = (centred**2).mean((0, 1))
    share = np.where(variance > 1e-12, np.ones(v.shape[-1]) if weight is None else weight, 0.0)
    if share.sum() <= 0:
        return found
    for dy in range(-REACH, REACH + 1):
        for dx in range(-REACH, REACH + 1):
            if (dy, dx) == (0, 0) or abs(dy) >= h or abs(dx) >= w:
                continue
            a = centred[max(0, -dy) : h - max(0, dy), max(0, -dx) : w - max(0, dx)]
            b = centred[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
            r = (a * b).mean((0, 1)) / np.where(variance > 1e-12, variance, 1.0)
            found[dy + REACH, dx + REACH] = float((r * share).sum() / share.sum())
    return found


def _histogram_bits(y_hat: Array) -> Array:
    bits = np.zeros_like(y_hat)
    for c in range(y_hat.shape[-1]):
        _, inverse, counts = np.unique(np.round(y_hat[..., c], 3), return_inverse=True, return_counts=True)
        bits[..., c] = -np.log2(counts / counts.sum())[inverse.reshape(y_hat.shape[:2])]
    return bits


def check_target(path: Path) -> None:
    """LichenError where no figure can be written to a path: matplotlib is missing, or does not know its suffix."""
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError as e:
        raise LichenError("the figure needs matplotlib: pip install 'lichen[benchmark]'") from e
    known = FigureCanvasBase.get_supported_filetypes()
    if path.suffix.lower().lstrip(".") not in known:
        raise LichenError(f"{path} ends in no format of figures: choose one of {', '.join(sorted(known))}")


def draw(found: Look, picture: Pixels, path: str | Path, channels: int = 3) -> None:
    """The figure: picture and where its bits go; the channels of most bits with mu, sigma and residual; correlations.

    LichenError as of `check_target`.
    """
    check_target(Path(path))
    from matplotlib.figure import Figure

    bits = found.bits_of_y
    weight = bits.sum((0, 1))
    order = np.argsort(-weight)[:channels]
    tables = found.numbers()["correlation"]
    last = -(-len(tables) // 4)  # rows of correlations, which are square
    rows = 1 + len(order)
    heights = [3.1 * min(max(0.62, found.height / found.width), 1.5)] * rows + [3.1] * last
    figure: Any = Figure(figsize=(13, sum(heights)), dpi=110, layout="constrained")
    grid = figure.subplots(rows + last, 4, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes in grid.flat:
        axes.set_axis_off()

    def show(axes: Any, image: npt.NDArray[Any], title: str, cmap: str = "gray", limits: Any = None) -> None:
        low, high = limits or (None, None)
        shown = axes.imshow(image, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
        axes.set_title(title, fontsize=9)
        if image.ndim == 2:
            figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02).ax.tick_params(labelsize=7)

    pixels = found.width * found.height
    parts = ", ".join(f"{k} {b / pixels:.4f}" for k, b in found.bits.items())
    show(grid[0, 0], picture, f"{found.model}, quality {f'{found.quality:g}' if found.quality else 'fixed'}")
    show(grid[0, 1], bits.sum(-1), f"bits of y by position (bpp: {parts})", "magma")
    for axes, (name, z) in zip(grid[0, 2:], found.hyper.items(), strict=False):
        c = int(np.argmax(z.var((0, 1))))
        show(axes, z[..., c], f"{name}_hat, channel {c}", "viridis")
    for row, c in zip(grid[1:rows], order, strict=True):
        share = 100 * weight[c] / max(weight.sum(), 1e-9)
        span = max(float(np.abs(found.y_hat[..., c]).max()), 1e-6)
        show(row[0], found.y_hat[..., c], f"y_hat, channel {c}: {share:.1f} % of the bits", "RdBu_r", (-span, span))
        if found.mu is not None and found.sigma is not None and found.residual is not None:
            show(row[1], found.mu[..., c], "mu", "RdBu_r", (-span, span))
            show(row[2], found.sigma[..., c], "sigma", "magma")
            show(row[3], found.residual[..., c], "(y_hat - mu) / sigma", "RdBu_r", (-3, 3))
    for axes, (name, entry) in zip(grid[rows:].flat, tables.items(), strict=False):
        table = np.array(entry["table"])
        title = f"correlation in {name}: {entry['right']:+.2f} right, {entry['below']:+.2f} below"
        show(axes, table, title, "RdBu_r", (-1, 1))
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
