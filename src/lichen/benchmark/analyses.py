"""The comparisons of the seed papers: one metric against another, one prior against another, and where the bits go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lichen.benchmark.bd import CurveError
from lichen.benchmark.page import Table
from lichen.benchmark.report import PUBLISHED, Study

ANCHOR = "bpg-444" + PUBLISHED

CROSS = ("scale-hyperprior-iclr18", "joint-neurips18", "mean-scale-hyperprior-compressai", "joint-compressai")
"""Published systems that were trained for MSE and for MS-SSIM."""

PRIORS = (
    ("factorized", "balle2017-mse", "factorized-compressai-mse"),
    ("scale hyperprior", "scale-hyperprior-iclr18-mse", "scale-hyperprior-compressai-mse"),
    ("mean and scale hyperprior", "mean-scale-hyperprior-neurips18-mse", "mean-scale-hyperprior-compressai-mse"),
    ("joint: context and hyperprior", "joint-neurips18-mse", "joint-compressai-mse"),
)
"""Prior, the paper's own points, CompressAI's training."""


def tables(studies: Iterable[Study]) -> list[Table]:
    """Cross-metric evaluation and ablation of priors, for each set that has published curves."""
    found = []
    for study in studies:
        if ANCHOR in study.published:
            found += [cross_metric(study), ablation(study)]
    return found


def cross_metric(study: Study) -> Table:
    """Systems trained for MSE and for MS-SSIM, each under both metrics; and what was measured here."""
    rows: list[Sequence[str]] = []
    for system in CROSS:
        for loss, title in (("mse", "MSE"), ("msssim", "MS-SSIM")):
            label = f"{system}-{loss}{PUBLISHED}"
            if label in study.published:
                rows.append((label, title, rate(study, label, "psnr"), rate(study, label, "ms-ssim")))
    for codec in study.codecs:
        if codec.startswith("lichen"):
            loss = "MS-SSIM" if "ssim" in codec else "MSE"
            rows.append((codec, loss, rate(study, codec, "psnr"), rate(study, codec, "ms-ssim")))
    return Table(
        f"One metric against another ({study.name})",
        ("system", "trained for", "BD-rate by PSNR", "BD-rate by MS-SSIM"),
        rows,
        f"Against {ANCHOR}, over the whole overlap.",
    )


def ablation(study: Study) -> Table:
    """Published systems that differ in the prior alone."""
    rows = [(prior, rate(study, a + PUBLISHED), rate(study, b + PUBLISHED)) for prior, a, b in PRIORS]
    return Table(
        f"Priors ({study.name})",
        ("prior", "BD-rate, papers' points", "BD-rate, CompressAI's training"),
        rows,
        f"By PSNR against {ANCHOR}. The transforms are alike, but for ICLR 2017's.",
    )


def rate(study: Study, test: str, metric: str = "psnr", anchor: str = ANCHOR) -> str:
    """A BD-rate in words, "-" where there is none."""
    try:
        return f"{study.compare(test, anchor, metric).rate.value:+.1f} %"
    except CurveError:
        return "-"
