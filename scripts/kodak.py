"""Lichen's default weights on Kodak, through real files, against JPEG, WebP and the published BPG curve.

    python scripts/kodak.py --data DIR            # DIR has kodim01.png to kodim24.png
    python scripts/kodak.py --data DIR --every 6  # four of the pictures

What was measured once is kept (--store) and measured again only with other weights, or when asked (--again lichen).
"""

from __future__ import annotations

import argparse
import sys

from lichen.benchmark import codecs, datasets, published, report, runner, streams
from lichen.benchmark.store import Store
from lichen.errors import LichenError


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", metavar="DIR", help=f"the pictures' folder (default: what {datasets.VARIABLE} says)")
    p.add_argument("--every", type=positive, default=1, metavar="N", help="only every Nth picture")
    p.add_argument("--store", default="results/kodak.jsonl", metavar="FILE", help="results (default: %(default)s)")
    p.add_argument("--again", action="append", default=[], metavar="CODEC", help="measure this codec anew")
    p.add_argument("--weights", metavar="FILE", help="other weights than those that ship")
    p.add_argument("--ms-ssim", action="store_true", help="measure MS-SSIM too")
    p.add_argument("--no-streams", action="store_true", help="leave the check of the files' streams out")
    p.add_argument("--threads", type=positive, metavar="N", help="processor threads (default: one a core)")
    args = p.parse_args()
    try:
        run(args)
    except LichenError as e:
        print(f"kodak: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"kodak: stopped; what was measured is in {args.store}: run again to go on", file=sys.stderr)
        return 130
    return 0


def positive(text: str) -> int:
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return n


def run(args: argparse.Namespace) -> None:
    pictures = datasets.find("kodak", args.data)[:: args.every]
    lichen = codecs.LichenCodec(weights=args.weights, threads=args.threads)
    measured = [lichen, codecs.create("jpeg-420"), codecs.create("webp")]
    rows = runner.measure(measured, pictures, Store(args.store), ms_ssim=args.ms_ssim, again=args.again)
    points = report.averages(rows)

    print(f"Kodak, {len(pictures)} pictures, averages over the pictures at each setting\n")
    print(report.rate_distortion_table(points) + "\n")
    for codec in measured:
        print(f"{codec.name:<10}{codec.version}")
    for metric in ("psnr", "ms-ssim") if args.ms_ssim else ("psnr",):
        curves = {name: report.curve(name, points[name], metric) for name in points}
        of = {name: published.curve("kodak", name, metric) for name in ("bpg-444-x265", "jpeg-420", "webp-tfc")}
        print(f"\nDistances by {metric.upper()}, PCHIP over the full overlap")
        if args.every > 1:
            print("Published curves are averages over all 24 pictures: not comparable with some")
        print()
        print(report.bd_table(curves["lichen"], [curves["jpeg-420"], curves["webp"], of["bpg-444-x265"]]))
        print(report.bd_table(curves["jpeg-420"], [of["jpeg-420"]]))
        print(report.bd_table(curves["webp"], [of["webp-tfc"]]))
    if not args.no_streams:
        print("\nLichen's files: payloads against estimated bits, decoding against forward\n")
        print(streams.table(streams.check_all(pictures, lichen.settings, lichen.model)))


if __name__ == "__main__":
    sys.exit(main())
