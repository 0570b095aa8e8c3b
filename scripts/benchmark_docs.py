"""Fill the tables of docs/benchmark.md from a store of `lichen bench`.

    lichen bench --dataset kodak --data DIR --codecs lichen,jpeg,webp,webp-m4,jpeg2000,avif,jpegxl,hevc-444,x265-444
    lichen bench --dataset kodak --data DIR --codecs lichen,vvc --limit vvc-420=8 --timed 0
    python scripts/benchmark_docs.py results/bench.jsonl

With other weights only their lines change. The store then needs these and the anchor alone:

    lichen bench --dataset kodak --data DIR --codecs lichen,lichen-ms-ssim,jpeg-420
    python scripts/benchmark_docs.py results/bench.jsonl --only lichen lichen-ms-ssim

A table stands between two marker comments; the rest of the page is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from pages import TableError, body, replaced

from lichen.benchmark import headlines, report
from lichen.benchmark.bd import CurveError
from lichen.benchmark.report import PUBLISHED, Study
from lichen.benchmark.runner import Store

CHECKS = (
    ("jpeg-420", "jpeg-420"),
    ("webp-m4", "webp-tfc"),
    ("webp", "webp-tfc"),
    ("jpeg2000-53", "jpeg2000-openjpeg"),
    ("jpeg2000-97", "jpeg2000-openjpeg"),
    ("hevc-444", "bpg-444-x265"),
    ("x265-444", "bpg-444-x265"),
    ("x265-444", "hm"),
)
"""Measured here, and who published the same."""


def checks(study: Study) -> str:
    """How far a codec measured here is from the same one as published."""
    lines = ["| measured here | published | BD-rate | over | BD-PSNR |", "|---|---|---|---|---|"]
    for test, anchor in CHECKS:
        if test not in study.codecs:
            continue
        try:
            d = study.compare(test, anchor + PUBLISHED)
        except CurveError as e:
            lines.append(f"| {test} | {anchor} | - | {e} | - |")
            continue
        over = f"{d.rate.low:.1f} to {d.rate.high:.1f} dB"
        lines.append(f"| {test} | {anchor} | {d.rate.value:+.1f} % | {over} | {d.quality.value:+.2f} dB |")
    return "\n".join(lines)


def fill(text: str, name: str, table: str) -> str:
    try:
        return replaced(text, name, table, "benchmark_docs.py")
    except TableError as e:
        raise SystemExit(str(e)) from e


def merged(old: str, new: str, only: Collection[str]) -> str:
    """`old`, with the lines of some codecs from `new`; a codec that a table lacks comes at its end.

    Tables are known by the text before them and their heading.
    """
    fresh = {where: rows for _, where, rows in tables(new)}
    blocks = old.split("\n\n")
    for k, where, rows in tables(old):
        rows |= {codec: line for codec, line in fresh.get(where, {}).items() if codec in only}
        blocks[k] = "\n".join([*blocks[k].splitlines()[:2], *rows.values()])
    return "\n\n".join(blocks)


def tables(text: str) -> Iterator[tuple[int, tuple[str, str], dict[str, str]]]:
    """Which paragraph it is, (the text before, heading), {first cell: line} of every Markdown table."""
    blocks = text.split("\n\n")
    for k, block in enumerate(blocks):
        if block.startswith("|"):
            heading, _, *lines = block.splitlines()
            before = blocks[k - 1] if k and not blocks[k - 1].startswith("|") else ""
            yield k, (before, heading), {line.split("|")[1].strip(): line for line in lines}


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("store", help="what `lichen bench --store` wrote")
    p.add_argument("--page", default="docs/benchmark.md", help="the page to fill (default: %(default)s)")
    p.add_argument("--only", nargs="+", metavar="CODEC", help="replace the lines of these, leave the others'")
    args = p.parse_args()
    rows = [r for r in Store(args.store).rows.values() if r.image.startswith("kodim")]
    study = Study("kodak", rows)
    text = Path(args.page).read_text(encoding="utf-8")
    if not args.only or "lichen" in args.only:
        own = Study("kodak", [r for r in rows if r.codec != "lichen-ms-ssim"])
        text = fill(text, "headlines", headlines.markdown(own))
    if not args.only:
        text = fill(text, "checks", checks(study))
    made = report.markdown([study], ["jpeg-420", "bpg-444-x265" + PUBLISHED]).replace("## ", "### ", 1)
    if args.only:
        made = merged(body(text, "kodak", "benchmark_docs.py"), made, args.only)
    text = fill(text, "kodak", made.rstrip())
    Path(args.page).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
