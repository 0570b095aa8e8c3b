"""The command line: one file a command, each thin: parse, call, print.

Exit status: 0 done, 1 something was refused (one sentence on standard error says what), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from lichen.cli import bench, completion, decode, encode, info, inspect, models, train
from lichen.errors import LichenError, LichenWarning, reason_of
from lichen.interrupt import terminated_as_interrupted
from lichen.version import __version__


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    p = argparse.ArgumentParser(prog="lichen", description="Learned image compression.")
    p.add_argument("--version", action="version", version=f"lichen {__version__}")
    commands = p.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (encode, decode, info, models, train, bench, inspect, completion):
        command.add_parser(commands)
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # None where they are closed
    args = parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    try:
        with warnings.catch_warnings(), terminated_as_interrupted():
            warnings.simplefilter("always", LichenWarning)
            warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow's, beside our own sentence
            warnings.showwarning = _show
            status = int(args.run(args))
        sys.stdout.flush()
        return status
    except LichenError as e:
        print(f"lichen: {e}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        _forget_output()
        return 1
    except OSError as e:
        print(f"lichen: {reason_of(e)}{f' ({e.filename})' if e.filename else ''}", file=sys.stderr)
        _forget_output()
        return 1
    except KeyboardInterrupt:
        print("lichen: interrupted", file=sys.stderr)
        return 130


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _forget_output() -> None:
    """What standard output still holds and cannot be written; Python would try again as it ends."""
    with contextlib.suppress(OSError, ValueError):  # no file behind it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Lichen's warnings as a sentence, others as Python has them."""
    if issubclass(category, LichenWarning):
        print(f"lichen: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno))
