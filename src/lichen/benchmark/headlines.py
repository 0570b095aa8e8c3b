"""The headline figures of a paper, computed again from its published points.

    python -m lichen.benchmark.headlines [STORE]

D. Minnen, J. Balle, G. Toderici, "Joint autoregressive and hierarchical priors for learned image compression", NeurIPS
2018, gives five in its abstract: files 8.4 % smaller than BPG's, 15.8 % than those of the best learned codec before it,
59.8 % than JPEG's, and more than 35 % than WebP's and JPEG 2000's. It does not say over which range of rates.

With a store of `lichen bench`, beside them what Lichen's own weights save, measured on the same pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from lichen.benchmark.bd import CurveError, bd_rate
from lichen.benchmark.published import curve
from lichen.benchmark.report import PUBLISHED, Study

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


def markdown(study: Study | None = None) -> str:
    """The same as a Markdown table, all points, with a column for each of Lichen's codecs that `study` measured."""
    own = [c for c in study.codecs if c.startswith("lichen")] if study else []
    header = ["rate saved against", "the abstract", f"{TEST}, from published points", *(f"{c}, measured" for c in own)]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for anchor, claim in HEADLINES:
        delta = bd_rate(curve(DATASET, TEST), curve(DATASET, anchor))
        cells = [f"{anchor}{PUBLISHED}", f"{claim} %", f"{-delta.value:.1f} % ({delta.low:.1f} to {delta.high:.1f} dB)"]
        cells += [_own(study, c, anchor) for c in own if study]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _own(study: Study, codec: str, anchor: str) -> str:
    try:
        d = study.compare(codec, anchor + PUBLISHED).rate
    except CurveError:
        return "-"
    return f"{-d.value:.1f} % ({d.low:.1f} to {d.high:.1f} dB)"


def main(argv: Sequence[str]) -> int:
    """Print the table; of a store's rows, all are taken to be of Kodak's pictures."""
    print(table())
    if argv:
        from lichen.benchmark.store import Store

        rows = [r for r in Store(argv[0]).rows.values() if r.image.startswith("kodim")]
        print("\n" + markdown(Study(DATASET, rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
