"""The headline figures of a paper, computed again from its published points: python -m lichen.benchmark.headlines

D. Minnen, J. Balle, G. Toderici, "Joint autoregressive and hierarchical priors for learned image compression", NeurIPS
2018, gives five in its abstract: files 8.4 % smaller than BPG's, 15.8 % than those of the best learned codec before it,
59.8 % than JPEG's, and more than 35 % than WebP's and JPEG 2000's. It does not say over which range of rates.
"""

from __future__ import annotations

from lichen.benchmark.bd import bd_rate
from lichen.benchmark.published import curve

TEST = "joint-neurips18-mse"
DATASET = "kodak"
RATES = (0.08, 2.0)  # bits per pixel

HEADLINES = (
    ("bpg-444", "8.4"),
    ("scale-hyperprior-iclr18-mse", "15.8"),
    ("jpeg-420", "59.8"),
    ("webp-tfc", "more than 35"),
    ("jpeg2000-openjpeg", "more than 35"),
    ("jpeg2000-kakadu", "more than 35"),
)
"""Anchor, and by how many percent its files are larger according to the abstract."""


def table() -> str:
    """A line an anchor: what the abstract says, BD-rate over all published points, and over those of `RATES`."""
    low, high = RATES
    within = f"points of {low:g} to {high:g} bpp"
    lines = [
        f"Rate saved by {TEST} in percent, {DATASET}, RGB PSNR, from published points",
        "",
        f"{'':<28}{'':>13}{'all points':^19} {within:^19}",
        f"{'against':<28}{'abstract':>13}{'saved':>7}{'over dB':>12}{'saved':>8}{'over dB':>12}",
    ]
    for anchor, claim in HEADLINES:
        line = f"{anchor:<28}{claim:>13}"
        test, other = curve(DATASET, TEST), curve(DATASET, anchor)
        for a, b in ((test, other), (test.between(low, high), other.between(low, high))):
            delta = bd_rate(a, b)
            line += f"{-delta.value:>7.1f}{f'{delta.low:.1f}-{delta.high:.1f}':>12}" + (" " if a is test else "")
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
