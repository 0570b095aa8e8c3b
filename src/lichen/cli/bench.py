"""`lichen bench`: codecs on pictures, side by side."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.cli import files
from lichen.errors import LichenError

if TYPE_CHECKING:
    from lichen.benchmark.analyses import Weights
    from lichen.benchmark.codecs import Codec
    from lichen.benchmark.page import Table
    from lichen.benchmark.report import Study

DEFAULT = "lichen,jpeg,webp,jpeg2000,avif,jpegxl,hevc-444"


def add_parser(commands: Any) -> None:
    """Add the command."""
    p = commands.add_parser(
        "bench",
        help="measure codecs on pictures and compare them",
        description="Measure codecs on pictures: rate, distortion, time. What was measured once is kept and not "
        "measured again; a run that was stopped goes on where it was.",
    )
    what = p.add_argument_group("what to measure")
    what.add_argument("--dataset", action="append", default=[], metavar="NAME", help="kodak, tecnick, ... or a folder")
    what.add_argument("--data", metavar="DIR", help="folder of the data sets (default: what LICHEN_DATA says)")
    what.add_argument("--codecs", default=DEFAULT, metavar="LIST", help="with commas between (default: %(default)s)")
    what.add_argument(
        "--codec", action="append", default=[], metavar="T", help="'name:encoder {in} {out} {q}:decoder {in} {out}'"
    )
    what.add_argument(
        "--weights",
        action="append",
        default=[],
        nargs="+",
        metavar="NAME FILE",
        help="weights that Lichen's trainer wrote, under a name",
    )
    what.add_argument("--every", type=files.positive, default=1, metavar="N", help="only every Nth picture")
    what.add_argument(
        "--limit", action="append", default=[], metavar="CODEC=N", help="a slow codec on N pictures, evenly spaced"
    )
    what.add_argument("--no-ms-ssim", action="store_true", help="leave MS-SSIM out")
    what.add_argument("--list", action="store_true", help="list codecs and data sets, and stop")
    how = p.add_argument_group("how")
    how.add_argument("--store", default="results/bench.jsonl", metavar="FILE", help="results (default: %(default)s)")
    how.add_argument("--again", action="append", default=[], metavar="CODEC", help="measure this codec anew")
    how.add_argument(
        "--processes", type=files.positive, metavar="N", help="for rates and qualities (default: one per core)"
    )
    how.add_argument("--timed", type=int, default=2, metavar="N", help="pictures to take times on (default 2, 0: none)")
    how.add_argument(
        "--repeats", type=files.positive, default=3, metavar="N", help="runs whose median is a time (default 3)"
    )
    how.add_argument(
        "--threads", type=files.positive, default=1, metavar="N", help="threads of Lichen while it is timed (default 1)"
    )
    how.add_argument(
        "--cluster", metavar="ADDRESS", help="have a Ray cluster measure rates and qualities ('local': one here)"
    )
    out = p.add_argument_group("what to write")
    out.add_argument("--report", metavar="FILE", help="one HTML page")
    out.add_argument("--markdown", metavar="FILE", help="tables")
    out.add_argument("--figures", metavar="DIR", help="curves as PNG and SVG")
    out.add_argument(
        "--anchor", default="jpeg-420", metavar="CODEC", help="what BD-rates are against (default: %(default)s)"
    )
    out.add_argument("--pictures", type=int, default=2, metavar="N", help="to look at in the report (default 2)")
    p.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure, print, write."""
    from lichen.benchmark import analyses, datasets, metrics, page, report, runner
    from lichen.benchmark.codecs import LichenCodec
    from lichen.benchmark.store import Store

    if args.list:
        return _list()
    _check_outputs(args)
    sets = {name: _pictures(name, args.data)[:: args.every] for name in args.dataset or ["kodak"]}
    titles = _titles(sets)
    codecs, notes = _codecs(args)
    names = [c.name for c in codecs]
    limits = _limits(args.limit, names)
    again = [name for given in args.again for name in _chosen(given, names, "--again")]
    _check_anchor(args.anchor, names, sets)
    store = Store(args.store)
    processes = args.processes or os.cpu_count() or 1
    failures: list[str] = []
    studies, viewed = [], []
    tables: list[Table] = []
    try:
        for name, pictures in sets.items():
            options: dict[str, Any] = {
                "ms_ssim": not args.no_ms_ssim,
                "again": again,
                "timed": args.timed,
                "repeats": args.repeats if args.timed > 0 else 0,
                "memory": args.timed > 0,
                "limits": limits,
                "on_error": failures.append,
                "cluster": args.cluster,
            }
            rows = runner.measure(codecs, pictures, store, processes=processes, **options)
            if name in datasets.DATASETS and (others := datasets.others(name, pictures)):
                notes.append(f"{name}: {len(others)} files are not those known by these names ({others[0].name}, ...).")
            small = {r.image for r in rows if not args.no_ms_ssim and not metrics.takes_ms_ssim(r.width, r.height)}
            if small:
                side = f"{metrics.MS_SSIM_SIDE} pixels to each side"
                notes.append(
                    f"{titles[name]}: MS-SSIM needs {side}, and {len(small)} pictures have less ({min(small)}, ...)."
                )
            study = report.Study(titles[name], rows)
            studies.append(study)
            _print(study, args.anchor)
            if args.report and args.pictures > 0:
                with runner.progress_bar(1) as step:
                    step("decoding the pictures to look at")
                    folder = Path(args.store).with_suffix(".pictures")
                    viewed += page.viewer(study, codecs, pictures, folder, args.pictures)
            if args.report and not tables and any(isinstance(c, LichenCodec) for c in codecs):
                tables.append(
                    analyses.where_the_bits_go(codecs, [pictures[i] for i in runner.spread(len(pictures), 2)])
                )
    except KeyboardInterrupt:
        print(f"lichen: stopped; what was measured is in {args.store}: run again to go on", file=sys.stderr)
        return 130
    for line in dict.fromkeys([*notes, *failures]):
        print(f"lichen: {line}", file=sys.stderr)
    own = {c.name: analyses.Weights(c.model.name, c.trained_for) for c in codecs if isinstance(c, LichenCodec)}
    _write(args, studies, [*notes, *failures], viewed, tables, own)
    return 1 if failures else 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Before anything is measured: whether results, report, tables and curves can be written where they shall be."""
    for option in ("store", "report", "markdown", "figures"):
        path = getattr(args, option)
        if not path:
            continue
        folder = Path(path) if option == "figures" else Path(path).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise LichenError(f"--{option} {path} cannot be written ({e.strerror}): give another name") from e
        if not os.access(folder, os.W_OK) or (option != "figures" and Path(path).is_dir()):
            raise LichenError(f"--{option} {path} cannot be written: give another name")


def _chosen(given: str, names: list[str], option: str) -> list[str]:
    """The codecs of a name or of a group, as far as they run here."""
    from lichen.benchmark import codecs

    found = [n for n in codecs.GROUPS.get(given, (given,)) if n in names]
    if not found and given not in {*codecs.CODECS, *codecs.GROUPS}:
        raise LichenError(f"{option} {given}: no such codec is measured, but {', '.join(names)}")
    return found


def _check_anchor(anchor: str, names: list[str], sets: Iterable[str]) -> None:
    from lichen.benchmark import codecs, published, report

    known = {*names, *codecs.CODECS, *(c + report.PUBLISHED for name in sets for c in published.codecs(name))}
    if anchor not in known:
        raise LichenError(f"--anchor {anchor}: no codec is called so; one that is measured, or one that is published")


def _write(
    args: argparse.Namespace,
    studies: list[Study],
    notes: list[str],
    viewed: list[dict[str, Any]],
    tables: list[Table],
    own: dict[str, Weights],
) -> None:
    from lichen.atomic import write_atomic
    from lichen.benchmark import analyses, figures, page, report

    anchors = list(dict.fromkeys([args.anchor, "bpg-444-x265" + report.PUBLISHED]))
    if args.report:
        how = [
            "bpp is the size of the whole file. PSNR is over 8-bit RGB, averaged over pictures; MS-SSIM in dB is "
            "-10 log10(1 - MS-SSIM) of the average; Y and YUV 6:1:1 are of BT.601 full-range YCbCr.",
        ]
        if any(s.published for s in studies):
            how.append("Dashed curves are figures of publications and were not measured here.")
        if viewed:
            how.append("The pictures under Look are shown as JPEG of quality 92, 4:4:4; their numbers are exact.")
        timed = [r for s in studies for r in s.rows if r.encode_s is not None]
        repeats, shown = sorted({r.repeats for r in timed}), len({r.pixels for r in timed})
        times = (
            f"Wall clock, median of warm runs (repeats: {', '.join(map(str, repeats))}, pictures: {shown}), one at a "
            f"time, mean over settings; FFmpeg's encoders on one thread, Lichen on {args.threads} where timed now. "
            "Memory is the peak of a fresh process above what it held with the codec loaded, at the middle setting."
        )
        page.write(
            page.Report(
                studies,
                title="Image codecs compared",
                notes=[*notes, *how],
                tables=[*analyses.tables(studies, own), *tables],
                viewer=viewed,
                anchor=args.anchor,
                times=times,
            ),
            args.report,
        )
        print(f"report: {args.report}")
    if args.markdown:
        write_atomic(Path(args.markdown), report.markdown(studies, anchors).encode())
        print(f"tables: {args.markdown}")
    if args.figures:
        for study in studies:
            for metric in report.METRICS:
                for suffix in (".png", ".svg"):
                    path = Path(args.figures) / f"{study.name}-{metric}{suffix}"
                    if figures.draw(study, path, metric, page.SHOWN):
                        print(f"curves: {path}")


def _list() -> int:
    from lichen.benchmark import codecs, datasets

    print("codecs")
    for name in codecs.CODECS:
        try:
            print(f"  {name:<12} {codecs.create(name).version}")
        except LichenError as e:
            print(f"  {name:<12} cannot run: {e}")
    print("groups")
    for name, members in codecs.GROUPS.items():
        print(f"  {name:<12} {', '.join(members)}")
    print("  lichen-all   every set of weights that ships")
    print("data sets")
    for d in datasets.DATASETS.values():
        print(f"  {d.name:<22} {d.title}: {d.number or 'all'} pictures, {d.size}, {d.page}")
    return 0


def _pictures(name: str, data: str | None) -> list[Path]:
    from lichen.benchmark import datasets

    if name not in datasets.DATASETS and Path(name).is_dir():
        return datasets.folder(name)
    return datasets.find(name, data)


def _titles(names: Iterable[str]) -> dict[str, str]:
    """What sets are called: a known one by its name, a folder by its own, and by folders above where two coincide."""
    from lichen.benchmark import datasets

    parts = {n: (n,) if n in datasets.DATASETS else (Path(n).resolve().parts[1:] or (n,)) for n in names}
    titles = {n: p[-1] for n, p in parts.items()}
    for depth in range(2, 1 + max(map(len, parts.values()))):
        twice = {t for t in titles.values() if list(titles.values()).count(t) > 1}
        titles |= {n: "-".join(p[-depth:]) for n, p in parts.items() if titles[n] in twice}
    return titles


def _codecs(args: argparse.Namespace) -> tuple[list[Codec], list[str]]:
    """All that was asked for, and sentences about what cannot run."""
    from lichen.benchmark import codecs, programs

    found, missing = codecs.create_all([n for n in args.codecs.split(",") if n.strip()])
    for template in args.codec:
        codec = programs.CommandCodec.parse(template)
        _ = codec.version
        found.append(codec)
    for name, *paths in args.weights:
        if not paths:
            raise LichenError(f"--weights {name} names no file: give a name and then the files")
        found.append(codecs.LichenCodec(weights=paths, name=name, threads=args.threads))
    for codec_ in found:
        if isinstance(codec_, codecs.LichenCodec):
            codec_.threads = args.threads
    names = [c.name for c in found]
    twice = {n for n in names if names.count(n) > 1}
    if twice:
        raise LichenError(f"two codecs are called {', '.join(sorted(twice))}: give another name")
    if not found:
        raise LichenError("no codec can run here: " + "; ".join(missing))
    return found, missing


def _limits(texts: list[str], names: list[str]) -> dict[str, int]:
    limits = {}
    for text in texts:
        name, _, number = text.partition("=")
        if not number.isdigit() or not int(number):
            raise LichenError(f"--limit {text}: give CODEC=N, for instance vvc-420=8")
        limits.update(dict.fromkeys(_chosen(name, names, "--limit"), int(number)))
    return limits


def _print(study: Study, anchor: str) -> None:
    from lichen.benchmark import report

    print(f"\n{study.name}, {study.pictures} pictures, averages over the pictures at each setting\n")
    print(report.rate_distortion_table({c: study.points(c) for c in study.codecs}))
    if anchor in study.codecs or anchor in study.published:
        print(f"\nBD-rate against {anchor}\n")
        print(report.comparison_table(study, anchor))
    else:
        print(f"\nno BD-rates: {anchor} was not measured (--anchor CODEC)")
    print()
