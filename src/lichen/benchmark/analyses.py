"""The comparisons of the seed papers: one metric against another, one prior against another, and where the bits go."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lichen.benchmark import codecs, look
from lichen.benchmark.bd import CurveError
from lichen.benchmark.datasets import pixels
from lichen.benchmark.page import Table
from lichen.benchmark.report import PUBLISHED, Study

ANCHOR = "bpg-444" + PUBLISHED

CROSS = ("scale-hyperprior-iclr18", "joint-neurips18", "mean-scale-hyperprior-compressai", "joint-compressai")
"""Published systems that were trained for MSE and for MS-SSIM."""

PRIORS = (
    ("factorized", "balle2017-mse", "factorized-compressai-mse", "minnen2018-factorized"),
    ("scale hyperprior", "scale-hyperprior-iclr18-mse", "scale-hyperprior-compressai-mse", "minnen2018-scale"),
    (
        "mean and scale hyperprior",
        "mean-scale-hyperprior-neurips18-mse",
        "mean-scale-hyperprior-compressai-mse",
        "minnen2018-mean-scale",
    ),
    ("context alone", "", "", "minnen2018-context"),
    ("context and hyperprior", "joint-neurips18-mse", "joint-compressai-mse", "minnen2018-joint"),
)
"""Prior, the paper's own points, CompressAI's training, and Lichen's model."""


class Weights(NamedTuple):
    """What there is to know of a measured codec of Lichen's."""

    model: str  # its name in the registry
    trained_for: str  # MSE, MS-SSIM, ...


def tables(studies: Iterable[Study], own: Mapping[str, Weights]) -> list[Table]:
    """Cross-metric evaluation and ablation of priors, for each set that has published curves. own: by codec."""
    found = []
    for study in studies:
        if ANCHOR in study.published:
            found += [cross_metric(study, own), ablation(study, own)]
    return found


def cross_metric(study: Study, own: Mapping[str, Weights]) -> Table:
    """Systems trained for MSE and for MS-SSIM, each under both metrics; and Lichen's that were measured here."""
    rows: list[Sequence[str]] = []
    for system in CROSS:
        for loss, title in (("mse", "MSE"), ("msssim", "MS-SSIM")):
            label = f"{system}-{loss}{PUBLISHED}"
            if label in study.published:
                rows.append((label, title, rate(study, label, "psnr"), rate(study, label, "ms-ssim")))
    for codec in study.codecs:
        if codec in own:
            rows.append((codec, own[codec].trained_for, rate(study, codec, "psnr"), rate(study, codec, "ms-ssim")))
    return Table(
        f"One metric against another ({study.name})",
        ("system", "trained for", "BD-rate by PSNR", "BD-rate by MS-SSIM"),
        rows,
        f"Against {ANCHOR}, over the whole overlap.",
    )


def ablation(study: Study, own: Mapping[str, Weights]) -> Table:
    """Published systems that differ in the prior alone, and all of Lichen's for MSE that were measured here."""
    left = [c for c in study.codecs if c in own and own[c].trained_for == "MSE"]
    rows: list[Sequence[str]] = []
    for prior, paper, compressai, name in PRIORS:
        mine = [c for c in left if own[c].model == name]
        left = [c for c in left if c not in mine]
        measured = ", ".join(rate(study, c) for c in mine) or "-"
        rows.append((prior, *(rate(study, c + PUBLISHED) if c else "-" for c in (paper, compressai)), measured))
    rows += [(c, "-", "-", rate(study, c)) for c in left]
    return Table(
        f"Priors ({study.name})",
        ("prior", "papers' points", "CompressAI's training", "measured here"),
        rows,
        f"BD-rate by PSNR against {ANCHOR}. The published systems' transforms are alike, but for ICLR 2017's.",
    )


def rate(study: Study, test: str, metric: str = "psnr", anchor: str = ANCHOR) -> str:
    """A BD-rate in words, "-" where there is none."""
    try:
        return f"{study.compare(test, anchor, metric).rate.value:+.1f} %"
    except CurveError:
        return "-"


def where_the_bits_go(measured: Iterable[codecs.Codec], paths: Sequence[Path]) -> Table:
    """Bits per pixel of latents, hyper-latents and so on, of each of Lichen's codecs at each setting."""
    rows: list[Sequence[str]] = []
    found: list[tuple[str, float, dict[str, float]]] = []
    for codec in measured:
        if not isinstance(codec, codecs.LichenCodec):
            continue
        for setting in codec.settings:
            model = codec.model if codec.model.variable_rate else codec.models[round(setting) - 1]
            bpp: defaultdict[str, float] = defaultdict(float)
            for path in paths:
                picture = pixels(path)
                for part, bits in look.bits(picture, model, setting).items():
                    bpp[part] += bits / (picture.shape[0] * picture.shape[1]) / len(paths)
            found.append((codec.name, setting, dict(bpp)))
    parts = list(dict.fromkeys(part for _, _, bpp in found for part in bpp))
    for name, setting, bpp_ in found:
        total = sum(bpp_.values())
        cells = [f"{bpp_[p]:.4f} ({100 * bpp_[p] / total:.1f} %)" if p in bpp_ else "-" for p in parts]
        rows.append((name, f"{setting:g}", f"{total:.4f}", *cells))
    note = f"Bits per pixel that the prior estimates, mean over {len(paths)} pictures: y latents, z hyper-latents."
    return Table("Where the bits go", ("codec", "setting", "all", *parts), rows, note)
