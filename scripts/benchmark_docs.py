"""Fill the tables of docs/benchmark.md from the store beside it, docs/benchmark.jsonl, which these commands wrote:

    lichen bench --dataset kodak --data DIR --store docs/benchmark.jsonl \\
        --codecs lichen,lichen-ms-ssim,jpeg,webp,webp-m4,jpeg2000,avif,jpegxl,hevc-444,x265-444
    lichen bench --dataset kodak --data DIR --store docs/benchmark.jsonl --codecs vvc --limit vvc-420=8 --timed 0
    python scripts/benchmark_docs.py

With other weights, or another version of a program, the same commands measure that alone. A table stands between two
marker comments; the rest of the page is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pages import TableError, replaced

from lichen.atomic import write_atomic
from lichen.benchmark import headlines, report
from lichen.benchmark.bd import CurveError
from lichen.benchmark.report import PUBLISHED, Study
from lichen.benchmark.store import Row, Store

DOCS = Path(__file__).parents[1] / "docs"

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


def filled(text: str, rows: list[Row]) -> str:
    """The page with tables of these measurements of Kodak. TableError where it has no place for one."""
    study = Study("kodak", rows)
    for_mse = Study("kodak", [r for r in rows if r.codec != "lichen-ms-ssim"])  # the headlines are by PSNR
    results = report.markdown([study], ["jpeg-420", "bpg-444-x265" + PUBLISHED]).replace("## ", "### ", 1)
    tables = {"headlines": headlines.markdown(for_mse), "checks": checks(study), "kodak": results.rstrip()}
    for name, table in tables.items():
        text = replaced(text, name, table, "benchmark_docs.py")
    return text


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("store", nargs="?", default=DOCS / "benchmark.jsonl", help="what `lichen bench --store` wrote")
    p.add_argument("--page", default=DOCS / "benchmark.md", type=Path, help="the page to fill (default: %(default)s)")
    args = p.parse_args()
    rows = [r for r in Store(args.store).rows.values() if r.image.startswith("kodim")]
    try:
        text = filled(args.page.read_text(encoding="utf-8"), rows)
    except TableError as e:
        raise SystemExit(str(e)) from e
    write_atomic(args.page, text.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
